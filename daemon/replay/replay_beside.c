/* replay_beside.c - see replay_beside.h. */
#include "daemon/replay/replay_beside.h"

#include "daemon/command/ask.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_MS 2000                 /* what a look costs the daemon grows with what it knows: not more often */
#define ASK_SECONDS 2

struct replay_beside {
    struct replay_beside_conf conf;
    uv_timer_t timer;
    uv_work_t work;
    struct answer answer;            /* the pool's while `asking`, … */
    int result;                      /* … and this */
    bool asking, closing;
    const char *waits;
    /* as of the last answer */
    bool known;
    uint64_t looked_ms, submitted, bytes;
    const char *queues;              /* it had batches in turn */
};

static void on_look(uv_timer_t *timer);

static uint64_t number(const struct pen_json *object, const char *key)
{
    const struct pen_json member = pen_json_get(object, key);
    int64_t value = 0;

    return pen_json_int(&member, &value) && value > 0 ? (uint64_t)value : 0;
}

static const char *shared_name(const struct replay_beside_conf *conf, struct pen_span name)
{
    for (size_t i = 0; i < conf->shared_count; i++)
        if (pen_span_is(name, conf->shared[i]))
            return conf->shared[i];
    return NULL;
}

/* It is held back by its far end, or has more than it can send: batches in turn at two looks, one behind the other. */
static bool sink_is_pressed(const struct replay_beside *beside, const struct pen_json *sink, const char *name)
{
    return number(sink, "hold_ms") > 0 || pen_span_is(pen_json_text(sink, "flow"), "paused") ||
        (number(sink, "in_turn") > 0 && beside->queues == name);
}

static uint64_t a_minute(uint64_t now, uint64_t before, uint64_t ms)
{
    return now > before && ms > 0 ? (uint64_t)((double)(now - before) * 60000 / (double)ms) : 0;
}

static void beside_take(struct replay_beside *beside, const struct pen_json *root)
{
    const struct pen_json sinks = pen_json_get(root, "sinks");
    uint64_t now = uv_now(beside->conf.loop), submitted = 0, bytes = 0;
    const char *waits = NULL, *queues = NULL;

    for (struct pen_json_iter it = pen_json_each(&sinks); pen_json_next(&it);) {
        const char *name = shared_name(&beside->conf, pen_json_text(&it.value, "name"));

        if (name == NULL)
            continue;
        submitted += number(&it.value, "submitted");
        bytes += number(&it.value, "bytes");
        if (sink_is_pressed(beside, &it.value, name))
            waits = name;
        if (number(&it.value, "in_turn") > 0)
            queues = name;
    }
    if (beside->known) {
        beside->conf.beside->requests_a_minute = a_minute(submitted, beside->submitted, now - beside->looked_ms);
        beside->conf.beside->bytes_a_minute = a_minute(bytes, beside->bytes, now - beside->looked_ms);
    }
    beside->known = true;
    beside->looked_ms = now;
    beside->submitted = submitted;
    beside->bytes = bytes;
    beside->queues = queues;
    beside->waits = waits;
}

/* Nobody there: all is ours, but for the half that a daemon may want when it comes. */
static void beside_alone(struct replay_beside *beside)
{
    *beside->conf.beside = (struct pen_beside){ 0 };
    beside->known = false;
    beside->waits = beside->queues = NULL;
}

/* It is there, and too busy to answer: just then it needs what we would take. */
static void beside_mute(struct replay_beside *beside)
{
    beside->known = false;
    beside->queues = NULL;
    beside->waits = "a daemon that does not answer";
}

static void beside_free(struct replay_beside *beside)
{
    answer_free(&beside->answer);
    free(beside);
}

static void on_closed(uv_handle_t *handle)
{
    struct replay_beside *beside = handle->data;

    if (!beside->asking)
        beside_free(beside);
    else
        beside->timer.data = NULL;                 /* the answer's turn is the last */
}

static void on_asked(uv_work_t *work, int status)
{
    struct replay_beside *beside = work->data;

    (void)status;
    beside->asking = false;
    if (beside->closing) {
        if (beside->timer.data == NULL)
            beside_free(beside);
        return;
    }
    if (beside->answer.there)
        beside_take(beside, &beside->answer.root);
    else if (beside->result == UV_EIO)
        beside_mute(beside);
    else
        beside_alone(beside);
    pace_hold(beside->conf.pace, beside->waits != NULL);
    uv_timer_start(&beside->timer, on_look, LOOK_MS, 0);
}

static void on_ask(uv_work_t *work)
{
    struct replay_beside *beside = work->data;
    struct pen_error err = { 0 };

    beside->result = answer_get(&beside->answer, beside->conf.state_dir, ASK_SECONDS, &err);
}

static void on_look(uv_timer_t *timer)
{
    struct replay_beside *beside = timer->data;

    beside->asking = true;
    uv_queue_work(beside->conf.loop, &beside->work, on_ask, on_asked);
}

struct replay_beside *replay_beside_open(const struct replay_beside_conf *conf)
{
    struct replay_beside *beside = calloc(1, sizeof(*beside));

    if (beside == NULL)
        abort();
    beside->conf = *conf;
    beside->work.data = beside;
    uv_timer_init(conf->loop, &beside->timer);
    beside->timer.data = beside;
    uv_timer_start(&beside->timer, on_look, 0, 0);
    return beside;
}

const char *replay_beside_waits(const struct replay_beside *beside)
{
    return beside->waits;
}

void replay_beside_close(struct replay_beside *beside)
{
    if (beside == NULL)
        return;
    beside->closing = true;
    uv_close((uv_handle_t *)&beside->timer, on_closed);
}
