/*
 * entra.c - the client-credentials flow with a secret, one token at a time.
 *
 * A token goes through three ages, by a clock that also counts while the machine sleeps:
 *
 *     fetched ------------- renew_ms ------------- end_ms -------
 *        fresh: handed out     aging: handed out,     over: askers wait for the next one
 *                              the next one is fetched
 *
 * A spoiled token (401) is over at once. After a fetch that failed, none is tried before hold_ms, and whoever asks in
 * between gets the same answer: 60 s where the fault is ours, so that a wrong secret does not hammer Entra into locking
 * the application out, and what Retry-After asks (5 s where it does not) where it is passing.
 *
 * Askers are answered from on_later(), on the turn after they asked, or when the fetch they wait for has ended.
 */
#include "daemon/entra.h"
#include "daemon/conf.h"
#include "daemon/json.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#define ENTRA_MARGIN_MS     (300 * 1000)
#define ENTRA_LIFE_MAX_S    (48 * 3600)        /* Entra's longest is 28 h; a later end is not believed */
#define ENTRA_TOKEN_MAX     (16 * 1024)
#define ENTRA_HOLD_REFUSED_MS (60 * 1000)
#define ENTRA_HOLD_PASSING_MS (5 * 1000)
#define ENTRA_HOLD_MIN_MS   1000               /* also where Retry-After says 0 */
#define ENTRA_HOLD_MAX_MS   (3600 * 1000)

_Static_assert(HTTP_ANSWER_PADDING >= JSON_PADDING, "an answer's body can be parsed where it lies");

struct entra_asker {
    STAILQ_ENTRY(entra_asker) link;
    entra_done done;
    void *arg;
};

STAILQ_HEAD(entra_askers, entra_asker);

struct entra {
    struct http *http;
    struct entra_conf conf;
    char *url;
    uint64_t (*now_ms)(void);

    char *token;                     /* NULL: none yet */
    uint64_t renew_ms, end_ms;
    bool spoiled;

    struct http_request *fetch;      /* NULL: none under way */
    char *form;                      /* its body, with the secret in it */
    size_t form_size;
    uint64_t fetch_ms;               /* when it began: a token's life counts from no later than this */

    uint64_t hold_ms;                /* no fetch before this; 0: the last one went well */
    bool refused;                    /* how the last one failed, and why */
    char why[512];

    struct entra_askers askers;
    uv_timer_t later;
    bool closing;
};

static void entra_wipe(char *text, size_t size)
{
    if (text)
        explicit_bzero(text, size);
    free(text);
}

/* ---- What Entra says when it says no --------------------------------------------------------------------------- */

static const struct entra_refusal {
    int64_t code;                    /* AADSTS…: the first of error_codes */
    const char *advice;
} entra_refusals[] = {
    { 7000215, "the secret is wrong: put the secret's value, not its id, into secret_file" },
    { 7000222, "the secret has expired: make a new one for the app and put its value into secret_file" },
    { 700016,  "the app is not known in this tenant: check client and tenant" },
    { 7000112, "the app is disabled in this tenant: enable its service principal" },
    { 90002,   "the tenant does not exist: check tenant, and authority for its cloud" },
    { 900023,  "tenant is neither a tenant's id nor a domain of it" },
    { 900382,  "the tenant lives in another cloud: check authority" },
    { 70011,   "the scope is not valid: it must be the far end's address followed by /.default" },
    { 1002012, "the scope is not valid: it must be the far end's address followed by /.default" },
    { 500011,  "the tenant does not know the scope's resource: check scope for this cloud" },
    { 53003,   "a conditional access policy of the tenant blocks the app" },
    { 50034,   "the app is not known in this tenant: check client and tenant" },
};

static const char *entra_advice(int64_t code)
{
    for (size_t i = 0; i < sizeof(entra_refusals) / sizeof(entra_refusals[0]); i++)
        if (entra_refusals[i].code == code)
            return entra_refusals[i].advice;
    return "check tenant, client, secret_file, authority and scope";
}

/* ---- Outcomes of a fetch --------------------------------------------------------------------------------------- */

static void entra_failed(struct entra *entra, bool refused, int64_t hold_ms, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void entra_failed(struct entra *entra, bool refused, int64_t hold_ms, const char *format, ...)
{
    va_list args;

    if (hold_ms < ENTRA_HOLD_MIN_MS)
        hold_ms = ENTRA_HOLD_MIN_MS;
    if (hold_ms > ENTRA_HOLD_MAX_MS)
        hold_ms = ENTRA_HOLD_MAX_MS;
    va_start(args, format);
    vsnprintf(entra->why, sizeof(entra->why), format, args);
    va_end(args);
    entra->refused = refused;
    entra->hold_ms = entra->now_ms() + (uint64_t)hold_ms;
}

/* It goes into a header: nothing but visible ASCII. */
static bool entra_token_fits(struct pen_span token)
{
    if (token.size == 0 || token.size > ENTRA_TOKEN_MAX)
        return false;
    for (size_t i = 0; i < token.size; i++)
        if (token.data[i] <= ' ' || token.data[i] >= 0x7f)
            return false;
    return true;
}

static void entra_take(struct entra *entra, struct pen_span token, int64_t life_s, int64_t renew_s)
{
    char *copy = malloc(token.size + 1);
    uint64_t life_ms;

    assert(copy);
    memcpy(copy, token.data, token.size);
    copy[token.size] = '\0';
    if (entra->token)
        entra_wipe(entra->token, strlen(entra->token));
    entra->token = copy;
    entra->spoiled = false;
    entra->hold_ms = 0;

    life_ms = (uint64_t)(life_s < ENTRA_LIFE_MAX_S ? life_s : ENTRA_LIFE_MAX_S) * 1000;
    entra->end_ms = entra->fetch_ms + life_ms;
    /* One that lives shorter than twice the margin is renewed at half its life. */
    entra->renew_ms = entra->end_ms - (life_ms > 2 * ENTRA_MARGIN_MS ? ENTRA_MARGIN_MS : life_ms / 2);
    if (renew_s > 0 && entra->fetch_ms + (uint64_t)renew_s * 1000 < entra->renew_ms)
        entra->renew_ms = entra->fetch_ms + (uint64_t)renew_s * 1000;
}

/* A 200's body. False: it holds no token. */
static bool entra_read_token(struct entra *entra, const struct pen_json *root)
{
    struct pen_json life = pen_json_get(root, "expires_in"), renew = pen_json_get(root, "refresh_in");
    struct pen_span token = pen_json_text(root, "access_token");
    int64_t life_s = 0, renew_s = 0;

    if (!entra_token_fits(token) || !pen_span_is_nocase(pen_json_text(root, "token_type"), "Bearer") ||
        !pen_json_int(&life, &life_s) || life_s <= 0)
        return false;
    if (!pen_json_int(&renew, &renew_s) || renew_s > ENTRA_LIFE_MAX_S)
        renew_s = 0;
    entra_take(entra, token, life_s, renew_s);
    explicit_bzero((char *)token.data, token.size);           /* the tree is ours and goes next */
    return true;
}

/* An error's body. The description is Entra's prose, with who knows what in it: not for our log. */
static void entra_read_error(struct entra *entra, int status, const struct pen_json *root)
{
    struct pen_json codes = pen_json_get(root, "error_codes"), first = pen_json_item(&codes, 0);
    struct pen_span trace = pen_json_text(root, "trace_id");
    int64_t code = 0;

    if (!pen_guid_valid(trace))
        trace = PEN_SPAN("-");
    if (pen_json_int(&first, &code))
        entra_failed(entra, true, ENTRA_HOLD_REFUSED_MS, "Entra gives no token: AADSTS%lld, %s (trace id %.*s)",
                     (long long)code, entra_advice(code), (int)trace.size, trace.data);
    else
        entra_failed(entra, true, ENTRA_HOLD_REFUSED_MS, "Entra gives no token: status %d, %s (trace id %.*s)", status,
                     entra_advice(0), (int)trace.size, trace.data);
}

static void entra_read(struct entra *entra, const struct http_answer *answer)
{
    struct json *json = json_new();
    struct pen_json root = { 0 };
    const char *why;

    if (json_parse(json, answer->body.data, answer->body.size, &root, &why) < 0)
        root = (struct pen_json){ 0 };
    if (answer->status != 200)
        entra_read_error(entra, answer->status, &root);
    else if (!entra_read_token(entra, &root))
        entra_failed(entra, false, ENTRA_HOLD_PASSING_MS,
                     "the token endpoint answered 200 without a token that can be used");
    json_free(json);
}

static void entra_judge(struct entra *entra, const struct http_answer *answer)
{
    int64_t hold_ms = answer->retry_after_ms >= 0 ? answer->retry_after_ms : ENTRA_HOLD_PASSING_MS;
    int status = answer->status;

    if (status == 0 && (answer->failure == HTTP_UNUSABLE || answer->failure == HTTP_UNTRUSTED))
        entra_failed(entra, true, ENTRA_HOLD_REFUSED_MS,
                     "the token endpoint cannot be asked: %s; check authority, proxy, ca_file and this machine's clock",
                     answer->trouble);
    else if (status == 0)
        entra_failed(entra, false, ENTRA_HOLD_PASSING_MS, "the token endpoint did not answer: %s", answer->trouble);
    else if (status == 408 || status == 429 || status >= 500)
        entra_failed(entra, false, hold_ms, "the token endpoint is busy or in trouble: status %d", status);
    else if (status >= 300 && status < 400)
        entra_failed(entra, true, ENTRA_HOLD_REFUSED_MS,
                     "the token endpoint redirects (status %d): check authority", status);
    else
        entra_read(entra, answer);
}

/* ---- Fetching -------------------------------------------------------------------------------------------------- */

/* Adds "name=value&", the value percent-encoded, and returns the new end. Room is three bytes per byte. */
static char *entra_form_add(char *at, const char *name, const char *value, size_t size)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    static const char hex[] = "0123456789ABCDEF";

    at = stpcpy(at, name);
    *at++ = '=';
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)value[i];

        if (c != '\0' && strchr(plain, c)) {
            *at++ = (char)c;
        } else {
            *at++ = '%';
            *at++ = hex[c >> 4];
            *at++ = hex[c & 15];
        }
    }
    *at++ = '&';
    return at;
}

static void entra_form_make(struct entra *entra, const char *secret, size_t secret_size)
{
    const struct entra_conf *conf = &entra->conf;
    size_t room = 128 + 3 * (strlen(conf->client) + strlen(conf->scope) + secret_size);
    char *at;

    entra->form = at = malloc(room);
    assert(at);
    at = entra_form_add(at, "grant_type", "client_credentials", strlen("client_credentials"));
    at = entra_form_add(at, "client_id", conf->client, strlen(conf->client));
    at = entra_form_add(at, "scope", conf->scope, strlen(conf->scope));
    at = entra_form_add(at, "client_secret", secret, secret_size);
    entra->form_size = (size_t)(at - entra->form) - 1;        /* without the last & */
    assert(entra->form_size < room);
}

static void entra_form_wipe(struct entra *entra)
{
    entra_wipe(entra->form, entra->form_size);
    entra->form = NULL;
}

static void on_fetched(void *arg, const struct http_answer *answer);

static void entra_fetch(struct entra *entra)
{
    static const char *const headers[] = {
        "Content-Type: application/x-www-form-urlencoded", "Accept: application/json", NULL,
    };
    struct http_ask ask = { .method = "POST", .url = entra->url, .headers = headers, .conf = entra->conf.http };
    struct pen_error err = { 0 };
    char *secret;
    size_t size;

    if (pen_secret_read(&secret, &size, entra->conf.secret_file, &err) < 0) {
        entra_failed(entra, true, ENTRA_HOLD_REFUSED_MS, "no token without the secret: %.*s", 400, err.text);
        return;
    }
    entra_form_make(entra, secret, size);
    pen_secret_wipe(secret, size);
    ask.body = (struct pen_span){ entra->form, entra->form_size };
    entra->fetch_ms = entra->now_ms();
    entra->fetch = http_start(entra->http, &ask, on_fetched, entra);
}

/* ---- Asking ---------------------------------------------------------------------------------------------------- */

/* Answers all who wait, with the token or, where it is NULL, with why there is none. They may ask again, spoil the token
 * and close in their callbacks. */
static void entra_answer(struct entra *entra, const char *token)
{
    struct entra_askers askers = STAILQ_HEAD_INITIALIZER(askers);
    uint64_t now_ms = entra->now_ms();
    int64_t wait_ms = entra->hold_ms > now_ms ? (int64_t)(entra->hold_ms - now_ms) : 0;
    struct entra_asker *asker;

    STAILQ_CONCAT(&askers, &entra->askers);
    while ((asker = STAILQ_FIRST(&askers))) {
        STAILQ_REMOVE_HEAD(&askers, link);
        if (!entra->closing)
            asker->done(asker->arg, token, !token && entra->refused, token ? -1 : wait_ms, token ? NULL : entra->why);
        free(asker);
    }
}

static void entra_serve(struct entra *entra)
{
    uint64_t now_ms = entra->now_ms();
    bool over = !entra->token || entra->spoiled || now_ms >= entra->end_ms;
    bool fresh = !over && now_ms < entra->renew_ms;

    if (!fresh && !entra->fetch && now_ms >= entra->hold_ms)
        entra_fetch(entra);
    if (!over)
        entra_answer(entra, entra->token);
    else if (!entra->fetch)                        /* held back, or failed before it went out */
        entra_answer(entra, NULL);
}

/* A new token goes to all who waited for it, however short its life. */
static void on_fetched(void *arg, const struct http_answer *answer)
{
    struct entra *entra = arg;

    entra->fetch = NULL;
    entra_form_wipe(entra);
    entra_judge(entra, answer);
    if (entra->hold_ms == 0)
        entra_answer(entra, entra->token);
    else
        entra_serve(entra);
}

static void on_later(uv_timer_t *later)
{
    struct entra *entra = later->data;

    if (!STAILQ_EMPTY(&entra->askers))
        entra_serve(entra);
}

void entra_token(struct entra *entra, entra_done done, void *arg)
{
    struct entra_asker *asker = malloc(sizeof(*asker));

    assert(asker && !entra->closing);
    *asker = (struct entra_asker){ .done = done, .arg = arg };
    STAILQ_INSERT_TAIL(&entra->askers, asker, link);
    uv_timer_start(&entra->later, on_later, 0, 0);
}

/* The text stays until the next token replaces it, since the caller may be reading it. */
void entra_spoiled(struct entra *entra, const char *token)
{
    if (entra->token && strcmp(entra->token, token) == 0)
        entra->spoiled = true;
}

uint64_t entra_life_ms(const struct entra *entra)
{
    uint64_t now_ms = entra->now_ms();

    return entra->token && now_ms < entra->end_ms ? entra->end_ms - now_ms : 0;
}

/* ---- Life ------------------------------------------------------------------------------------------------------ */

static uint64_t entra_clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void entra_set_clock(struct entra *entra, uint64_t (*now_ms)(void))
{
    entra->now_ms = now_ms;
}

/* It becomes a part of the URL's path. */
static bool entra_tenant_fits(const char *tenant)
{
    size_t size = strspn(tenant, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.");

    return size > 0 && size <= 253 && tenant[size] == '\0' && tenant[0] != '.';
}

int entra_conf_check(const struct entra_conf *conf, struct pen_error *err)
{
    struct pen_error inner = { 0 };

    if (http_url_check(conf->authority, 0, &inner) < 0)
        return pen_error_set(err, UV_EINVAL, "authority: %.*s", 400, inner.text);
    if (strpbrk(conf->authority, "?#"))
        return pen_error_set(err, UV_EINVAL, "authority: expected https://HOST without anything behind it");
    if (!entra_tenant_fits(conf->tenant))
        return pen_error_set(err, UV_EINVAL, "tenant: expected the tenant's id (a GUID) or one of its domain names");
    if (!pen_guid_valid((struct pen_span){ conf->client, strlen(conf->client) }))
        return pen_error_set(err, UV_EINVAL, "client: expected the application's id, a GUID");
    return 0;
}

int entra_new(struct entra **ret, struct http *http, uv_loop_t *loop, const struct entra_conf *conf,
              struct pen_error *err)
{
    size_t authority_size = strlen(conf->authority);
    struct entra *entra;
    int r = entra_conf_check(conf, err);

    if (r < 0)
        return r;
    entra = calloc(1, sizeof(*entra));
    assert(entra);
    entra->http = http;
    entra->conf = *conf;
    entra->now_ms = entra_clock_ms;
    STAILQ_INIT(&entra->askers);
    while (authority_size > 0 && conf->authority[authority_size - 1] == '/')
        authority_size--;
    if (asprintf(&entra->url, "%.*s/%s/oauth2/v2.0/token", (int)authority_size, conf->authority, conf->tenant) < 0)
        abort();
    uv_timer_init(loop, &entra->later);
    entra->later.data = entra;
    *ret = entra;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct entra *entra = handle->data;

    if (entra->token)
        entra_wipe(entra->token, strlen(entra->token));
    free(entra->url);
    free(entra);
}

void entra_close(struct entra *entra)
{
    struct entra_asker *asker;

    if (!entra)
        return;
    assert(!entra->closing);
    entra->closing = true;
    if (entra->fetch)
        http_cancel(entra->fetch);
    entra_form_wipe(entra);
    while ((asker = STAILQ_FIRST(&entra->askers))) {
        STAILQ_REMOVE_HEAD(&entra->askers, link);
        free(asker);
    }
    uv_close((uv_handle_t *)&entra->later, on_closed);
}
