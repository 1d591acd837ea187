/*
 * fake_sink.h - a sink for tests that drive an outlet: it holds what is submitted, and gives the test a turn at every turn
 * of the loop, to answer what it likes.
 */
#ifndef TESTS_LIB_FAKE_SINK_H
#define TESTS_LIB_FAKE_SINK_H

#include "sinks/sink.h"

#include <assert.h>
#include <string.h>
#include <uv.h>

struct fake_sink {
    struct pen_limits limits;
    void (*turn)(void);
    enum pen_outcome at_stop;        /* for what is in flight then; DELIVERED, the zero, stands for RETRY */
    struct pen_batch *held[64];      /* the oldest first */
    unsigned held_count, submitted;
    uv_idle_t idle;
};
static struct fake_sink fake_sink;

/* The oldest that is held, to be answered now. */
static struct pen_batch *fake_sink_take(void)
{
    struct pen_batch *batch = fake_sink.held[0];

    assert(fake_sink.held_count > 0);
    memmove(fake_sink.held, fake_sink.held + 1, --fake_sink.held_count * sizeof(*fake_sink.held));
    return batch;
}

static void on_fake_sink_turn(uv_idle_t *idle)
{
    (void)idle;
    fake_sink.turn();
}

static const struct pen_limits *fake_sink_limits(void *self)
{
    (void)self;
    return &fake_sink.limits;
}

static int fake_sink_open(void **self, struct pen_host *host, const struct pen_conf *conf, struct pen_error *err)
{
    (void)conf;
    (void)err;
    uv_idle_init(host->loop, &fake_sink.idle);
    uv_idle_start(&fake_sink.idle, on_fake_sink_turn);
    *self = &fake_sink;
    return 0;
}

static void fake_sink_submit(void *self, struct pen_batch *batch)
{
    (void)self;
    assert(fake_sink.held_count < fake_sink.limits.in_flight_max);
    fake_sink.submitted++;
    fake_sink.held[fake_sink.held_count++] = batch;
}

static void fake_sink_stop(void *self, void (*stopped)(void *), void *arg)
{
    (void)self;
    while (fake_sink.held_count > 0)
        pen_batch_answer(fake_sink.held[--fake_sink.held_count], fake_sink.at_stop != 0 ? fake_sink.at_stop : PEN_RETRY, 0,
                         "stopping");
    uv_close((uv_handle_t *)&fake_sink.idle, NULL);
    stopped(arg);
}

static void fake_sink_close(void *self)
{
    (void)self;
}

static const char *const fake_sink_schemas[] = { "raw", NULL };
static const struct pen_sink fake_sink_type = {
    .size = sizeof(struct pen_sink), .name = "fake", .schemas = fake_sink_schemas, .limits = fake_sink_limits,
    .open = fake_sink_open, .submit = fake_sink_submit, .stop = fake_sink_stop, .close = fake_sink_close,
};

#endif
