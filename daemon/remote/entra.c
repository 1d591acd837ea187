/*
 * entra.c - the life of tokens: one at a time for each identity and scope, shared by all who are that identity.
 *
 *     struct entra, one a sink or source ──┐
 *     struct entra                       ──┼──▶ struct identity: the token, the fetch, and how the last one failed
 *     struct entra                       ──┘
 *
 * A token goes through three ages, by a clock that also counts while the machine sleeps:
 *
 *     fetched ------------- renew_ms ------------- end_ms -------
 *        fresh: handed out     aging: handed out,     over: askers wait for the next one
 *                              the next one is fetched
 *
 * A spoiled token (401) is over at once. After a fetch that failed, none is tried before hold_ms, and whoever asks in
 * between gets the same answer. Where the fault is ours that is a minute, so that a wrong secret does not hammer
 * Entra into locking the application out; but not once the files have changed that it was made of. Where it is
 * passing, it is what Retry-After asks, or else 5 s for Entra, and 2 to 32 s, doubling, for a machine's own endpoint.
 *
 * Askers are answered from on_later(), on the turn after they asked, or on the turn after the fetch they wait for has
 * ended.
 */
#include "daemon/remote/entra.h"

#include "daemon/base/secret.h"
#include "daemon/remote/credential.h"
#include "daemon/remote/entra_answer.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <time.h>

#define MARGIN_MS       (300 * 1000)
#define HALF_LIFE_MS    (7200 * 1000)             /* managed tokens of this life and more are renewed at half of it: MSAL's rule */
#define HOLD_REFUSED_MS (55 * 1000)               /* MSAL's minute, less a bit for sinks that come again after just one */
#define HOLD_PASSING_MS (5 * 1000)                /* MSAL's figure */
#define HOLD_MANAGED_MS 2000                      /* doubling up to 32 s: Microsoft advises 2, 6, 14, 30 s after the first try */
#define HOLD_DOUBLINGS  4
#define HOLD_MIN_MS     1000                      /* also where Retry-After says 0 */
#define HOLD_MAX_MS     (3600 * 1000)

struct asker {
    STAILQ_ENTRY(asker) link;
    entra_done done;
    void *arg;
};

STAILQ_HEAD(askers, asker);

struct entra {
    LIST_ENTRY(entra) link;          /* of its identity's users */
    struct identity *identity;
    struct askers askers;
    uv_timer_t later;
    bool waits;                      /* its askers wait for the fetch under way */
    bool closing;
};

struct identity {
    LIST_ENTRY(identity) link;
    LIST_HEAD(, entra) users;
    unsigned references;             /* users, and those that are closing */
    struct http *http;
    struct http_conf http_conf;      /* texts are its own */
    struct credential credential;
    uint64_t (*now_ms)(void);

    char *token;                     /* NULL: none yet */
    uint64_t renew_ms, end_ms;
    bool spoiled;

    struct http_request *fetch;      /* NULL: none under way */
    struct credential_call call;
    struct credential_stamp stamp;   /* of the files, just before they were read for it */
    uint64_t fetch_ms;               /* when it began: a token's life counts from no later than this */
    bool challenged;                 /* Arc's first answer has come */
    char challenge[CREDENTIAL_CHALLENGE_MAX];

    uint64_t hold_ms;                /* no fetch before this; 0: the last one went well */
    unsigned failures;               /* in a row, passing ones */
    bool refused;                    /* how the last one failed, and why */
    char why[ENTRA_WHY_MAX];
};

/* The loop's thread alone comes here. */
static LIST_HEAD(, identity) identities = LIST_HEAD_INITIALIZER(identities);

/* ---- How a fetch ended ----------------------------------------------------------------------------------------- */

static int64_t hold_of(const struct identity *identity, const struct entra_answer *answer)
{
    unsigned doublings = identity->failures < HOLD_DOUBLINGS ? identity->failures : HOLD_DOUBLINGS;
    int64_t hold_ms = answer->refused ? HOLD_REFUSED_MS : answer->hold_ms >= 0 ? answer->hold_ms
                    : credential_is_managed(&identity->credential) ? HOLD_MANAGED_MS << doublings : HOLD_PASSING_MS;

    return hold_ms < HOLD_MIN_MS ? HOLD_MIN_MS : hold_ms > HOLD_MAX_MS ? HOLD_MAX_MS : hold_ms;
}

static void identity_failed(struct identity *identity, const struct entra_answer *answer)
{
    identity->hold_ms = identity->now_ms() + (uint64_t)hold_of(identity, answer);
    identity->failures = answer->refused ? 0 : identity->failures + 1;
    identity->refused = answer->refused;
    memcpy(identity->why, answer->why, sizeof(identity->why));
}

static void identity_take(struct identity *identity, const struct entra_answer *answer)
{
    uint64_t life_ms = (uint64_t)answer->life_s * 1000, renew_ms = (uint64_t)answer->renew_s * 1000;

    secret_text_free(identity->token);
    identity->token = answer->token;
    identity->spoiled = false;
    identity->hold_ms = 0;
    identity->failures = 0;
    identity->end_ms = identity->fetch_ms + life_ms;
    /* One that lives shorter than twice the margin is renewed at half its life. */
    identity->renew_ms = identity->end_ms - (life_ms > 2 * MARGIN_MS ? MARGIN_MS : life_ms / 2);
    if (renew_ms == 0 && credential_is_managed(&identity->credential) && life_ms >= HALF_LIFE_MS)
        renew_ms = life_ms / 2;
    if (renew_ms > 0 && identity->fetch_ms + renew_ms < identity->renew_ms)
        identity->renew_ms = identity->fetch_ms + renew_ms;
}

/* ---- Fetching -------------------------------------------------------------------------------------------------- */

static void on_fetched(void *arg, const struct http_answer *http);

static void on_header(void *arg, struct pen_span name, struct pen_span value)
{
    struct identity *identity = arg;

    if (pen_span_is_nocase(name, "WWW-Authenticate") && value.size < sizeof(identity->challenge))
        snprintf(identity->challenge, sizeof(identity->challenge), "%.*s", (int)value.size, value.data);
}

static void identity_send(struct identity *identity)
{
    const struct credential_call *call = &identity->call;
    bool managed = credential_is_managed(&identity->credential);
    struct http_ask ask = {
        .method = call->method, .url = call->url, .headers = (const char *const *)call->headers, .conf = identity->http_conf,
        .body = { call->body, call->body != NULL ? strlen(call->body) : 0 }, .flags = managed ? HTTP_PLAIN_OK : 0,
        .on_header = identity->credential.kind == CREDENTIAL_ARC ? on_header : NULL,
    };

    if (managed)
        ask.conf.proxy = "";
    identity->challenge[0] = '\0';
    identity->fetch = http_start(identity->http, &ask, on_fetched, identity);
}

static void identity_fetch(struct identity *identity)
{
    struct entra_answer answer;
    struct pen_error err = { 0 };

    identity->stamp = credential_stamp(&identity->credential);
    identity->fetch_ms = identity->now_ms();
    identity->challenged = false;
    if (credential_call(&identity->credential, &identity->call, &err) == 0) {
        identity_send(identity);
        return;
    }
    entra_answer_refuse(&answer, "no token can be asked for: %.*s", 400, err.text);
    identity_failed(identity, &answer);
}

/* The second half of a fetch from Arc. False: it cannot be asked. */
static bool identity_answer_challenge(struct identity *identity, struct entra_answer *answer)
{
    struct pen_error err = { 0 };

    identity->challenged = true;
    if (credential_call_again(&identity->credential, identity->challenge, &identity->call, &err) == 0) {
        identity_send(identity);
        return true;
    }
    entra_answer_refuse(answer, "no token can be asked for: %.*s", 400, err.text);
    return false;
}

static void on_later(uv_timer_t *later);

static void on_fetched(void *arg, const struct http_answer *http)
{
    struct identity *identity = arg;
    struct entra_answer answer;
    struct entra *entra;

    identity->fetch = NULL;
    credential_call_wipe(&identity->call);
    if (http->status == 401 && identity->credential.kind == CREDENTIAL_ARC && !identity->challenged) {
        if (identity_answer_challenge(identity, &answer))
            return;
    } else {
        entra_answer_read(&answer, &identity->credential, http, (int64_t)time(NULL));
    }
    if (answer.token != NULL)
        identity_take(identity, &answer);
    else
        identity_failed(identity, &answer);
    LIST_FOREACH(entra, &identity->users, link)
        uv_timer_start(&entra->later, on_later, 0, 0);
}

/* ---- Asking ---------------------------------------------------------------------------------------------------- */

/* Answers all who wait, with the token or, where it is NULL, with why there is none. They may ask again, spoil the
 * token and close in their callbacks; the identity outlives that by a turn. */
static void entra_answer_all(struct entra *entra, const char *token)
{
    struct askers askers = STAILQ_HEAD_INITIALIZER(askers);
    const struct identity *identity = entra->identity;
    uint64_t now_ms = identity->now_ms();
    int64_t wait_ms = token == NULL && !identity->refused && identity->hold_ms > now_ms ? (int64_t)(identity->hold_ms - now_ms)
                                                                                          : -1;
    struct asker *asker;

    entra->waits = false;
    STAILQ_CONCAT(&askers, &entra->askers);
    while ((asker = STAILQ_FIRST(&askers))) {
        STAILQ_REMOVE_HEAD(&askers, link);
        if (!entra->closing)
            asker->done(asker->arg, token, token == NULL && identity->refused, wait_ms, token != NULL ? NULL : identity->why);
        free(asker);
    }
}

static bool identity_is_held(const struct identity *identity, uint64_t now_ms)
{
    struct credential_stamp stamp;

    if (now_ms >= identity->hold_ms)
        return false;
    if (!identity->refused || now_ms < identity->fetch_ms + HOLD_MIN_MS)
        return true;
    stamp = credential_stamp(&identity->credential);
    return memcmp(&stamp, &identity->stamp, sizeof(stamp)) == 0;
}

static void entra_serve(struct entra *entra)
{
    struct identity *identity = entra->identity;
    uint64_t now_ms = identity->now_ms();
    bool over = identity->token == NULL || identity->spoiled || now_ms >= identity->end_ms;
    bool fresh = !over && now_ms < identity->renew_ms;

    /* Who waited for this very token gets it, however short its life. */
    if (entra->waits && identity->fetch == NULL && identity->hold_ms == 0 && !identity->spoiled)
        fresh = true;
    over = over && !fresh;
    if (!fresh && identity->fetch == NULL && !identity_is_held(identity, now_ms))
        identity_fetch(identity);
    if (!over)
        entra_answer_all(entra, identity->token);
    else if (identity->fetch == NULL)              /* held back, or failed before it went out */
        entra_answer_all(entra, NULL);
    else
        entra->waits = true;
}

static void on_later(uv_timer_t *later)
{
    struct entra *entra = later->data;

    if (!STAILQ_EMPTY(&entra->askers))
        entra_serve(entra);
}

void entra_token(struct entra *entra, entra_done done, void *arg)
{
    struct asker *asker = malloc(sizeof(*asker));

    assert(asker && !entra->closing);
    *asker = (struct asker){ .done = done, .arg = arg };
    STAILQ_INSERT_TAIL(&entra->askers, asker, link);
    uv_timer_start(&entra->later, on_later, 0, 0);
}

/* The text stays until the next token replaces it, since the caller may be reading it. */
void entra_spoiled(struct entra *entra, const char *token)
{
    if (entra->identity->token && strcmp(entra->identity->token, token) == 0)
        entra->identity->spoiled = true;
}

uint64_t entra_life_ms(const struct entra *entra)
{
    const struct identity *identity = entra->identity;
    uint64_t now_ms = identity->now_ms();

    return identity->token && now_ms < identity->end_ms ? identity->end_ms - now_ms : 0;
}

/* ---- Life ------------------------------------------------------------------------------------------------------ */

static uint64_t clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void entra_set_clock(struct entra *entra, uint64_t (*now_ms)(void))
{
    entra->identity->now_ms = now_ms;
}

static char *copied(const char *text)
{
    char *copy = text != NULL ? strdup(text) : NULL;

    assert(copy != NULL || text == NULL);
    return copy;
}

static bool text_same(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Two who differ in nothing but their patience are one. */
static struct identity *identity_find(const struct http *http, const struct http_conf *conf, const struct credential *credential)
{
    struct identity *identity;

    LIST_FOREACH(identity, &identities, link)
        if (identity->http == http && text_same(identity->http_conf.proxy, conf->proxy) &&
            text_same(identity->http_conf.ca_file, conf->ca_file) && credential_same(&identity->credential, credential))
            return identity;
    return NULL;
}

/* Takes the credential over. */
static struct identity *identity_new(struct http *http, const struct http_conf *conf, const struct credential *credential)
{
    struct identity *identity = calloc(1, sizeof(*identity));

    assert(identity);
    identity->http = http;
    identity->http_conf = *conf;
    identity->http_conf.proxy = copied(conf->proxy);
    identity->http_conf.ca_file = copied(conf->ca_file);
    identity->credential = *credential;
    identity->now_ms = clock_ms;
    LIST_INIT(&identity->users);
    LIST_INSERT_HEAD(&identities, identity, link);
    return identity;
}

static void identity_free(struct identity *identity)
{
    secret_text_free(identity->token);
    free((char *)identity->http_conf.proxy);
    free((char *)identity->http_conf.ca_file);
    credential_clear(&identity->credential);
    free(identity);
}

int entra_new(struct entra **ret, struct http *http, uv_loop_t *loop, const struct entra_conf *conf,
              struct pen_error *err)
{
    struct credential credential;
    struct identity *identity;
    struct entra *entra;
    int r = credential_new(&credential, conf, err);

    if (r < 0)
        return r;
    identity = identity_find(http, &conf->http, &credential);
    if (identity != NULL)
        credential_clear(&credential);
    else
        identity = identity_new(http, &conf->http, &credential);
    entra = calloc(1, sizeof(*entra));
    assert(entra);
    entra->identity = identity;
    identity->references++;
    LIST_INSERT_HEAD(&identity->users, entra, link);
    STAILQ_INIT(&entra->askers);
    uv_timer_init(loop, &entra->later);
    entra->later.data = entra;
    *ret = entra;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct entra *entra = handle->data;

    if (--entra->identity->references == 0)
        identity_free(entra->identity);
    free(entra);
}

/* The last user takes the identity out of sight; its memory goes with the last handle. */
static void identity_leave(struct entra *entra)
{
    struct identity *identity = entra->identity;

    LIST_REMOVE(entra, link);
    if (!LIST_EMPTY(&identity->users))
        return;
    LIST_REMOVE(identity, link);
    if (identity->fetch)
        http_cancel(identity->fetch);
    identity->fetch = NULL;
    credential_call_wipe(&identity->call);
}

void entra_close(struct entra *entra)
{
    struct asker *asker;

    if (!entra)
        return;
    assert(!entra->closing);
    entra->closing = true;
    identity_leave(entra);
    while ((asker = STAILQ_FIRST(&entra->askers))) {
        STAILQ_REMOVE_HEAD(&entra->askers, link);
        free(asker);
    }
    uv_close((uv_handle_t *)&entra->later, on_closed);
}
