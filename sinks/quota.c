/*
 * quota.c - two buckets per DCR, of requests and of bytes.
 *
 * A bucket holds a sixtieth of what a minute allows and fills by fifty-nine sixtieths a minute: so no sixty seconds,
 * wherever the service lets them begin, see more than the whole. What costs more than a bucket holds may go when it is
 * full, and leaves it in debt.
 */
#include "sinks/quota.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MINUTE_MS 60000.0

struct bucket {
    double size, level;
    double a_ms;                     /* it fills by this; 0: no bound */
    double whole_size, whole_a_ms;   /* as much as the service allows all of us together */
};

struct wish {                        /* of one who has it open */
    LIST_ENTRY(wish) entry;
    uint64_t requests, bytes;        /* a minute */
};

TAILQ_HEAD(quota_claims, quota_claim);

struct quota {
    LIST_ENTRY(quota) entry;
    uv_loop_t *loop;
    char *dcr;
    LIST_HEAD(, wish) wishes;
    struct bucket requests, bytes;
    const struct pen_beside *beside; /* NULL: all of it is ours */
    uint64_t filled_ms;
    struct quota_claims live, replayed;
    uv_timer_t timer;
};

static LIST_HEAD(, quota) quotas = LIST_HEAD_INITIALIZER(quotas);

/* ---- Buckets ---- */

static void bucket_limit(struct bucket *bucket, uint64_t a_minute)
{
    double size = (double)a_minute / 60, a_ms = size * 59 / MINUTE_MS;
    double level = bucket->whole_a_ms > 0 && bucket->level < size ? bucket->level : size;

    if (a_ms != bucket->whole_a_ms)
        *bucket = (struct bucket){ .size = size, .level = level, .a_ms = a_ms, .whole_size = size, .whole_a_ms = a_ms };
}

/* Ours of the whole, while the daemon uses so much a minute. */
static void bucket_share(struct bucket *bucket, uint64_t used)
{
    double left = bucket->whole_a_ms - (double)used / MINUTE_MS;

    bucket->a_ms = left > bucket->whole_a_ms / 60 ? left : bucket->whole_a_ms / 60;
    if (bucket->a_ms > bucket->whole_a_ms / 2)
        bucket->a_ms = bucket->whole_a_ms / 2;
    bucket->size = bucket->whole_size / 2;
}

static void bucket_fill(struct bucket *bucket, uint64_t ms)
{
    bucket->level += bucket->a_ms * (double)ms;
    if (bucket->level > bucket->size)
        bucket->level = bucket->size;
}

/* How long until this cost may be taken; 0: now. */
static uint64_t bucket_wait_ms(const struct bucket *bucket, double cost)
{
    double missing = (cost < bucket->size ? cost : bucket->size) - bucket->level;

    return bucket->a_ms == 0 || missing <= 0 ? 0 : (uint64_t)(missing / bucket->a_ms) + 1;
}

static void quota_fill(struct quota *quota)
{
    uint64_t now = uv_now(quota->loop);

    if (quota->beside != NULL) {
        bucket_share(&quota->requests, quota->beside->requests_a_minute);
        bucket_share(&quota->bytes, quota->beside->bytes_a_minute);
    }
    bucket_fill(&quota->requests, now - quota->filled_ms);
    bucket_fill(&quota->bytes, now - quota->filled_ms);
    quota->filled_ms = now;
}

static uint64_t quota_wait_ms(const struct quota *quota, const struct quota_claim *claim)
{
    uint64_t requests = bucket_wait_ms(&quota->requests, 1), bytes = bucket_wait_ms(&quota->bytes, (double)claim->bytes);

    return requests > bytes ? requests : bytes;
}

/* ---- Claims ---- */

static void on_timer(uv_timer_t *timer);

static struct quota_claims *quota_list(struct quota *quota, const struct quota_claim *claim)
{
    return claim->replayed ? &quota->replayed : &quota->live;
}

static struct quota_claim *quota_first(struct quota *quota)
{
    return !TAILQ_EMPTY(&quota->live) ? TAILQ_FIRST(&quota->live) : TAILQ_FIRST(&quota->replayed);
}

static void quota_arm(struct quota *quota)
{
    const struct quota_claim *first = quota_first(quota);

    if (first != NULL)
        uv_timer_start(&quota->timer, on_timer, quota_wait_ms(quota, first), 0);
    else
        uv_timer_stop(&quota->timer);
}

static void on_timer(uv_timer_t *timer)
{
    struct quota *quota = timer->data;
    struct quota_claim *claim;

    quota_fill(quota);
    while ((claim = quota_first(quota)) != NULL && quota_wait_ms(quota, claim) == 0) {
        TAILQ_REMOVE(quota_list(quota, claim), claim, entry);
        quota_charge(quota, claim->bytes);
        claim->granted(claim);
    }
    quota_arm(quota);
}

void quota_charge(struct quota *quota, uint64_t bytes)
{
    quota->requests.level -= 1;
    quota->bytes.level -= (double)bytes;
}

bool quota_ask(struct quota *quota, struct quota_claim *claim)
{
    bool first = TAILQ_EMPTY(&quota->live) && (!claim->replayed || TAILQ_EMPTY(&quota->replayed));

    quota_fill(quota);
    if (first && quota_wait_ms(quota, claim) == 0) {
        quota_charge(quota, claim->bytes);
        return true;
    }
    TAILQ_INSERT_TAIL(quota_list(quota, claim), claim, entry);
    quota_arm(quota);
    return false;
}

void quota_cancel(struct quota *quota, struct quota_claim *claim)
{
    TAILQ_REMOVE(quota_list(quota, claim), claim, entry);
    quota_arm(quota);
}

/* ---- Whose it is ---- */

static struct quota *quota_find(uv_loop_t *loop, const char *dcr)
{
    struct quota *quota;

    LIST_FOREACH(quota, &quotas, entry)
        if (quota->loop == loop && strcasecmp(quota->dcr, dcr) == 0)
            return quota;
    return NULL;
}

static struct quota *quota_new(uv_loop_t *loop, const char *dcr)
{
    struct quota *quota = calloc(1, sizeof(*quota));

    assert(quota);
    quota->loop = loop;
    quota->dcr = strdup(dcr);
    assert(quota->dcr);
    quota->filled_ms = uv_now(loop);
    TAILQ_INIT(&quota->live);
    TAILQ_INIT(&quota->replayed);
    LIST_INIT(&quota->wishes);
    uv_timer_init(loop, &quota->timer);
    quota->timer.data = quota;
    LIST_INSERT_HEAD(&quotas, quota, entry);
    return quota;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a == 0 || (b > 0 && b < a) ? b : a;
}

static void quota_limit(struct quota *quota)
{
    const struct wish *wish;
    uint64_t requests = 0, bytes = 0;

    LIST_FOREACH(wish, &quota->wishes, entry) {
        requests = smaller(requests, wish->requests);
        bytes = smaller(bytes, wish->bytes);
    }
    bucket_limit(&quota->requests, requests);
    bucket_limit(&quota->bytes, bytes);
}

struct quota *quota_open(uv_loop_t *loop, const char *dcr, uint64_t requests_a_minute, uint64_t bytes_a_minute)
{
    struct quota *quota = quota_find(loop, dcr);
    struct wish *wish = calloc(1, sizeof(*wish));

    assert(wish);
    if (quota == NULL)
        quota = quota_new(loop, dcr);
    wish->requests = requests_a_minute;
    wish->bytes = bytes_a_minute;
    LIST_INSERT_HEAD(&quota->wishes, wish, entry);
    quota_fill(quota);
    quota_limit(quota);
    return quota;
}

void quota_give_way(struct quota *quota, const struct pen_beside *beside)
{
    quota->beside = beside;
    quota_fill(quota);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct quota *quota = handle->data;

    free(quota->dcr);
    free(quota);
}

void quota_close(struct quota *quota, uint64_t requests_a_minute, uint64_t bytes_a_minute)
{
    struct wish *wish;

    if (quota == NULL)
        return;
    LIST_FOREACH(wish, &quota->wishes, entry)
        if (wish->requests == requests_a_minute && wish->bytes == bytes_a_minute)
            break;
    assert(wish);
    LIST_REMOVE(wish, entry);
    free(wish);
    if (!LIST_EMPTY(&quota->wishes)) {
        quota_fill(quota);
        quota_limit(quota);
        quota_arm(quota);
        return;
    }
    assert(quota_first(quota) == NULL);
    LIST_REMOVE(quota, entry);
    uv_close((uv_handle_t *)&quota->timer, on_timer_closed);
}
