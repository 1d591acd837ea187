/*
 * work.c - one job: a chunk's records become messages.
 *
 * A record is parsed as JSON once and offered to the parsers; its events come back one by one through on_event(), which
 * writes each in every schema at once. Whatever goes wrong with a record, it travels: what is torn, oversize, no JSON, or
 * refused by the parser that claimed it goes to `unknown` with the reason in record->trouble.
 *
 * Output is bounded by the message: once a schema's bytes have passed output_max, on_event() takes no more, and the rest of
 * the record is made in the next run, by parsing it again and skipping the events already taken. Parsers are pure, so the
 * messages of all runs, end to end, are the same bytes for every output_max. A parser need not look at what it skips: so
 * what was wrong there is told in the run that met it, and `blamed` keeps the record from being counted twice.
 *
 * Events outside of the plan's window are passed over and counted; a record that travels whole does so if any of its events is
 * in the window. A run ends inside a record only when that record has just brought a message: then the whole has gone, too.
 */
#include "daemon/record/work.h"
#include "daemon/schema/pattern.h"

#include "daemon/record/window.h"

#include <assert.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#define TICKS_PER_MS 10000
/* A JSON tree for records up to this is kept from run to run. */
#define TREE_KEPT ((size_t)64 * 1024)

struct worker {
    struct json *json;
    struct pen_out *out;
    EVP_MD *sha256;
    EVP_MD_CTX *digest;
    struct work_messages messages[WORK_SCHEMAS_MAX];
    struct patterns patterns[WORK_SCHEMAS_MAX];
    size_t last;                     /* index of the parser that claimed the record before */

    struct work *work;               /* the run */
    size_t first_builtin;            /* where the plan's built-in parsers begin: users' own stand before them */

    struct pen_record record;        /* the record */
    struct pen_json root;
    struct event_meta meta;
    uint64_t position;
    uint64_t taken;                  /* events of it, those of earlier runs included */
    bool blamed;                     /* it is counted as partly read, perhaps by an earlier run */
    bool gone;                       /* an event of it was in the window, perhaps in an earlier run: it travels whole but once */
    char trouble[256];
};

static bool on_event(void *arg, const struct pen_event *event, uint64_t ordinal);

static void *must(void *memory)
{
    if (memory == NULL)
        abort();
    return memory;
}

struct worker *worker_new(void)
{
    struct worker *worker = must(calloc(1, sizeof(*worker)));

    worker->json = must(json_new());
    worker->out = must(out_new(on_event, worker));
    worker->sha256 = must(EVP_MD_fetch(NULL, "SHA256", NULL));
    worker->digest = must(EVP_MD_CTX_new());
    return worker;
}

void worker_free(struct worker *worker)
{
    if (worker == NULL)
        return;
    for (size_t i = 0; i < WORK_SCHEMAS_MAX; i++) {
        buf_free(&worker->messages[i].bytes);
        free(worker->messages[i].index);
        patterns_free(&worker->patterns[i]);
    }
    EVP_MD_CTX_free(worker->digest);
    EVP_MD_free(worker->sha256);
    out_free(worker->out);
    json_free(worker->json);
    free(worker);
}

size_t worker_held(const struct worker *worker)
{
    size_t held = sizeof(*worker) + json_held(worker->json) + out_held(worker->out);

    for (size_t i = 0; i < WORK_SCHEMAS_MAX; i++)
        held += worker->messages[i].bytes.capacity + worker->messages[i].capacity * sizeof(struct work_message) +
                patterns_held(&worker->patterns[i]);
    return held;
}

/* Not the messages: they are still to be fetched. */
void worker_shrink(struct worker *worker)
{
    out_begin(worker->out, 0);
    json_shrink(worker->json, TREE_KEPT);
}

/* ---- Messages --------------------------------------------------------------------------------------------------- */

static void messages_reset(struct work_messages *messages, size_t output_max)
{
    if (messages->bytes.capacity / 4 > output_max)
        buf_free(&messages->bytes);
    messages->bytes.size = 0;
    messages->count = 0;
    messages->outside = 0;
}

static struct work_message *messages_add(struct work_messages *messages)
{
    if (messages->count == messages->capacity) {
        messages->capacity = messages->capacity > 0 ? 2 * messages->capacity : 256;
        messages->index = must(realloc(messages->index, messages->capacity * sizeof(*messages->index)));
    }
    return &messages->index[messages->count++];
}

static int64_t event_ticks(const struct pen_event *event, int64_t received_ticks)
{
    if (event_has(event, PEN_TIME_GENERATED))
        return event->values[PEN_TIME_GENERATED].number;
    if (event_has(event, PEN_EVENT_START_TIME))
        return event->values[PEN_EVENT_START_TIME].number;
    return received_ticks;
}

static void worker_write(struct worker *worker, size_t schema, const struct pen_event *event)
{
    struct work_messages *messages = &worker->messages[schema];
    struct work_message *message = messages_add(messages);
    size_t offset = messages->bytes.size;

    if (patterns_write(&worker->patterns[schema], worker->work->plan->schemas[schema], event, &worker->meta,
                       &messages->bytes) > 0)
        worker->work->counts.cut++;
    assert(messages->bytes.size <= UINT32_MAX);
    *message = (struct work_message){
        .offset = (uint32_t)offset,
        .size = (uint32_t)(messages->bytes.size - offset),
        .kind = event->kind,
        .position = worker->position,
        .ticks = event_ticks(event, worker->meta.received_ticks),
    };
}

static bool worker_is_full(const struct worker *worker)
{
    const struct work_plan *plan = worker->work->plan;

    for (size_t i = 0; i < plan->schema_count; i++)
        if (worker->messages[i].bytes.size > plan->output_max)
            return true;
    return false;
}

/* The record's half of the event id stands already; the ordinal goes behind it. */
static void worker_number(struct worker *worker, uint64_t ordinal)
{
    char digits[20], *at = digits + sizeof(digits);
    size_t size;

    do {
        *--at = (char)('0' + ordinal % 10);
        ordinal /= 10;
    } while (ordinal > 0);
    size = (size_t)(digits + sizeof(digits) - at);
    worker->meta.id[32] = '-';
    memcpy(worker->meta.id + 33, at, size);
    worker->meta.id_size = 33 + (uint32_t)size;
}

static bool event_is_outside(const struct work_plan *plan, const struct pen_event *event)
{
    int64_t ticks = event_ticks(event, INT64_MIN);

    return plan->window != NULL && ticks != INT64_MIN && !window_has(plan->window, ticks);
}

static bool on_event(void *arg, const struct pen_event *event, uint64_t ordinal)
{
    struct worker *worker = arg;
    const struct work_plan *plan = worker->work->plan;
    bool outside = event_is_outside(plan, event);

    if (worker_is_full(worker))
        return false;
    worker->taken = ordinal + 1;
    worker->work->counts.events++;
    worker->work->counts.outside += outside;
    worker_number(worker, ordinal);
    for (size_t i = 0; i < plan->schema_count; i++) {
        bool per_record = plan->schemas[i]->per_record;

        if (outside)
            worker->messages[i].outside += !per_record;
        else if (!per_record || !worker->gone)
            worker_write(worker, i, event);
    }
    worker->gone |= !outside;
    return true;
}

/* All that it tells of lies outside: it does not travel whole, either. */
static void worker_leave_out(struct worker *worker)
{
    const struct work_plan *plan = worker->work->plan;

    for (size_t i = 0; i < plan->schema_count; i++)
        worker->messages[i].outside += plan->schemas[i]->per_record;
}

/* A record whose parser found nothing to report is still a record: schemas that carry records whole get it. */
static void worker_write_eventless(struct worker *worker)
{
    const struct work_plan *plan = worker->work->plan;
    const struct pen_event *event = pen_out_event(worker->out, PEN_UNKNOWN);

    worker_number(worker, 0);
    for (size_t i = 0; i < plan->schema_count; i++)
        if (plan->schemas[i]->per_record)
            worker_write(worker, i, event);
}

/* ---- One record ------------------------------------------------------------------------------------------------- */

static void worker_identify(struct worker *worker)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char hash[EVP_MAX_MD_SIZE];

    if (EVP_DigestInit_ex2(worker->digest, worker->sha256, NULL) != 1 ||
        EVP_DigestUpdate(worker->digest, worker->record.raw.data, worker->record.raw.size) != 1 ||
        EVP_DigestFinal_ex(worker->digest, hash, NULL) != 1)
        abort();                     /* no memory: nothing else can fail here */
    for (unsigned i = 0; i < 16; i++) {
        worker->meta.id[2 * i] = hex[hash[i] >> 4];
        worker->meta.id[2 * i + 1] = hex[hash[i] & 15];
    }
}

static void work_fault(struct work *work, uint64_t position, const char *who, const char *why)
{
    struct work_fault *fault;

    if (work->fault_count++ >= WORK_FAULTS_MAX)
        return;
    fault = &work->faults[work->fault_count - 1];
    fault->position = position;
    snprintf(fault->why, sizeof(fault->why), "%.32s%s%.180s", who, who[0] != '\0' ? ": " : "", why);
}

/* Built-in parsers claim exclusively, so the one that claimed the last record may be asked first. Users' own may claim
 * anything: they are asked in order, before, or the answer would depend on the record before. */
static size_t worker_claim(struct worker *worker)
{
    const struct work_plan *plan = worker->work->plan;
    const struct pen_record *record = &worker->record;
    size_t unknown = plan->parser_count - 1, i;

    if (record->json == NULL)
        return unknown;
    for (i = 0; i < worker->first_builtin; i++)
        if (plan->parsers[i].parser->claims(record))
            return i;
    if (worker->last >= i && worker->last < unknown && plan->parsers[worker->last].parser->claims(record))
        return worker->last;
    while (i < unknown && !plan->parsers[i].parser->claims(record))
        i++;
    worker->last = i;
    return i;
}

static enum pen_parsed worker_parse(struct worker *worker, size_t index, uint64_t skip)
{
    const struct work_parser *parser = &worker->work->plan->parsers[index];

    out_begin(worker->out, skip);
    worker->taken = skip;
    worker->gone = skip > 0;
    worker->meta.parser = parser->parser->name;
    return parser->parser->parse(parser->self, &worker->record, worker->out);
}

static void worker_blame(struct worker *worker, const struct pen_parser *parser)
{
    const char *blame = worker->out->blame;

    if (worker->blamed)
        return;
    work_fault(worker->work, worker->position, parser->name, blame[0] != '\0' ? blame : "a part of it could not be read");
    worker->work->counts.partly++;
    worker->blamed = true;
}

/* The record at hand becomes messages. False: there was no room for all of them; worker->taken says how far it came. */
static bool worker_record(struct worker *worker, uint64_t skip)
{
    struct work *work = worker->work;
    size_t unknown = work->plan->parser_count - 1, index = worker_claim(worker);
    enum pen_parsed parsed = worker_parse(worker, index, skip);

    if (worker->out->full) {
        if (worker->out->blame[0] != '\0')
            worker_blame(worker, work->plan->parsers[index].parser);
        return false;
    }
    if (parsed == PEN_MALFORMED && worker->taken > 0)
        parsed = PEN_PARTLY;         /* what was emitted stands */
    if (parsed == PEN_MALFORMED && index != unknown) {
        snprintf(worker->trouble, sizeof(worker->trouble), "%s",
                 worker->out->blame[0] != '\0' ? worker->out->blame : "its parser refuses it");
        worker->record.trouble = worker->trouble;
        worker_parse(worker, unknown, 0);
        if (worker->out->full)
            return false;
        work_fault(work, worker->position, work->plan->parsers[index].parser->name, worker->trouble);
        work->counts.malformed++;
        index = unknown;
    } else if (parsed == PEN_PARTLY) {
        worker_blame(worker, work->plan->parsers[index].parser);
    }
    if (worker->taken == 0)
        worker_write_eventless(worker);
    else if (!worker->gone)
        worker_leave_out(worker);
    work->counts.unknown += index == unknown;
    work->counts.records++;
    return true;
}

/* A piece of the framer becomes messages; false as above. */
static bool worker_piece(struct worker *worker, enum framer_found found, const struct framer_piece *piece, uint64_t skip)
{
    struct work *work = worker->work;
    const char *why = piece->why;

    worker->position = work->whole ? work->place : piece->position;
    worker->record = (struct pen_record){
        .raw = { piece->data, piece->size },
        .source = work->plan->source,
        .received_ms = work->received_ms,
    };
    worker->meta.record = &worker->record;
    worker->meta.source = work->plan->source;
    worker->meta.received_ticks = (int64_t)work->received_ms * TICKS_PER_MS;
    worker_identify(worker);

    if (found == FRAMER_RECORD && json_parse(worker->json, piece->data, piece->size, &worker->root, &why) == 0)
        worker->record.json = &worker->root;
    else
        worker->record.trouble = why;
    if (!worker_record(worker, skip))
        return false;
    if (worker->record.json != NULL)
        return true;
    work_fault(work, worker->position, "", why);
    if (found == FRAMER_OVERSIZE)
        work->counts.oversize++;
    else
        work->counts.malformed++;
    return true;
}

/* ---- The run ---------------------------------------------------------------------------------------------------- */

static void worker_begin(struct worker *worker, struct work *work)
{
    const struct work_plan *plan = work->plan;

    assert(plan->parser_count > 0 && plan->schema_count <= WORK_SCHEMAS_MAX);
    worker->work = work;
    work->end = WORK_ALL;
    work->skip_after = 0;
    work->blamed_after = false;
    if (work->adds)
        return;
    worker->first_builtin = 0;
    while (plan->parsers[worker->first_builtin].plugin != NULL)
        worker->first_builtin++;     /* ends at `unknown`, at the latest */
    for (size_t i = 0; i < plan->schema_count; i++)
        messages_reset(&worker->messages[i], plan->output_max);
    work->messages = worker->messages;
    work->counts = (struct work_counts){ 0 };
    work->fault_count = 0;
}

void work_run(struct worker *worker, struct work *work)
{
    const struct work_plan *plan = work->plan;
    uint64_t skip = work->skip;
    struct framer framer;

    worker_begin(worker, work);
    worker->blamed = work->blamed;
    framer_begin(&framer, work->word, work->data, work->size, work->offset, work->final, plan->record_max);
    for (;;) {
        struct framer_piece piece;
        enum framer_found found;

        work->consumed = framer_consumed(&framer);
        work->word_after = framer_word(&framer);
        found = framer_next(&framer, &piece);
        if (found == FRAMER_MORE || found == FRAMER_DONE)
            break;
        if (found == FRAMER_RECORD && piece.size > plan->big_record && !work->big_allowed) {
            work->end = WORK_BIG;
            work->skip_after = skip;
            work->blamed_after = worker->blamed;
            return;
        }
        if (!worker_piece(worker, found, &piece, skip)) {
            work->end = WORK_FULL;
            work->skip_after = worker->taken;
            work->blamed_after = worker->blamed;
            return;
        }
        skip = 0;
        worker->blamed = false;
        if (worker_is_full(worker)) {
            work->end = WORK_FULL;
            break;
        }
    }
    work->consumed = framer_consumed(&framer);
    work->word_after = framer_word(&framer);
}
