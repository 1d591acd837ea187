/*
 * sink_driver.c - sinks/kafka.c on its own, against a real broker: a daemon reduced to its patience.
 *
 *     sink_driver MESSAGES_PER_BATCH key=value … < lines of "stream<TAB>message"
 *
 * Keeps in_flight batches out. After a RETRY it waits until all are answered, then goes on from the first message that is
 * not done. Writes "done N" after every answer, so that a test can break things at a chosen moment. Exit status: 0 all
 * delivered, 1 some rejected, 3 refused (stderr says why).
 */
#include "tests/lib/kafka/lender.h"

#define LINES_MAX   1000000
#define STREAMS_MAX 64
#define RESUME_MS   100

struct driver {
    uv_loop_t loop;
    uv_timer_t resume;
    void *sink;
    const char *texts[LINES_MAX];
    uint32_t streams[LINES_MAX];
    bool done[LINES_MAX];
    const char *names[STREAMS_MAX];
    uint32_t name_count, count, next, done_count, rejected, per_batch, in_air, window;
    bool holding, refused, stopping;
};

static uint32_t driver_stream(struct driver *driver, const char *name)
{
    for (uint32_t i = 0; i < driver->name_count; i++)
        if (strcmp(driver->names[i], name) == 0)
            return i;
    assert(driver->name_count < STREAMS_MAX);
    driver->names[driver->name_count] = strdup(name);
    return driver->name_count++;
}

static void driver_read(struct driver *driver)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;

    while ((size = getline(&line, &capacity, stdin)) > 0) {
        char *tab = strchr(line, '\t');

        assert(tab && driver->count < LINES_MAX);
        line[size - 1] = *tab = 0;
        driver->streams[driver->count] = driver_stream(driver, line);
        driver->texts[driver->count++] = strdup(tab + 1);
    }
    free(line);
}

static void on_answer(struct loan *loan);

static void on_stopped(void *arg)
{
    struct driver *driver = arg;

    kafka_sink.close(driver->sink);
    uv_close((uv_handle_t *)&driver->resume, NULL);
}

static void driver_go(struct driver *driver)
{
    while (!driver->holding && driver->in_air < driver->window && driver->next < driver->count) {
        uint32_t left = driver->count - driver->next;
        uint32_t size = left < driver->per_batch ? left : driver->per_batch;
        struct loan *loan = loan_new(driver->texts + driver->next, driver->streams + driver->next, size, driver->names);

        loan->batch.id = driver->next;
        loan->on_answer = on_answer;
        loan->arg = driver;
        driver->next += size;
        driver->in_air++;
        loan_submit(loan, &kafka_sink, driver->sink);
    }
    if (driver->in_air == 0 && !driver->stopping && (driver->refused || driver->done_count == driver->count)) {
        driver->stopping = true;
        kafka_sink.stop(driver->sink, on_stopped, driver);
    }
}

static void on_resume(uv_timer_t *timer)
{
    struct driver *driver = timer->data;

    driver->holding = false;
    for (driver->next = 0; driver->next < driver->count && driver->done[driver->next];)
        driver->next++;
    driver_go(driver);
}

static void on_answer(struct loan *loan)
{
    struct driver *driver = loan->arg;
    uint32_t first = (uint32_t)loan->batch.id;

    for (uint32_t i = 0; i < loan->batch.count; i++) {
        enum pen_outcome outcome = loan_outcome(loan, i);

        if (outcome == PEN_DELIVERED || outcome == PEN_REJECTED) {
            driver->done_count += !driver->done[first + i];
            driver->done[first + i] = true;
        }
        driver->rejected += outcome == PEN_REJECTED;
        driver->holding |= outcome == PEN_RETRY;
        driver->refused |= outcome == PEN_REFUSED;
    }
    if (loan->answer.outcome != PEN_DELIVERED)
        fprintf(stderr, "outcome %d: %s\n", loan->answer.outcome, loan->answer.why);
    printf("done %u\n", driver->done_count);
    fflush(stdout);
    loan_free(loan);                             /* the sink must be through with it */
    driver->in_air--;
    if (driver->holding && driver->in_air == 0 && !driver->refused)
        uv_timer_start(&driver->resume, on_resume, RESUME_MS, 0);
    else
        driver_go(driver);
}

int main(int argc, char **argv)
{
    struct driver *driver = calloc(1, sizeof(*driver));
    const char **words = calloc((size_t)argc * 2 + 1, sizeof(*words));
    struct pen_conf conf = { words };
    struct pen_error err = { 0 };
    int status;

    assert(argc > 2);
    for (int i = 2; i < argc; i++) {
        char *equals = strchr(argv[i], '=');

        assert(equals);
        *equals = 0;
        *words++ = argv[i];
        *words++ = equals + 1;
    }
    driver_read(driver);
    driver->per_batch = (uint32_t)atoi(argv[1]);
    uv_loop_init(&driver->loop);
    uv_timer_init(&driver->loop, &driver->resume);
    driver->resume.data = driver;
    if (kafka_sink.open(&driver->sink, &(struct pen_host){ .loop = &driver->loop, .schema = "raw", .memory_max = 8 << 20 },
                        &conf, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 2;
    }
    driver->window = kafka_sink.limits(driver->sink)->in_flight_max;
    driver_go(driver);
    uv_run(&driver->loop, UV_RUN_DEFAULT);
    uv_loop_close(&driver->loop);
    status = driver->refused ? 3 : driver->rejected ? 1 : 0;
    for (uint32_t i = 0; i < driver->count; i++)
        free((void *)(uintptr_t)driver->texts[i]);
    for (uint32_t i = 0; i < driver->name_count; i++)
        free((void *)(uintptr_t)driver->names[i]);
    free((void *)(uintptr_t)conf.words);
    free(driver);
    return status;
}
