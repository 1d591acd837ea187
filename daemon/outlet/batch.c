/* batch.c - see batch.h. */
#include "daemon/outlet/batch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void *grown(void *array, uint32_t *capacity, uint32_t wanted, size_t item)
{
    uint32_t more = *capacity > 0 ? *capacity : 16;

    while (more < wanted)
        more += more;
    if (more != *capacity) {
        array = realloc(array, (size_t)more * item);
        if (array == NULL)
            abort();
        *capacity = more;
    }
    return array;
}

static void *cleared(size_t size)
{
    void *memory = calloc(1, size);

    if (memory == NULL)
        abort();
    return memory;
}

/* What a batch costs beyond its bytes is small and counted with the index. */
static size_t batch_cost(const struct batch *batch)
{
    return batch->capacity + (size_t)batch->message_capacity * sizeof(*batch->messages);
}

struct batch *batch_new(struct budget *budget, enum pen_kind kind, size_t bytes, uint64_t now_ms)
{
    struct batch *batch = cleared(sizeof(*batch));

    assert(bytes > 0);

    batch->budget = budget;
    batch->kind = kind;
    batch->data = malloc(bytes);
    if (batch->data == NULL)
        abort();
    batch->capacity = bytes;
    batch->opened_ms = now_ms;
    budget_take(budget, batch_cost(batch));
    return batch;
}

static void batch_free(struct batch *batch)
{
    assert(batch->run_count == 0);
    budget_give(batch->budget, batch_cost(batch));
    free(batch->data);
    free(batch->messages);
    free(batch->streams);
    free(batch->runs);
    free(batch->names);
    free(batch);
}

bool batch_fits(const struct batch *batch, size_t size, int64_t ticks, const struct pen_limits *limits)
{
    int64_t low, high;

    if (batch->count == 0)
        return true;
    if (batch->count >= limits->messages_max || batch->size + 1 + size > limits->bytes_max)
        return false;
    if (limits->span_ticks_max == 0)
        return true;
    low = ticks < batch->ticks_min ? ticks : batch->ticks_min;
    high = ticks > batch->ticks_max ? ticks : batch->ticks_max;
    return high - low <= limits->span_ticks_max;
}

static uint32_t batch_stream(struct batch *batch, const char *name)
{
    /* Messages come in runs of one stream: the last name is nearly always the one. */
    for (uint32_t i = batch->stream_count; i > 0; i--)
        if (batch->streams[i - 1] == name)
            return i - 1;
    batch->streams = grown(batch->streams, &batch->stream_capacity, batch->stream_count + 1, sizeof(*batch->streams));
    batch->streams[batch->stream_count] = name;
    return batch->stream_count++;
}

static void batch_hold(struct batch *batch, struct run *run)
{
    if (batch->run_count > 0 && batch->runs[batch->run_count - 1] == run)
        return;
    batch->runs = grown(batch->runs, &batch->run_capacity, batch->run_count + 1, sizeof(*batch->runs));
    batch->runs[batch->run_count++] = run;
    run->holds++;
}

void batch_add(struct batch *batch, const char *data, size_t size, const struct batch_origin *origin)
{
    size_t comma = batch->count > 0 ? 1 : 0;
    struct pen_message *message;

    budget_give(batch->budget, batch_cost(batch));
    if (batch->size + comma + size > batch->capacity) {
        while (batch->capacity < batch->size + comma + size)
            batch->capacity += batch->capacity;
        batch->data = realloc(batch->data, batch->capacity);
        if (batch->data == NULL)
            abort();
    }
    batch->messages = grown(batch->messages, &batch->message_capacity, batch->count + 1, sizeof(*batch->messages));
    budget_take(batch->budget, batch_cost(batch));

    if (comma)
        batch->data[batch->size++] = ',';
    message = &batch->messages[batch->count++];
    message->offset = (uint32_t)batch->size;
    message->size = (uint32_t)size;
    message->stream = batch_stream(batch, origin->stream);
    message->source = origin->source;
    message->position = origin->position;
    message->ticks = origin->ticks;
    memcpy(batch->data + batch->size, data, size);
    batch->size += size;
    if (batch->count == 1 || origin->ticks < batch->ticks_min)
        batch->ticks_min = origin->ticks;
    if (batch->count == 1 || origin->ticks > batch->ticks_max)
        batch->ticks_max = origin->ticks;
    batch->unsafe++;
    if (origin->run != NULL)
        batch_hold(batch, origin->run);
}

void batch_trim(struct batch *batch)
{
    if (batch->size == 0 || batch->capacity - batch->size < batch->capacity / 8)
        return;
    budget_give(batch->budget, batch_cost(batch));
    batch->capacity = batch->size;
    batch->data = realloc(batch->data, batch->capacity);
    if (batch->data == NULL)
        abort();
    budget_take(batch->budget, batch_cost(batch));
}

/* The names of streams may go with the runs; messages that stay in memory need theirs. */
static void batch_own_names(struct batch *batch)
{
    size_t size = 0;
    char *at;

    for (uint32_t i = 0; i < batch->stream_count; i++)
        size += strlen(batch->streams[i]) + 1;
    batch->names = at = cleared(size);
    for (uint32_t i = 0; i < batch->stream_count; i++) {
        size = strlen(batch->streams[i]) + 1;
        memcpy(at, batch->streams[i], size);
        batch->streams[i] = at;
        at += size;
    }
}

static void batch_let_go(struct batch *batch)
{
    if (batch->unsafe > 0 || batch->writing > 0 || batch->run_count == 0)
        return;
    batch_own_names(batch);
    for (uint32_t i = 0; i < batch->run_count; i++)
        run_release(batch->runs[i]);
    batch->run_count = 0;
}

void batch_safe(struct batch *batch, uint32_t n)
{
    assert(n <= batch->unsafe);
    batch->unsafe -= n;
    batch_let_go(batch);
}

void batch_write_begin(struct batch *batch)
{
    batch->writing++;
}

void batch_write_end(struct batch *batch)
{
    assert(batch->writing > 0);
    batch->writing--;
    batch_let_go(batch);
}

struct part *part_new(struct outlet *outlet, struct batch *batch, uint64_t order, uint64_t now_ms)
{
    struct part *part = cleared(sizeof(*part));

    assert(batch->count > 0);
    part->outlet = outlet;
    part->batch = batch;
    part->order = order;
    part->sealed_ms = now_ms;
    part->lent = (struct pen_batch){
        .data = batch->data, .size = batch->size, .messages = batch->messages, .count = batch->count,
        .kind = batch->kind, .streams = batch->streams, .id = order,
    };
    batch->parts++;
    return part;
}

struct part *part_cut(const struct part *part, uint32_t from, uint32_t count, uint64_t id)
{
    struct part *cut = cleared(sizeof(*cut));
    const struct pen_message *messages = part->lent.messages + from, *last = &messages[count - 1];
    uint32_t base = messages[0].offset;

    assert(count > 0 && from + count <= part->lent.count);
    cut->outlet = part->outlet;
    cut->batch = part->batch;
    cut->frame = part->frame;
    cut->order = part->order;
    cut->first = part->first + from;
    cut->sealed_ms = part->sealed_ms;
    cut->keep = part->keep;
    cut->unwritten = part->unwritten;
    cut->messages = malloc((size_t)count * sizeof(*messages));
    if (cut->messages == NULL)
        abort();
    memcpy(cut->messages, messages, (size_t)count * sizeof(*messages));
    for (uint32_t i = 0; i < count; i++)
        cut->messages[i].offset -= base;
    cut->lent = (struct pen_batch){
        .data = part->lent.data + base, .size = last->offset + last->size - base, .messages = cut->messages,
        .count = count, .kind = part->lent.kind, .streams = part->batch->streams, .replayed = part->lent.replayed, .id = id,
    };
    cut->batch->parts++;
    return cut;
}

void part_free(struct part *part)
{
    struct batch *batch = part->batch;

    assert(!part->flying && !part->writing);
    free(part->messages);
    free((char *)part->why);
    free(part);
    if (--batch->parts == 0)
        batch_free(batch);
}

void part_abandon(struct part *part)
{
    part->batch->run_count = 0;
    part_free(part);
}

void parts_insert(struct parts *parts, struct part *part)
{
    struct part *at;

    TAILQ_FOREACH_REVERSE(at, parts, parts, entry) {
        if (at->order < part->order || (at->order == part->order && at->first < part->first)) {
            TAILQ_INSERT_AFTER(parts, at, part, entry);
            return;
        }
    }
    TAILQ_INSERT_HEAD(parts, part, entry);
}
