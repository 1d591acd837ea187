/*
 * doors.c - the hot paths one by one: what framer, JSON face, parsers, schemas, the whole job and the spool cost by themselves.
 *
 *     bench-doors ROUNDS {DOOR FILE}...
 *
 * prints for each door a line of tab separated words: its name, the file's name without folder and ending, how much it took in,
 * the unit of that, and the nanoseconds of its fastest round. The doors are
 *
 *     framer          cuts the file into records                                          bytes of the file
 *     json            json_parse() of each record                                         the same
 *     parser          the parser that claims a record makes its events, nobody takes them events
 *     asim ocsf       an event is written as a message                                    events
 *     raw             the same, which is once a record                                    records
 *     work-asim …     work_run(): all of that, and the event ids                          bytes of the file
 *     spool           messages are appended in batches of a megabyte, each synced         bytes of messages
 *
 * Every door goes through counted() and nothing else does, once more than it has rounds: the first time, when memory grows and
 * symbols are bound, is not counted. So `tests/bench/instructions` can have callgrind count inside of that function alone, and
 * write down what it has at every all_counted(). Short work is done REPEATS times in one go, since a look at the clock costs
 * as much as a small event.
 */
#include "daemon/disk/io.h"
#include "daemon/disk/spool.h"
#include "daemon/record/work.h"
#include "daemon/schema/pattern.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { REPEATS = 8 };
#define RECORD_MAX ((size_t)4 << 20)
#define OUTPUT_MAX ((size_t)4 << 20)
#define BATCH_BYTES ((size_t)1 << 20)
#define SPOOL_BYTES ((uint64_t)4 << 30)

struct doors {
    const char *name;                /* of the door at hand */
    char *data;                      /* the file, JSON_PADDING behind it */
    size_t size;
    struct work_plan plan;           /* with every parser; the schema is the door's */
    struct worker *worker;
    struct json *json;
    struct pen_out *out;
    struct event_meta meta;
    struct buf message;
    const struct schema *schema;     /* writes what a parser emits; NULL: nobody does */
    struct patterns patterns[REPEATS];   /* each sees an event once, as a worker's does */
    struct budget budget;
    struct spool *spool;
    bool warming;                    /* nothing is counted */
    uint64_t ns, units;              /* of the round */
};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "bench-doors: %s: %s\n", what, why);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- What is counted -------------------------------------------------------------------------------------------- */

/* callgrind knows these two by name. The empty statements keep the one from ending in a jump, the other from being no call. */
static void __attribute__((noinline)) counted(void (*work)(void *), void *arg)
{
    work(arg);
    __asm__ volatile("" ::: "memory");
}

static void __attribute__((noinline)) all_counted(void)
{
    __asm__ volatile("" ::: "memory");
}

static void door_work(struct doors *doors, void (*work)(void *), void *arg, uint64_t units)
{
    uint64_t before;

    if (doors->warming) {
        work(arg);
        return;
    }
    before = now_ns();
    counted(work, arg);
    doors->ns += now_ns() - before;
    doors->units += units;
}

/* ---- Framer, JSON ----------------------------------------------------------------------------------------------- */

static void frame(void *arg)
{
    struct doors *doors = arg;
    struct framer framer;
    struct framer_piece piece;

    framer_begin(&framer, 0, doors->data, doors->size, 0, true, RECORD_MAX);
    while (framer_next(&framer, &piece) != FRAMER_DONE)
        ;
}

static void door_framer(struct doors *doors)
{
    door_work(doors, frame, doors, doors->size);
}

/* Calls back for every record of the file. */
static void each_record(struct doors *doors, void (*each)(struct doors *doors, const struct framer_piece *piece))
{
    struct framer framer;
    struct framer_piece piece;
    enum framer_found found;

    framer_begin(&framer, 0, doors->data, doors->size, 0, true, RECORD_MAX);
    while ((found = framer_next(&framer, &piece)) != FRAMER_DONE) {
        if (found != FRAMER_RECORD)
            fail(doors->name, "the file holds something else than records");
        each(doors, &piece);
    }
}

struct text {
    struct json *json;
    const struct framer_piece *piece;
    struct pen_json root;
};

static void parse_text(void *arg)
{
    struct text *text = arg;
    const char *why;

    for (unsigned i = 0; i < REPEATS; i++)
        if (json_parse(text->json, text->piece->data, text->piece->size, &text->root, &why) < 0)
            fail("json_parse", why);
}

static void record_json(struct doors *doors, const struct framer_piece *piece)
{
    struct text text = { .json = doors->json, .piece = piece };

    door_work(doors, parse_text, &text, REPEATS * piece->size);
}

static void door_json(struct doors *doors)
{
    each_record(doors, record_json);
}

/* ---- Parsers, schemas ------------------------------------------------------------------------------------------- */

struct writing {
    struct doors *doors;
    const struct pen_event *event;
};

static void write_event(void *arg)
{
    struct writing *writing = arg;
    struct doors *doors = writing->doors;

    for (unsigned i = 0; i < REPEATS; i++) {
        doors->message.size = 0;
        patterns_write(&doors->patterns[i], doors->schema, writing->event, &doors->meta, &doors->message);
    }
}

static bool on_event(void *arg, const struct pen_event *event, uint64_t ordinal)
{
    struct doors *doors = arg;
    struct writing writing = { doors, event };

    if (doors->schema == NULL)
        doors->units++;
    else if (ordinal == 0 || !doors->schema->per_record)
        door_work(doors, write_event, &writing, REPEATS);
    return true;
}

struct parsing {
    struct doors *doors;
    const struct work_parser *parser;
    const struct pen_record *record;
    unsigned repeats;
};

static void parse_record(void *arg)
{
    struct parsing *parsing = arg;

    for (unsigned i = 0; i < parsing->repeats; i++) {
        out_begin(parsing->doors->out, 0);
        if (parsing->parser->parser->parse(parsing->parser->self, parsing->record, parsing->doors->out) != PEN_PARSED)
            fail(parsing->parser->parser->name, "it did not like the record");
    }
}

static void record_parser(struct doors *doors, const struct framer_piece *piece)
{
    struct text text = { .json = doors->json, .piece = piece };
    struct pen_record record = { .raw = { piece->data, piece->size }, .json = &text.root, .source = PEN_SPAN("bench") };
    struct parsing parsing = { .doors = doors, .parser = doors->plan.parsers, .record = &record };

    parse_text(&text);
    while (!parsing.parser->parser->claims(&record))
        parsing.parser++;            /* ends at `unknown`, which claims everything */
    doors->meta.record = &record;
    doors->meta.parser = parsing.parser->parser->name;
    if (doors->schema != NULL) {
        parsing.repeats = 1;         /* on_event() is what counts */
        parse_record(&parsing);
    } else {
        parsing.repeats = REPEATS;
        door_work(doors, parse_record, &parsing, 0);
    }
}

static void door_parser(struct doors *doors)
{
    doors->schema = NULL;
    each_record(doors, record_parser);
}

static void door_schema(struct doors *doors)
{
    doors->schema = schema_find(doors->name);
    each_record(doors, record_parser);
    for (unsigned i = 0; i < REPEATS; i++) {
        patterns_free(&doors->patterns[i]);
        doors->patterns[i] = (struct patterns){ 0 };
    }
}

/* ---- The job ---------------------------------------------------------------------------------------------------- */

struct job {
    struct worker *worker;
    struct work work;
};

static void run_job(void *arg)
{
    struct job *job = arg;

    work_run(job->worker, &job->work);
}

/* Runs through the file as `penstock parse` does; each() gets the messages of every run. */
static void each_run(struct doors *doors, const char *schema, void (*run)(struct doors *doors, struct job *job),
                     void (*each)(struct doors *doors, const struct work_messages *messages))
{
    struct job job = { .worker = doors->worker, .work = { .plan = &doors->plan, .data = doors->data, .size = doors->size,
                                                          .received_ms = 1795000000000, .final = true, .big_allowed = true } };
    struct work *work = &job.work;

    doors->plan.schemas[0] = schema_find(schema);
    do {
        run(doors, &job);
        if (work->fault_count > 0)
            fail(doors->name, work->faults[0].why);
        if (each != NULL)
            each(doors, &work->messages[0]);
        work->data += work->consumed;
        work->size -= work->consumed;
        work->offset += work->consumed;
        work->word = work->word_after;
        work->skip = work->skip_after;
        work->blamed = work->blamed_after;
    } while (work->end != WORK_ALL);
}

static void run_counted(struct doors *doors, struct job *job)
{
    door_work(doors, run_job, job, 0);
}

static void door_job(struct doors *doors)
{
    each_run(doors, strchr(doors->name, '-') + 1, run_counted, NULL);
    doors->units = doors->size;
}

/* ---- The spool -------------------------------------------------------------------------------------------------- */

struct appending {
    struct doors *doors;
    struct part *part;
};

static void append(void *arg)
{
    struct appending *appending = arg;
    uint32_t taken;
    struct spool_append *job = spool_append_new(appending->doors->spool, &appending->part, 1, &taken);

    if (job == NULL || taken != 1)
        fail("spool", "it is full");
    spool_append_run(job);
    if (spool_append_done(job) < 0)
        fail("spool", "a batch could not be written");
}

static void append_batch(struct doors *doors, struct batch *batch)
{
    struct appending appending = { doors, part_new(NULL, batch, 0, 0) };

    door_work(doors, append, &appending, batch->size);
    batch_safe(batch, batch->count);
    part_free(appending.part);
}

static void append_messages(struct doors *doors, const struct work_messages *messages)
{
    static const struct pen_limits limits = { .bytes_max = BATCH_BYTES, .messages_max = UINT32_MAX };
    struct batch *batch = NULL;

    for (size_t i = 0; i < messages->count; i++) {
        const struct work_message *message = &messages->index[i];
        struct batch_origin origin = { .stream = "bench/stream", .position = message->position, .ticks = message->ticks };

        if (batch != NULL && (message->kind != batch->kind || !batch_fits(batch, message->size, message->ticks, &limits))) {
            append_batch(doors, batch);
            batch = NULL;
        }
        if (batch == NULL)
            batch = batch_new(&doors->budget, message->kind, BATCH_BYTES, 0);
        batch_add(batch, messages->bytes.data + message->offset, message->size, &origin);
    }
    if (batch != NULL)
        append_batch(doors, batch);
}

static void run_uncounted(struct doors *doors, struct job *job)
{
    (void)doors;
    run_job(job);
}

static void door_spool(struct doors *doors)
{
    char folder[] = "bench-spool-XXXXXX", command[64];
    struct pen_error err = { 0 };

    if (mkdtemp(folder) == NULL)
        fail("spool", "no folder can be made here");
    if (spool_open(&doors->spool, &(struct spool_conf){ .dir = folder, .bytes_max = SPOOL_BYTES, .rows = 2, .life = 1 }, &err) < 0)
        fail("spool", err.text);
    each_run(doors, "asim", run_uncounted, append_messages);
    spool_close(doors->spool);
    snprintf(command, sizeof(command), "rm -r %s", folder);
    if (system(command) != 0)
        fail(folder, "it could not be removed");
}

/* ---- The program ------------------------------------------------------------------------------------------------ */

static const struct door {
    const char *name, *unit;
    void (*run)(struct doors *doors);
} all_doors[] = {
    { "framer", "byte", door_framer },
    { "json", "byte", door_json },
    { "parser", "event", door_parser },
    { "asim", "event", door_schema },
    { "ocsf", "event", door_schema },
    { "raw", "record", door_schema },
    { "work-asim", "byte", door_job },
    { "work-ocsf", "byte", door_job },
    { "work-raw", "byte", door_job },
    { "spool", "byte", door_spool },
};

static const struct door *door_find(const char *name)
{
    for (size_t i = 0; i < sizeof(all_doors) / sizeof(all_doors[0]); i++)
        if (strcmp(all_doors[i].name, name) == 0)
            return &all_doors[i];
    fail(name, "there is no such door");
    return NULL;
}

static void doors_read(struct doors *doors, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        fail(path, "it cannot be opened");
    doors->size = (size_t)st.st_size;
    doors->data = calloc(1, doors->size + JSON_PADDING);
    if (doors->data == NULL || io_read_full(fd, doors->data, doors->size, 0) != (ssize_t)doors->size)
        fail(path, "it cannot be read");
    close(fd);
}

static void doors_run(struct doors *doors, const struct door *door, const char *path, unsigned rounds)
{
    const char *base = strrchr(path, '/') != NULL ? strrchr(path, '/') + 1 : path;
    uint64_t best = UINT64_MAX;

    doors->name = door->name;
    doors_read(doors, path);
    doors->warming = true;
    door->run(doors);
    doors->warming = false;
    for (unsigned i = 0; i < rounds; i++) {
        doors->ns = doors->units = 0;
        door->run(doors);
        best = doors->ns < best ? doors->ns : best;
    }
    all_counted();
    printf("%s\t%.*s\t%llu\t%s\t%llu\n", door->name, (int)strcspn(base, "."), base, (unsigned long long)doors->units, door->unit,
           (unsigned long long)best);
    free(doors->data);
}

int main(int argc, char **argv)
{
    struct doors doors = {
        .plan = { .schema_count = 1, .source = PEN_SPAN("bench"), .record_max = RECORD_MAX, .big_record = SIZE_MAX,
                  .output_max = OUTPUT_MAX },
        .meta = { .id = "00112233445566778899aabbccddeeff-0", .id_size = 34, .received_ticks = 17950000000000000,
                  .source = PEN_SPAN("bench") },
        .budget = { .total = SIZE_MAX, .upper = SIZE_MAX, .lower = SIZE_MAX },
    };
    struct pen_error err = { 0 };
    unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;

    if (rounds == 0 || argc < 4 || argc % 2 != 0) {
        fputs("Usage: bench-doors ROUNDS {DOOR FILE}...\n", stderr);
        return 2;
    }
    if (work_plan_open(&doors.plan, "auto", NULL, &err) < 0)
        fail("parsers", err.text);
    doors.worker = worker_new();
    doors.json = json_new();
    doors.out = out_new(on_event, &doors);
    for (int i = 2; i < argc; i += 2)
        doors_run(&doors, door_find(argv[i]), argv[i + 1], rounds);
    out_free(doors.out);
    json_free(doors.json);
    worker_free(doors.worker);
    work_plan_close(&doors.plan);
    buf_free(&doors.message);
    return 0;
}
