/* pace.c - see pace.h. */
#include "daemon/pipeline/pace.h"

#include <stdlib.h>

struct pace {
    uv_loop_t *loop;
    uv_timer_t timer;
    struct pace_rate rate;
    double owed;                     /* bytes or records */
    uint64_t as_of_ms;
    bool held;
    void (*go)(void *arg);
    void *arg;
};

struct pace *pace_new(uv_loop_t *loop, struct pace_rate rate)
{
    struct pace *pace = calloc(1, sizeof(*pace));

    if (pace == NULL)
        abort();
    pace->loop = loop;
    pace->rate = rate;
    pace->as_of_ms = uv_now(loop);
    uv_timer_init(loop, &pace->timer);
    pace->timer.data = pace;
    return pace;
}

void pace_on_go(struct pace *pace, void (*go)(void *arg), void *arg)
{
    pace->go = go;
    pace->arg = arg;
}

bool pace_may_go(const struct pace *pace)
{
    return pace == NULL || (!pace->held && pace->owed <= 0);
}

static void pace_pay(struct pace *pace)
{
    uint64_t now = uv_now(pace->loop);

    pace->owed -= (double)(now - pace->as_of_ms) * (double)pace->rate.a_second / 1000;
    if (pace->owed < 0)
        pace->owed = 0;              /* what was not used is not saved up */
    pace->as_of_ms = now;
}

static void on_paid(uv_timer_t *timer);

static void pace_wait(struct pace *pace)
{
    uint64_t wait_ms = pace->owed > 0 ? (uint64_t)(pace->owed * 1000 / (double)pace->rate.a_second) + 1 : 0;

    uv_timer_start(&pace->timer, on_paid, wait_ms, 0);
}

static void on_paid(uv_timer_t *timer)
{
    struct pace *pace = timer->data;

    pace_pay(pace);
    if (pace->owed > 0)
        pace_wait(pace);
    else if (!pace->held && pace->go != NULL)
        pace->go(pace->arg);
}

void pace_spend(struct pace *pace, uint64_t bytes, uint64_t records)
{
    if (pace == NULL || pace->rate.a_second == 0)
        return;
    pace_pay(pace);
    pace->owed += (double)(pace->rate.unit == PACE_BYTES ? bytes : records);
    pace_wait(pace);
}

void pace_hold(struct pace *pace, bool hold)
{
    if (pace->held == hold)
        return;
    pace->held = hold;
    if (!hold)
        pace_wait(pace);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void pace_close(struct pace *pace)
{
    if (pace != NULL)
        uv_close((uv_handle_t *)&pace->timer, on_closed);
}
