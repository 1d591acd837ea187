/* oracle.c - see oracle.h. */
#include "crash/oracle.h"

#include "daemon/disk/cursor.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A cap of so little makes segments of a few frames each, and the spool full now and then. */
const struct variant variants[] = {
    { .name = "plain", .bytes_max = 256 * 1024 },
    { .name = "compressed", .compress = true, .bytes_max = 192 * 1024 },
    { .name = "encrypted", .compress = true, .encrypted = true, .bytes_max = 192 * 1024 },
    { .name = "drop-oldest", .drop_oldest = true, .bytes_max = 96 * 1024 },
};
const size_t variant_count = sizeof(variants) / sizeof(*variants);

/* One ring for all. */
static const struct keys *ring(void)
{
    static struct keys *keys;
    struct pen_error err = { 0 };
    char path[] = "/tmp/penstock-keys-XXXXXX";
    FILE *file;

    if (keys != NULL)
        return keys;
    file = fdopen(mkstemp(path), "w");
    assert(file != NULL);
    for (int i = 0; i < 32; i++)
        fprintf(file, "%02x", i);
    assert(fclose(file) == 0 && keys_read(&keys, path, &err) == 0 && unlink(path) == 0);
    return keys;
}

struct spool_conf variant_conf(const struct variant *variant, const char *dir, struct spool_place place)
{
    struct spool_conf conf = { .dir = dir, .bytes_max = variant->bytes_max, .compress = variant->compress, .rows = 2,
                               .keys = variant->encrypted ? ring() : NULL, .place = place };

    assert(io_posix.random(&conf.life, sizeof(conf.life)) == 0);
    return conf;
}

/* ---- Facts ---- */

static void facts_note(struct facts *facts, const struct disk_note *note)
{
    assert(note->from <= RECORDS_MAX && note->to <= RECORDS_MAX);
    switch ((enum note)note->what) {
    case NOTE_SAFE:
        for (uint64_t n = note->from; n < note->to; n++)
            facts->safe[n] = true;
        return;
    case NOTE_DELIVERED:
        if (!facts->delivered[note->from])
            facts->order[facts->order_count++] = (uint32_t)note->from;
        facts->delivered[note->from] = true;
        return;
    case NOTE_DROPPED:
    case NOTE_KEPT:
        for (uint64_t n = note->from; n < note->to; n++)
            facts->dropped[n] = note->what == NOTE_DROPPED;
        return;
    case NOTE_SAVED:
        facts->saved = note->from;
        return;
    }
}

void facts_add(struct facts *facts, const struct disk *disk, size_t from, size_t to)
{
    for (size_t step = from; step < to; step++)
        if (disk_note_at(disk, step) != NULL)
            facts_note(facts, disk_note_at(disk, step));
}

void facts_cut(struct facts *facts)
{
    for (uint32_t n = 0; n < RECORDS_MAX; n++)
        facts->again[n] = facts->again[n] || (!facts->safe[n] && !facts->delivered[n]);
}

/* ---- Messages ---- */

size_t message_write(char out[MESSAGE_MAX], uint32_t record)
{
    int size = snprintf(out, MESSAGE_MAX, "{\"n\":%u,\"pad\":\"", record);

    for (uint32_t left = record * 131 % 700; left > 0; left--)
        out[size++] = (char)('a' + (record + left * left) % 26);
    out[size++] = '"';
    out[size++] = '}';
    return (size_t)size;
}

int64_t message_read(const char *data, size_t size)
{
    char expected[MESSAGE_MAX];
    long record = size > 6 && memcmp(data, "{\"n\":", 5) == 0 ? strtol(data + 5, NULL, 10) : -1;

    if (record < 0 || record >= (long)RECORDS_MAX || message_write(expected, (uint32_t)record) != size ||
        memcmp(data, expected, size) != 0)
        return -1;
    return record;
}

/* ---- The oracle ---- */

struct found {
    uint64_t position;
    struct spool_place place;
    bool spooled[RECORDS_MAX], dead[RECORDS_MAX];
    uint32_t order[4 * RECORDS_MAX], order_count;  /* as the spool gives them back */
    const char *where;
    unsigned violations;
};

__attribute__((format(printf, 2, 3)))
static void violated(struct found *found, const char *format, ...)
{
    va_list args;

    if (++found->violations > 3)                   /* the first ones tell it all */
        return;
    fprintf(stderr, "violated: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, " (%s)\n", found->where);
}

static void on_cursor(void *arg, const struct cursor *cursor)
{
    *(uint64_t *)arg = cursor->position;
}

static void find_position(struct found *found, const char *dir)
{
    struct cursors *cursors;
    struct pen_error err = { 0 };
    char path[256];

    snprintf(path, sizeof(path), "%s/state.db", dir);
    if (cursors_open(&cursors, path, &err) < 0) {
        violated(found, "state.db does not open: %s", err.text);
        return;
    }
    if (cursors_each(cursors, SOURCE, on_cursor, &found->position, &err) < 0 ||
        cursors_spool_place(cursors, SINK, &found->place, &err) < 0)
        violated(found, "state.db cannot be read: %s", err.text);
    cursors_close(cursors);
}

static void find_batch(struct found *found, const struct batch *batch)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct pen_message *message = &batch->messages[i];
        int64_t record = message_read(batch->data + message->offset, message->size);

        if (record < 0 || message->position != (uint64_t)record ||
            strcmp(batch->streams[message->stream], STREAM) != 0) {
            violated(found, "a message came back changed, position %llu", (unsigned long long)message->position);
            continue;
        }
        found->spooled[record] = true;
        found->order[found->order_count++] = (uint32_t)record;
        assert(found->order_count < 4 * RECORDS_MAX);
    }
}

static void find_spooled(struct found *found, const char *dir, const struct variant *variant)
{
    struct budget budget = { 0 };
    struct pen_error err = { 0 };
    struct spool_frame *frame;
    struct spool_read *read;
    struct spool *spool;
    struct batch *batch;
    struct spool_conf conf;
    char path[256];
    uint64_t order;
    bool own_life;

    snprintf(path, sizeof(path), "%s/spool/" SINK, dir);
    conf = variant_conf(variant, path, found->place);
    if (spool_open(&spool, &conf, &err) < 0) {
        violated(found, "the spool does not open: %s", err.text);
        return;
    }
    while ((read = spool_read_new(spool)) != NULL) {
        spool_read_run(read);
        if (spool_read_trouble(read) < 0)
            violated(found, "the spool cannot be read: %s", uv_strerror(spool_read_trouble(read)));
        batch = spool_read_done(read, &budget, &frame, &order, &own_life);
        if (batch == NULL)
            continue;
        find_batch(found, batch);
        part_free(part_new(NULL, batch, order, 0));
    }
    spool_close(spool);
}

/* A torn line at the end is nobody's: its message was not settled. Zeros before a line are what a failed sync forgot. */
static void find_dead(struct found *found, const char *dir)
{
    char path[256], *line = NULL, *message;
    size_t capacity = 0;
    ssize_t length;
    FILE *file;

    snprintf(path, sizeof(path), "%s/dead/" SINK ".jsonl", dir);
    file = fopen(path, "r");
    if (file == NULL)
        return;
    while ((length = getline(&line, &capacity, file)) > 0) {
        int64_t record = -1;

        message = memmem(line, (size_t)length, "\"message\":", 10);
        if (message != NULL && line[length - 1] == '\n' && length > 2)
            record = message_read(message + 10, (size_t)(line + length - 2 - (message + 10)));
        if (record >= 0)
            found->dead[record] = true;
    }
    free(line);
    fclose(file);
}

/*
 * What must hold:
 *   - A record that is safe, or that the cursor has passed, was delivered or dropped by rule, or lies in the spool or the
 *     dead letters.
 *   - A cursor whose save came back is not behind that.
 *   - What is in the spool is, byte by byte, what was put there (find_batch), so that a repeat has the same id.
 *   - What was delivered, then the spool as it comes back, then the records from the cursor on: each is first met in order.
 *     Excepted are records of an append that the power interrupted: of its frames any may be whole, and those that are torn
 *     are read from the source again.
 */
unsigned oracle(const char *dir, const struct variant *variant, const struct facts *facts, bool ordered, const char *where)
{
    struct found *found = calloc(1, sizeof(*found));
    unsigned violations;
    int64_t last = -1;
    bool *met;

    assert(found != NULL);
    found->where = where;
    find_position(found, dir);
    find_spooled(found, dir, variant);
    find_dead(found, dir);

    for (uint32_t n = 0; n < RECORDS_MAX; n++)
        if ((facts->safe[n] || n < found->position) && !facts->delivered[n] && !facts->dropped[n] &&
            !found->spooled[n] && !found->dead[n])
            violated(found, "record %u is lost: cursor %llu", n, (unsigned long long)found->position);
    if (found->position < facts->saved)
        violated(found, "the cursor was saved at %llu and is back at %llu", (unsigned long long)facts->saved,
                 (unsigned long long)found->position);

    met = calloc(RECORDS_MAX, sizeof(*met));
    assert(met != NULL);
    for (uint32_t n = 0; ordered && n < RECORDS_MAX; n++)
        met[n] = record_is_refused(n);
    for (uint32_t i = 0; i < facts->order_count; i++) {
        uint32_t n = facts->order[i];

        met[n] = true;
        if (ordered && n < last && !facts->again[n])
            violated(found, "record %u was delivered behind %lld", n, (long long)last);
        last = ordered && n > last ? n : last;
    }
    for (uint32_t i = 0; i < found->order_count; i++) {
        uint32_t n = found->order[i];

        if (!met[n] && n < last && !found->dead[n] && !facts->dropped[n] && !facts->again[n])
            violated(found, "record %u waits behind %lld", n, (long long)last);
        last = !met[n] && n > last ? n : last;
        met[n] = true;
    }
    for (uint32_t n = (uint32_t)found->position; n < last; n++)
        if (!met[n] && !found->dead[n] && !facts->dropped[n] && !facts->again[n])
            violated(found, "record %u is still to be read, but %lld is not", n, (long long)last);
    free(met);
    violations = found->violations;
    free(found);
    return violations;
}

unsigned oracle_end(const char *dir, const struct facts *facts, uint32_t count, const char *where)
{
    struct found *found = calloc(1, sizeof(*found));
    unsigned violations;

    assert(found != NULL);
    found->where = where;
    find_dead(found, dir);
    for (uint32_t n = 0; n < count; n++)
        if (!facts->delivered[n] && !facts->dropped[n] && !found->dead[n])
            violated(found, "record %u never arrived", n);
    violations = found->violations;
    free(found);
    return violations;
}
