/* loop.c - see loop.h. */
#include "crash/loop.h"
#include "lib/fake_sink.h"

#include "daemon/outlet/outlet.h"
#include "daemon/pipeline/stream.h"

#include <assert.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CLOCK_SPEED 100
#define DRAIN_MS 6000000u            /* of the loop's clock: beyond it, something does not get on */

struct world {
    uv_loop_t loop;
    struct budget budget;
    struct sink_settings settings;
    struct outlet *outlet;
    struct cursors *cursors;
    struct saver saver;
    struct stream_list streams;
    struct stream *stream;
    unsigned seed;
    uint32_t count;
    uint64_t told_safe, collected, saved;
    bool down, stopped;              /* down: the far end */
};
static struct world world;

/* libuv's clock, and nobody else's here: it finds this one before the C library's. */
__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *now)
{
    int r = (int)syscall(SYS_clock_gettime, clock, now);
    int64_t ns;

    if (r == 0 && (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE)) {
        ns = ((int64_t)now->tv_sec * 1000000000 + now->tv_nsec) * CLOCK_SPEED;
        *now = (struct timespec){ ns / 1000000000, ns % 1000000000 };
    }
    return r;
}

static unsigned chance(unsigned n)
{
    return (unsigned)rand_r(&world.seed) % n;
}

/* ---- The far end ---- */

static enum pen_outcome answer(const struct pen_batch *batch)
{
    switch (chance(10)) {
    case 0:
        return PEN_RETRY;
    case 1:
        return batch->count > 1 ? PEN_TOO_LARGE : PEN_RETRY;
    case 2:
        return PEN_REFUSED;
    }
    for (uint32_t i = 0; i < batch->count; i++)
        if (record_is_refused((uint32_t)batch->messages[i].position))
            return PEN_REJECTED;
    return PEN_DELIVERED;
}

static void far_end_turn(void)
{
    struct pen_batch *batch;
    enum pen_outcome outcome;

    if (world.down || fake_sink.held_count == 0 || chance(3) == 0)
        return;
    batch = fake_sink_take();
    outcome = answer(batch);
    for (uint32_t i = 0; i < batch->count && outcome == PEN_DELIVERED; i++) {
        struct pen_span message = pen_batch_message(batch, i);

        assert(message_read(message.data, message.size) == (int64_t)batch->messages[i].position);
        disk_note(NOTE_DELIVERED, batch->messages[i].position, 0);
    }
    pen_batch_answer(batch, outcome, 0, "as it likes");
}

/* ---- The source, and saving ---- */

static void on_cursor(void *arg, const struct cursor *cursor)
{
    ((struct cursor *)arg)->position = cursor->position;
}

/* A run of a few records, as the pipeline commits a job. */
static void read_some(void)
{
    uint32_t first = (uint32_t)world.stream->position, records = 1 + chance(6);
    char text[MESSAGE_MAX];
    struct run *run;

    if (first + records > world.count)
        records = world.count - first;
    if (records == 0 || world.budget.held > 30000)
        return;
    world.stream->position += records;
    run = stream_run(world.stream);
    for (uint32_t n = first; n < first + records; n++) {
        struct batch_origin origin = { run, world.stream->name, 0, n, n };

        outlet_add(world.outlet, PEN_AUDIT, text, message_write(text, n), &origin);
    }
    run_release(run);
    outlet_pump(world.outlet);
}

static void on_collect(void *arg, struct cursor_change *change)
{
    (void)arg;
    for (size_t i = 0; i < change->row_count; i++)
        world.collected = change->rows[i].position;
    cursor_change_place(change, SINK, spool_place(outlet_spool(world.outlet)));
}

static void on_saved(void *arg)
{
    (void)arg;
    if (world.saver.result < 0)
        return;
    world.saved = world.collected;
    disk_note(NOTE_SAVED, world.saved, 0);
}

static void tell_safe(void)
{
    if (world.stream->safe_position == world.told_safe)
        return;
    disk_note(NOTE_SAFE, world.told_safe, world.stream->safe_position);
    world.told_safe = world.stream->safe_position;
}

/* ---- A life ---- */

static void on_moved(void *arg)
{
    (void)arg;
}

static void on_stopped(void *arg)
{
    (void)arg;
    world.stopped = true;
}

static int world_open(const char *dir, const struct variant *variant)
{
    struct cursor cursor = { .key = "stream", .attrs = "" };
    struct outlet_conf conf = { .settings = &world.settings, .loop = &world.loop, .budget = &world.budget,
                                .state_dir = dir, .source_count = 1, .stop_ms = 20000, .on_moved = on_moved };
    struct pen_error err = { 0 };
    char path[256];
    int r;

    world.settings = (struct sink_settings){
        .flush_ms = 20, .spool_max = variant->bytes_max, .spool_after_ms = 80, .retry_min_ms = 1, .retry_max_ms = 2,
        .dead_max = 1 << 30, .type = &fake_sink_type, .name = SINK, .spool_compress = variant->compress,
        .spool = chance(4) == 0 ? SPOOL_ALWAYS : SPOOL_WHEN_NEEDED,
    };
    fake_sink = (struct fake_sink){ .limits = { .bytes_max = 1500, .messages_max = 4, .in_flight_max = 1 },
                                    .turn = far_end_turn };
    snprintf(path, sizeof(path), "%s/state.db", dir);
    r = cursors_open(&world.cursors, path, &err);
    if (r == 0)
        r = cursors_each(world.cursors, SOURCE, on_cursor, &cursor, &err);
    if (r == 0)
        r = cursors_spool_place(world.cursors, SINK, &conf.place, &err);
    if (r < 0)
        return r;
    conf.life = variant_conf(variant, dir, conf.place).life;
    conf.keys = variant_conf(variant, dir, conf.place).keys;
    world.saver = (struct saver){ .loop = &world.loop, .cursors = world.cursors, .collect = on_collect,
                                  .on_saved = on_saved };
    saver_init(&world.saver);
    stream_list_init(&world.streams, SOURCE, &world.saver);
    world.stream = stream_new(&world.streams, "stream", &cursor);
    world.told_safe = world.saved = world.collected = cursor.position;
    r = outlet_open(&world.outlet, &conf, &err);
    if (r == 0)
        outlet_pump(world.outlet);                 /* what an earlier life left goes first */
    return r;
}

static void turn(void)
{
    switch (chance(12)) {
    case 0: case 1: case 2:
        read_some();
        break;
    case 3:
        tell_safe();
        saver_save(&world.saver, false);
        break;
    case 4:
        world.down = chance(3) == 0 ? !world.down : world.down;
        break;
    default:
        sched_yield();                             /* the pool's turn, where processors are few */
    }
    uv_run(&world.loop, UV_RUN_NOWAIT);
    tell_safe();
}

static bool drained(void)
{
    uint64_t begin = uv_now(&world.loop);

    while (world.saved < world.count || !outlet_is_idle(world.outlet)) {
        world.down = false;
        turn();
        if (chance(4) == 0)
            usleep(200);                           /* it waits for its disk or its far end, most of the time */
        if (uv_now(&world.loop) - begin > DRAIN_MS)
            return false;
    }
    return true;
}

static void world_stop(void)
{
    if (world.outlet != NULL) {
        outlet_stop(world.outlet, on_stopped, NULL);
        while (!world.stopped)
            uv_run(&world.loop, UV_RUN_ONCE);
        tell_safe();
        while (world.saver.since_ms > 0)
            uv_run(&world.loop, UV_RUN_ONCE);
        saver_save(&world.saver, true);
        while (world.saver.since_ms > 0)
            uv_run(&world.loop, UV_RUN_ONCE);
        outlet_close(world.outlet);
    }
    uv_run(&world.loop, UV_RUN_DEFAULT);
    if (world.stream != NULL) {
        saver_free(&world.saver);
        stream_list_free(&world.streams);
    }
    cursors_close(world.cursors);
    assert(uv_loop_close(&world.loop) == 0 && world.budget.held == 0);
}

bool loop_live(const char *dir, const struct variant *variant, unsigned seed, unsigned turns, uint32_t count, bool drain)
{
    bool good;

    world = (struct world){ .seed = seed, .count = count };
    world.budget.total = 1 << 20;
    uv_loop_init(&world.loop);
    good = world_open(dir, variant) == 0;
    for (unsigned i = 0; i < turns && good; i++)
        turn();
    if (good && drain)
        good = drained();
    world_stop();
    return good;
}
