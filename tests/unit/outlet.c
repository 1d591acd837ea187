/*
 * Promise: whatever a far end answers, every message is delivered, dead with its reason, or dropped by rule; the ledger
 * adds up at every moment, order holds with one batch in flight, and a run is let go only when all of it is safe.
 */
#include "daemon/disk/io.h"
#include "daemon/outlet/outlet.h"
#include "tests/lib/fake_sink.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- A far end that answers as it is told ---- */

#define SEEN_MAX 200000

struct fake {
    bool down;                       /* answers nothing */
    enum pen_outcome (*answer)(struct fake *fake, struct pen_batch *batch);
    unsigned rejects;
    long poison;
    unsigned seed;
    uint32_t seen[SEEN_MAX];         /* numbers in order of delivery */
    size_t seen_count;
    size_t replayed;                 /* of them */
};
static struct fake fake;

static long message_number(const struct pen_batch *batch, uint32_t i)
{
    struct pen_span span = pen_batch_message(batch, i);

    assert_true(span.size > 6 && memcmp(span.data, "{\"n\":", 5) == 0 && span.data[span.size - 1] == '}');
    return strtol(span.data + 5, NULL, 10);
}

static void fake_answer(struct pen_batch *batch)
{
    enum pen_outcome outcome = fake.answer(&fake, batch);

    assert_int_equal(batch->size, batch->messages[batch->count - 1].offset + batch->messages[batch->count - 1].size);
    for (uint32_t i = 0; i < batch->count && outcome == PEN_DELIVERED; i++)
        fake.seen[fake.seen_count++] = (uint32_t)message_number(batch, i);
    if (outcome == PEN_DELIVERED && batch->replayed)
        fake.replayed += batch->count;
    pen_batch_answer(batch, outcome, 0, "as told");
}

static void fake_turn(void)
{
    if (!fake.down && fake_sink.held_count > 0)
        fake_answer(fake_sink_take());
}

static enum pen_outcome always_delivered(struct fake *f, struct pen_batch *batch)
{
    (void)f;
    (void)batch;
    return PEN_DELIVERED;
}

static enum pen_outcome poison_rejected(struct fake *f, struct pen_batch *batch)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        if (message_number(batch, i) == f->poison) {
            f->rejects++;
            return PEN_REJECTED;
        }
    }
    return PEN_DELIVERED;
}

static enum pen_outcome tens_rejected(struct fake *f, struct pen_batch *batch)
{
    (void)f;
    for (uint32_t i = 0; i < batch->count; i++)
        if (message_number(batch, i) % 10 == 0)
            return PEN_REJECTED;
    return PEN_DELIVERED;
}

static enum pen_outcome all_rejected(struct fake *f, struct pen_batch *batch)
{
    (void)batch;
    f->rejects++;
    return PEN_REJECTED;
}

static enum pen_outcome small_only(struct fake *f, struct pen_batch *batch)
{
    (void)f;
    return batch->count > 3 ? PEN_TOO_LARGE : PEN_DELIVERED;
}

static enum pen_outcome at_random(struct fake *f, struct pen_batch *batch)
{
    switch (rand_r(&f->seed) % 8) {
    case 0:
        return PEN_RETRY;
    case 1:
        return batch->count > 1 ? PEN_TOO_LARGE : PEN_DELIVERED;
    case 2:
        return PEN_REFUSED;
    default:
        return poison_rejected(f, batch);
    }
}

/* ---- The other side ---- */

struct bench {
    uv_loop_t loop;
    struct budget budget;
    struct sink_settings settings;
    struct outlet *outlet;
    struct run *last_run;
    char dir[64];
    long next;                       /* number of the next message */
    long runs_open;
    bool stopped;
};
static struct bench bench;

static void on_run_released(struct run *run)
{
    assert_int_equal(run->holds, 0);
    bench.runs_open--;
    free(run);
}

static void on_moved(void *arg)
{
    (void)arg;
}

static void bench_open(uint32_t life)
{
    struct outlet_conf conf = {
        .settings = &bench.settings, .loop = &bench.loop, .budget = &bench.budget, .state_dir = bench.dir,
        .life = life, .source_count = 1, .stop_ms = 2000, .on_moved = on_moved,
    };
    struct pen_error err = { 0 };

    assert_int_equal(outlet_open(&bench.outlet, &conf, &err), 0);
}

static int bench_setup(void **state)
{
    char path[128];

    (void)state;
    memset(&bench, 0, sizeof(bench));
    memset(&fake, 0, sizeof(fake));
    uv_loop_init(&bench.loop);
    strcpy(bench.dir, "/tmp/penstock-outlet-XXXXXX");
    if (mkdtemp(bench.dir) == NULL)
        return -1;
    snprintf(path, sizeof(path), "%s/spool", bench.dir);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/dead", bench.dir);
    mkdir(path, 0700);
    bench.budget.total = 64 << 20;
    bench.settings = (struct sink_settings){
        .flush_ms = 20, .spool_max = 64 << 20, .dead_max = 64 << 20, .spool_after_ms = 100000, .retry_min_ms = 1, .retry_max_ms = 2,
        .type = &fake_sink_type, .name = "fake", .spool_compress = true,
    };
    fake_sink = (struct fake_sink){ .limits = { .bytes_max = 1000, .messages_max = 1000, .in_flight_max = 1 },
                                    .turn = fake_turn };
    fake.answer = always_delivered;
    fake.poison = -1;
    fake.seed = 1;
    return 0;
}

static const struct ledger_row *ledger(uint32_t row)
{
    return outlet_ledger(bench.outlet, row);
}

/* Puts `count` messages in, as runs of ten. */
static void put(long count)
{
    char text[32];

    for (long i = 0; i < count;) {
        struct run *run = calloc(1, sizeof(*run));

        bench.runs_open++;
        bench.last_run = run;
        run->holds = 1;
        run->on_released = on_run_released;
        for (int n = 0; n < 10 && i < count; n++, i++) {
            struct batch_origin origin = { run, "source/stream", 0, (uint64_t)bench.next, bench.next };
            int size = snprintf(text, sizeof(text), "{\"n\":%ld}", bench.next);

            bench.next++;
            outlet_add(bench.outlet, PEN_UNKNOWN, text, (size_t)size, &origin);
        }
        run_release(run);
        outlet_pump(bench.outlet);
        uv_run(&bench.loop, UV_RUN_NOWAIT);
    }
}

static void turn_until_idle(void)
{
    uint64_t begin = uv_now(&bench.loop);

    while (!outlet_is_idle(bench.outlet)) {
        uv_run(&bench.loop, UV_RUN_NOWAIT);
        assert_true(uv_now(&bench.loop) - begin < 60000);
    }
}

static void turn_until_spooled(uint64_t messages)
{
    uint64_t begin = uv_now(&bench.loop);

    while (spool_messages(outlet_spool(bench.outlet), 0) < messages) {
        uv_run(&bench.loop, UV_RUN_NOWAIT);
        assert_true(uv_now(&bench.loop) - begin < 60000);
    }
}

static void on_stopped(void *arg)
{
    (void)arg;
    bench.stopped = true;
}

static void bench_close(void)
{
    bench.stopped = false;
    outlet_stop(bench.outlet, on_stopped, NULL);
    while (!bench.stopped)
        uv_run(&bench.loop, UV_RUN_ONCE);
    outlet_close(bench.outlet);
    uv_run(&bench.loop, UV_RUN_DEFAULT);
}

static int bench_teardown(void **state)
{
    char command[128];

    (void)state;
    assert_int_equal(uv_loop_close(&bench.loop), 0);
    assert_int_equal(bench.budget.held, 0);
    snprintf(command, sizeof(command), "rm -r %s", bench.dir);
    return system(command);
}

/* Lines of the dead letters that name this reason and message. */
static unsigned dead_lines(long number)
{
    char path[128], line[4096], text[32];
    unsigned count = 0;
    FILE *file;

    snprintf(path, sizeof(path), "%s/dead/fake.jsonl", bench.dir);
    snprintf(text, sizeof(text), "{\"n\":%ld}", number);
    file = fopen(path, "r");
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof(line), file) != NULL)
        count += strstr(line, text) != NULL && strstr(line, "as told") != NULL;
    fclose(file);
    return count;
}

static void assert_in_order(long from, long to)
{
    assert_int_equal(fake.seen_count, to - from);
    for (long i = from; i < to; i++)
        assert_int_equal(fake.seen[i - from], i);
}

/* ---- Tests ---- */

static void test_delivers_in_order(void **state)
{
    (void)state;
    bench_open(1);
    put(5000);
    turn_until_idle();
    assert_in_order(0, 5000);
    assert_int_equal(ledger(0)->count[LEDGER_DELIVERED], 5000);
    assert_int_equal(bench.runs_open, 0);
    bench_close();
}

static void test_poison_dies_alone(void **state)
{
    unsigned batches;

    (void)state;
    fake_sink.limits.bytes_max = 100000;
    fake_sink.limits.messages_max = 2000;
    fake.answer = poison_rejected;
    fake.poison = 1234;
    bench_open(1);
    fake.down = true;
    put(2000);
    fake.down = false;
    turn_until_idle();
    batches = 1;
    assert_int_equal(ledger(0)->count[LEDGER_DELIVERED], 1999);
    assert_int_equal(ledger(0)->count[LEDGER_DEAD], 1);
    assert_int_equal(dead_lines(1234), 1);
    /* 2·log2(2000) extra, and what the first partial batches cost */
    assert_true(fake_sink.submitted <= batches + 22 + 4);
    assert_int_equal(bench.runs_open, 0);
    bench_close();
}

/* Many bad messages among good ones are no reason for doubts: with a backoff of an hour this would never end. */
static void test_bad_ones_among_good_ones_are_not_doubted(void **state)
{
    (void)state;
    fake.answer = tens_rejected;
    bench.settings.dead_in_a_row = 5;
    bench.settings.retry_min_ms = bench.settings.retry_max_ms = 3600000;
    bench_open(1);
    put(300);
    turn_until_idle();
    assert_int_equal(ledger(0)->count[LEDGER_DEAD], 30);
    assert_int_equal(ledger(0)->count[LEDGER_DELIVERED], 270);
    bench_close();
}

/* A far end that rejects everything: after a few letters each message gets a second try, and none is lost. */
static void test_all_rejected_goes_on_slowly(void **state)
{
    (void)state;
    fake.answer = all_rejected;
    bench.settings.dead_in_a_row = 5;
    bench_open(1);
    put(30);
    turn_until_idle();
    assert_int_equal(ledger(0)->count[LEDGER_DEAD], 30);
    assert_true(fake_sink.submitted >= 30 + 25);         /* singles: five died at once, the others were tried twice */
    assert_int_equal(bench.runs_open, 0);
    bench_close();
}

/* Mended in time it has cost a few letters; a delivery ends the doubts. */
static void test_all_rejected_until_it_is_mended(void **state)
{
    uint64_t begin;

    (void)state;
    fake.answer = all_rejected;
    bench.settings.dead_in_a_row = 5;
    bench.settings.retry_min_ms = bench.settings.retry_max_ms = 200;
    bench_open(1);
    put(2000);
    begin = uv_now(&bench.loop);
    while (ledger(0)->count[LEDGER_DEAD] < 7) {    /* five at once, then one and one more */
        uv_run(&bench.loop, UV_RUN_NOWAIT);
        assert_true(uv_now(&bench.loop) - begin < 60000);
    }
    assert_true(uv_now(&bench.loop) - begin >= 200);
    assert_true(fake_sink.submitted < 60);
    fake.answer = always_delivered;
    turn_until_idle();
    assert_int_equal(ledger(0)->count[LEDGER_DELIVERED] + ledger(0)->count[LEDGER_DEAD], 2000);
    assert_true(ledger(0)->count[LEDGER_DEAD] < 10);
    assert_in_order((long)ledger(0)->count[LEDGER_DEAD], 2000);
    assert_int_equal(bench.runs_open, 0);
    bench_close();
}

/* The far end names them one by one, as Kafka's does: it is doubted the same way. */
static void test_each_of_a_batch_rejected(void **state)
{
    enum pen_outcome outcomes[20];
    struct pen_batch *batch;

    (void)state;
    for (int i = 0; i < 20; i++)
        outcomes[i] = PEN_REJECTED;
    bench.settings.dead_in_a_row = 5;
    bench.settings.retry_min_ms = bench.settings.retry_max_ms = 100;
    bench.settings.flush_ms = 60000;               /* one batch, however busy the machine */
    fake.down = true;
    bench_open(1);
    put(20);
    outlet_flush(bench.outlet);
    batch = fake_sink_take();
    assert_int_equal(batch->count, 20);
    pen_batch_answer_each(batch, outcomes, 0, "as told");
    assert_int_equal(ledger(0)->count[LEDGER_HELD], 20);
    fake.down = false;
    turn_until_idle();
    assert_int_equal(ledger(0)->count[LEDGER_DEAD], 5);
    assert_in_order(5, 20);
    bench_close();
}

/* One letter that cannot be written does not keep a full disk from being drained. */
static void test_the_living_pass_an_open_grave(void **state)
{
    char path[128];

    (void)state;
    snprintf(path, sizeof(path), "%s/dead", bench.dir);
    assert_int_equal(rmdir(path), 0);
    fake.answer = poison_rejected;
    fake.poison = 3;
    bench_open(1);
    put(500);
    while (ledger(0)->count[LEDGER_DELIVERED] < 499)
        uv_run(&bench.loop, UV_RUN_ONCE);
    assert_int_equal(ledger(0)->count[LEDGER_HELD], 1);
    while (outlet_busy_since(bench.outlet) > 0)    /* until the first attempt has failed */
        uv_run(&bench.loop, UV_RUN_ONCE);
    put(500);
    while (ledger(0)->count[LEDGER_DELIVERED] < 999)
        uv_run(&bench.loop, UV_RUN_ONCE);
    assert_int_equal(ledger(0)->count[LEDGER_HELD], 1);
    assert_true(bench.runs_open > 0);
    assert_int_equal(mkdir(path, 0700), 0);
    turn_until_idle();
    assert_int_equal(ledger(0)->count[LEDGER_DEAD], 1);
    bench_close();
}

/* Dead letters that cannot be written hold the outlet: no more is sent than was on its way, and nothing is lost. */
static void test_no_grave_no_deaths(void **state)
{
    unsigned requests;
    uint64_t begin;
    char path[128];

    (void)state;
    snprintf(path, sizeof(path), "%s/dead", bench.dir);
    assert_int_equal(rmdir(path), 0);
    fake.answer = all_rejected;
    bench_open(1);
    put(500);
    do {                                           /* until what was on its way has come back */
        requests = fake_sink.submitted;
        for (begin = uv_now(&bench.loop); uv_now(&bench.loop) - begin < 500;)
            uv_run(&bench.loop, UV_RUN_NOWAIT);
    } while (fake_sink.submitted > requests);
    put(100);
    for (begin = uv_now(&bench.loop); uv_now(&bench.loop) - begin < 2500;)   /* another attempt to write, no request */
        uv_run(&bench.loop, UV_RUN_NOWAIT);
    assert_int_equal(fake_sink.submitted, requests);
    assert_int_equal(ledger(0)->count[LEDGER_DEAD], 0);
    assert_int_equal(ledger(0)->count[LEDGER_HELD], 600);
    assert_true(bench.runs_open > 0);
    assert_int_equal(mkdir(path, 0700), 0);
    turn_until_idle();
    assert_int_equal(ledger(0)->count[LEDGER_DEAD], 600);
    assert_int_equal(bench.runs_open, 0);
    bench_close();
}

static void test_too_large_is_cut(void **state)
{
    (void)state;
    fake.answer = small_only;
    bench_open(1);
    put(500);
    turn_until_idle();
    assert_in_order(0, 500);
    bench_close();
}

static void turn_for(uint64_t ms)
{
    uint64_t begin = uv_now(&bench.loop);

    while (uv_now(&bench.loop) - begin < ms)
        uv_run(&bench.loop, UV_RUN_NOWAIT);
}

/* What cannot go yet is not sealed for its age: while one flies, the next goes on filling, and one request takes it all. */
static void test_a_batch_fills_while_another_flies(void **state)
{
    (void)state;
    fake.down = true;
    bench_open(1);
    put(10);
    turn_for(40);
    for (int i = 0; i < 5; i++) {
        put(10);
        turn_for(40);                              /* twice the flush time */
    }
    assert_int_equal(fake_sink.submitted, 1);
    fake.down = false;
    turn_until_idle();
    assert_int_equal(fake_sink.submitted, 2);
    assert_in_order(0, 60);

    /* … but not for longer than what waits may wait before it goes to disk. */
    bench.settings.spool_after_ms = 60;
    fake.down = true;
    put(10);
    turn_for(40);
    put(10);
    turn_until_spooled(20);
    fake.down = false;
    turn_until_idle();
    bench_close();
}

static enum pen_outcome retried_often(struct fake *f, struct pen_batch *batch)
{
    (void)f;
    (void)batch;
    return fake_sink.submitted % 100 != 0 ? PEN_RETRY : PEN_DELIVERED;
}

/* A hundred tries, and that it is well again: two lines. Should it go away again at once, that is no news yet. */
static void test_a_far_end_that_is_away_is_said_once(void **state)
{
    char line[4096];
    unsigned away = 0, back = 0;
    FILE *log = tmpfile();
    int out = dup(2);

    (void)state;
    fake.answer = retried_often;
    bench_open(1);
    dup2(fileno(log), 2);
    for (int i = 0; i < 2; i++) {
        put(10);
        turn_until_idle();
    }
    fflush(stderr);
    dup2(out, 2);
    close(out);
    rewind(log);
    while (fgets(line, sizeof(line), log) != NULL) {
        away += strstr(line, "busy or away") != NULL;
        back += strstr(line, "takes our messages again") != NULL;
    }
    fclose(log);
    assert_int_equal(outlet_counts(bench.outlet)->retries, 198);
    assert_int_equal(away, 1);
    assert_int_equal(back, 1);
    bench_close();
}

static void test_far_end_down_goes_to_spool(void **state)
{
    (void)state;
    bench.settings.spool_after_ms = 1;
    fake.down = true;
    bench_open(1);
    put(5000);
    turn_until_spooled(5000);
    assert_int_equal(bench.runs_open, 0);          /* the sources may forget them: they are on disk */
    assert_int_equal(ledger(0)->count[LEDGER_SPOOLED], 5000);
    assert_int_equal(ledger(0)->count[LEDGER_HELD], 0);
    assert_true(bench.budget.held < 100000);
    fake.down = false;
    turn_until_idle();
    assert_in_order(0, 5000);
    while (outlet_state(bench.outlet) != OUTLET_OPEN)
        uv_run(&bench.loop, UV_RUN_NOWAIT);
    assert_int_equal(spool_bytes(outlet_spool(bench.outlet)), 0);
    assert_in_range(fake.replayed, 4000, 5000);    /* but for what had stayed in memory as well */
    fake.replayed = 0;
    put(100);
    turn_until_idle();
    assert_in_order(0, 5100);
    assert_int_equal(fake.replayed, 0);
    bench_close();
}

static void test_stop_spools_and_next_life_delivers(void **state)
{
    (void)state;
    fake.down = true;
    bench_open(1);
    put(3000);
    bench_close();
    assert_int_equal(bench.runs_open, 0);
    fake.down = false;
    bench_open(2);
    assert_int_equal(ledger(1)->count[LEDGER_SPOOLED], 3000);
    put(1000);
    turn_until_idle();
    assert_in_order(0, 4000);
    assert_int_equal(ledger(1)->count[LEDGER_DELIVERED], 3000);
    assert_int_equal(ledger(0)->count[LEDGER_DELIVERED], 1000);
    bench_close();
}

static void test_full_spool_waits(void **state)
{
    (void)state;
    bench.settings.spool_after_ms = 1;
    bench.settings.spool_compress = false;
    bench.settings.spool_max = 100000;
    fake.down = true;
    bench_open(1);
    put(3000);
    while (outlet_state(bench.outlet) != OUTLET_PAUSED)
        uv_run(&bench.loop, UV_RUN_NOWAIT);
    assert_true(spool_bytes(outlet_spool(bench.outlet)) <= 100000);
    assert_true(ledger(0)->count[LEDGER_HELD] > 0);
    assert_true(bench.runs_open > 0);
    fake.down = false;
    turn_until_idle();
    assert_in_order(0, 3000);
    assert_int_equal(bench.runs_open, 0);
    bench_close();
}

static int sync_fails(int fd)
{
    (void)fd;
    errno = EIO;
    return -1;
}

/* A disk that takes nothing, and a far end that is away: between two tries of the disk the road is open, and stays so,
 * rather than change to and fro with every turn of the loop. When the disk is well, all goes its way. */
static void test_a_disk_in_trouble_is_left_alone(void **state)
{
    struct io faulty = *io;
    const struct io *well = io;
    uint64_t since;

    (void)state;
    bench.settings.spool_after_ms = 1;
    fake.down = true;
    bench_open(1);
    faulty.fdatasync = sync_fails;
    io = &faulty;
    put(300);
    while (outlet_state(bench.outlet) != OUTLET_SPOOLING)
        uv_run(&bench.loop, UV_RUN_NOWAIT);
    while (outlet_state(bench.outlet) != OUTLET_OPEN)
        uv_run(&bench.loop, UV_RUN_NOWAIT);
    since = uv_now(&bench.loop);
    while (uv_now(&bench.loop) - since < 100) {
        assert_int_equal(outlet_state(bench.outlet), OUTLET_OPEN);
        uv_run(&bench.loop, UV_RUN_NOWAIT);
        outlet_pump(bench.outlet);
    }
    io = well;
    turn_until_spooled(300);
    fake.down = false;
    turn_until_idle();
    assert_in_order(0, 300);
    bench_close();
}

static atomic_bool syncing, sync_may_go;

static int sync_waits(int fd)
{
    syncing = true;
    while (!sync_may_go)
        usleep(1000);
    return fdatasync(fd);
}

/* Cuts the first batch, is away, and has its first half come again. */
static enum pen_outcome cut_and_again(struct fake *f, struct pen_batch *batch)
{
    (void)batch;
    f->down = fake_sink.submitted == 1;
    return fake_sink.submitted == 1 ? PEN_TOO_LARGE : fake_sink.submitted == 2 ? PEN_RETRY : PEN_DELIVERED;
}

/* The answer to a part that is just being written to the spool must wait for the disk; what is behind it waits with it. */
static void test_an_answer_that_waits_for_the_disk_lets_nobody_pass(void **state)
{
    struct io slow = *io;
    const struct io *well = io;

    (void)state;
    bench.settings.spool_after_ms = 1;
    fake.answer = cut_and_again;
    bench_open(1);
    slow.fdatasync = sync_waits;
    syncing = sync_may_go = false;
    io = &slow;
    put(300);
    while (!syncing)
        uv_run(&bench.loop, UV_RUN_NOWAIT);
    fake.down = false;
    for (unsigned turn = 0; turn < 1000; turn++)
        uv_run(&bench.loop, UV_RUN_NOWAIT);
    sync_may_go = true;
    turn_until_idle();
    io = well;
    assert_in_order(0, 300);
    bench_close();
}

/* A cap far below an ordinary segment: the oldest go, counted, what came last is delivered, and nothing waits. */
static void test_full_spool_drops_the_oldest(void **state)
{
    uint64_t dropped;

    (void)state;
    bench.settings.spool_after_ms = 1;
    bench.settings.spool_compress = false;
    bench.settings.spool_max = 120000;
    bench.settings.spool_full = SPOOL_DROP_OLDEST;
    fake.down = true;
    bench_open(1);
    for (int i = 0; i < 30; i++) {
        put(100);
        while (ledger(0)->count[LEDGER_HELD] > 100)  /* what flies alone need not be written */
            uv_run(&bench.loop, UV_RUN_NOWAIT);
    }
    while (ledger(0)->count[LEDGER_HELD] > 0)
        uv_run(&bench.loop, UV_RUN_NOWAIT);
    assert_true(spool_bytes(outlet_spool(bench.outlet)) <= 120000);
    dropped = ledger(0)->count[LEDGER_DROPPED];
    assert_true(dropped > 0 && dropped < 3000);
    assert_int_equal(bench.runs_open, 0);
    fake.down = false;
    turn_until_idle();
    assert_int_equal(ledger(0)->count[LEDGER_DELIVERED] + dropped, 3000);
    assert_int_equal(fake.seen_count, 3000 - dropped);
    for (size_t i = 1; i < fake.seen_count; i++)
        assert_true(fake.seen[i] > fake.seen[i - 1]);
    assert_int_equal(fake.seen[fake.seen_count - 1], 2999);
    bench_close();
}

static void test_always_spools(void **state)
{
    (void)state;
    bench.settings.spool = SPOOL_ALWAYS;
    bench_open(1);
    put(2000);
    turn_until_idle();
    assert_in_order(0, 2000);
    assert_int_equal(outlet_state(bench.outlet), OUTLET_SPOOLING);
    bench_close();
}

/* ---- Changes under way ---- */

/* Another sink, which takes what it is lent when it is asked to. */
static struct pen_batch *other_held[4];
static unsigned other_count;

static const struct pen_limits *other_limits(void *self)
{
    static const struct pen_limits limits = { .bytes_max = 500, .messages_max = 20, .in_flight_max = 2, .memory = 777 };

    (void)self;
    return &limits;
}

static int other_open(void **self, struct pen_host *host, const struct pen_conf *conf, struct pen_error *err)
{
    (void)host, (void)conf, (void)err;
    *self = &other_count;
    other_count = 0;
    return 0;
}

static void other_submit(void *self, struct pen_batch *batch)
{
    (void)self;
    other_held[other_count++] = batch;
}

static void other_deliver(void)
{
    struct pen_batch *batch = other_held[0];

    memmove(other_held, other_held + 1, --other_count * sizeof(*other_held));
    fake_answer(batch);
}

static void other_stop(void *self, void (*stopped)(void *), void *arg)
{
    (void)self;
    assert_int_equal(other_count, 0);
    stopped(arg);
}

static void other_close(void *self)
{
    (void)self;
}

static const struct pen_sink other_type = {
    .size = sizeof(struct pen_sink), .name = "other", .schemas = fake_sink_schemas, .limits = other_limits, .open = other_open,
    .submit = other_submit, .stop = other_stop, .close = other_close,
};

static void on_exchanged(void *arg)
{
    *(bool *)arg = true;
}

/* What the old one was asked, it answers; all else is the new one's, in its order; and each has its memory back. */
static void test_another_sink_takes_the_place(void **state)
{
    struct sink_settings settings = bench.settings;
    struct pen_error err = { 0 };
    bool exchanged = false;

    (void)state;
    fake_sink.limits.memory = 333;
    fake.down = true;
    bench_open(1);
    settings.type = &other_type;
    put(300);
    assert_int_equal(outlet_prepare(bench.outlet, &settings, 0, &err), 0);
    outlet_hush(bench.outlet, true);
    assert_int_equal(outlet_flying(bench.outlet), 1);
    fake.down = false;
    while (outlet_flying(bench.outlet) > 0)
        uv_run(&bench.loop, UV_RUN_NOWAIT);
    assert_int_equal(fake_sink.submitted, 1);
    outlet_exchange(bench.outlet, on_exchanged, &exchanged);
    assert_true(exchanged);
    outlet_take(bench.outlet, &settings, NULL, 2000);
    assert_int_equal(outlet_sink_bytes(bench.outlet), 777);
    assert_int_equal(other_count, 0);
    outlet_hush(bench.outlet, false);
    put(100);
    outlet_flush(bench.outlet);
    while (other_count > 0)
        other_deliver();
    assert_in_order(0, 400);
    assert_int_equal(fake_sink.submitted, 1);
    assert_int_equal(ledger(0)->count[LEDGER_DELIVERED], 400);
    bench_close();
}

/* A reload that came to nothing: the second one is closed, and nobody has noticed. */
static void test_another_sink_that_is_not_wanted_after_all(void **state)
{
    struct sink_settings settings = bench.settings;
    struct pen_error err = { 0 };
    bool abandoned = false;

    (void)state;
    bench_open(1);
    settings.type = &other_type;
    assert_int_equal(outlet_prepare(bench.outlet, &settings, 0, &err), 0);
    outlet_hush(bench.outlet, true);
    put(100);
    outlet_hush(bench.outlet, false);
    outlet_abandon(bench.outlet, on_exchanged, &abandoned);
    assert_true(abandoned);
    turn_until_idle();
    assert_in_order(0, 100);
    bench_close();
}

/* All in memory is at its end or on disk, whatever the far end does, and then it goes on as ever. */
static void test_drained_it_holds_nothing_in_memory_alone(void **state)
{
    (void)state;
    fake.down = true;
    bench_open(1);
    put(300);
    assert_int_equal(outlet_held_all(bench.outlet), 300);
    outlet_drain(bench.outlet, true);
    while (outlet_held_all(bench.outlet) > 0)
        uv_run(&bench.loop, UV_RUN_ONCE);
    assert_int_equal(bench.runs_open, 0);
    assert_int_equal(ledger(0)->count[LEDGER_SPOOLED], 300);
    outlet_drain(bench.outlet, false);
    fake.down = false;
    put(50);
    turn_until_idle();
    assert_in_order(0, 350);
    assert_int_equal(outlet_state(bench.outlet), OUTLET_OPEN);
    bench_close();
}

/* The row of a source that left is given to another: what it had counts as an earlier life's, and the sums stay. */
static void test_a_row_is_given_to_another_source(void **state)
{
    (void)state;
    bench_open(1);
    put(40);
    outlet_drop(bench.outlet, 0, 1);
    turn_until_idle();
    outlet_row_renew(bench.outlet, 0);
    assert_int_equal(ledger_taken(ledger(0)), 0);
    assert_int_equal(ledger(1)->count[LEDGER_DELIVERED], 40);
    assert_int_equal(ledger(1)->count[LEDGER_DROPPED], 1);
    bench_close();
}

static void test_each_answer_is_taken(void **state)
{
    enum pen_outcome outcomes[] = { PEN_DELIVERED, PEN_REJECTED, PEN_RETRY, PEN_DELIVERED };
    struct pen_batch *batch;

    (void)state;
    fake.down = true;
    bench_open(1);
    put(4);
    outlet_flush(bench.outlet);
    assert_int_equal(fake_sink.held_count, 1);
    batch = fake_sink_take();
    assert_int_equal(batch->count, 4);
    pen_batch_answer_each(batch, outcomes, 0, "as told");
    fake.down = false;
    turn_until_idle();
    assert_int_equal(ledger(0)->count[LEDGER_DELIVERED], 3);
    assert_int_equal(ledger(0)->count[LEDGER_DEAD], 1);
    assert_int_equal(dead_lines(1), 1);
    assert_in_order(2, 3);
    bench_close();
}

/* Of several in flight that fail together the one with the longest Retry-After counts, up to ten times retry_max. */
static void test_named_delays_are_obeyed_and_bounded(void **state)
{
    struct pen_batch *one, *two;
    uint64_t begin;

    (void)state;
    fake_sink.limits.in_flight_max = 2;
    bench.settings.retry_max_ms = 20;
    for (int i = 0; i < 2; i++) {
        bool refused = i == 1;

        fake.down = true;
        if (i == 0)
            bench_open(1);
        put(100);
        outlet_flush(bench.outlet);
        put(100);
        outlet_flush(bench.outlet);
        assert_int_equal(fake_sink.held_count, 2);
        one = fake_sink_take(), two = fake_sink_take();
        begin = uv_now(&bench.loop);
        pen_batch_answer(one, refused ? PEN_REFUSED : PEN_RETRY, 0, "as told");
        pen_batch_answer(two, refused ? PEN_REFUSED : PEN_RETRY, UINT32_MAX, "as told");
        fake.down = false;
        turn_until_idle();
        assert_true(uv_now(&bench.loop) - begin >= 200);
        assert_true(uv_now(&bench.loop) - begin < 20000);
    }
    bench_close();
}

/* What the far end still says while its sink stops starts nothing on disk any more; the next life hears it again. */
static void test_rejected_while_the_sink_stops(void **state)
{
    (void)state;
    fake.down = true;
    fake_sink.at_stop = PEN_REJECTED;
    bench_open(1);
    put(1);
    bench_close();
    assert_int_equal(bench.runs_open, 0);          /* it lies in the spool */
    fake.down = false;
    fake.answer = poison_rejected;
    fake.poison = 0;
    bench_open(2);
    outlet_pump(bench.outlet);
    turn_until_idle();
    assert_int_equal(ledger(1)->count[LEDGER_DEAD], 1);
    assert_int_equal(dead_lines(0), 1);
    bench_close();
}

/* The same with a disk that takes nothing: the message was never safe, its run stays held, and it is read again. */
static void test_retried_while_the_sink_stops_and_the_disk_is_full(void **state)
{
    char path[128];

    (void)state;
    fake.down = true;
    bench_open(1);
    snprintf(path, sizeof(path), "%s/spool/fake", bench.dir);
    assert_int_equal(rmdir(path), 0);
    put(1);
    bench_close();
    assert_int_equal(bench.runs_open, 1);
    free(bench.last_run);
}

/* Answers at random, spool in and out, several in flight, lives that end anywhere: nothing is lost. */
static void test_random_lives(void **state)
{
    unsigned seed = 7, *times = calloc(SEEN_MAX, sizeof(*times));

    (void)state;
    fake.answer = at_random;
    fake_sink.limits.in_flight_max = 3;
    bench.settings.spool_after_ms = 3;
    fake.poison = 777;
    for (uint32_t life = 1; life <= 20; life++) {
        bench_open(life);
        for (int i = 0; i < 10; i++) {
            fake.down = rand_r(&seed) % 3 == 0;
            put(rand_r(&seed) % 400);
        }
        if (life == 20) {
            fake.down = false;
            turn_until_idle();
            assert_int_equal(ledger(0)->count[LEDGER_HELD] + ledger(0)->count[LEDGER_SPOOLED], 0);
        }
        bench_close();
        assert_int_equal(bench.runs_open, 0);
    }
    for (size_t i = 0; i < fake.seen_count; i++)
        times[fake.seen[i]]++;
    for (long n = 0; n < bench.next; n++)
        assert_true(times[n] >= 1 || (n == 777 && dead_lines(n) >= 1));
    free(times);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_delivers_in_order, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_poison_dies_alone, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_bad_ones_among_good_ones_are_not_doubted, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_all_rejected_goes_on_slowly, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_all_rejected_until_it_is_mended, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_each_of_a_batch_rejected, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_no_grave_no_deaths, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_the_living_pass_an_open_grave, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_too_large_is_cut, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_a_batch_fills_while_another_flies, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_a_far_end_that_is_away_is_said_once, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_far_end_down_goes_to_spool, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_stop_spools_and_next_life_delivers, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_full_spool_waits, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_a_disk_in_trouble_is_left_alone, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_full_spool_drops_the_oldest, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_always_spools, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_another_sink_takes_the_place, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_another_sink_that_is_not_wanted_after_all, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_drained_it_holds_nothing_in_memory_alone, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_a_row_is_given_to_another_source, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_each_answer_is_taken, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_named_delays_are_obeyed_and_bounded, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_an_answer_that_waits_for_the_disk_lets_nobody_pass, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_rejected_while_the_sink_stops, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_retried_while_the_sink_stops_and_the_disk_is_full, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_random_lives, bench_setup, bench_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
