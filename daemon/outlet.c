/*
 * outlet.c - the road from a message to its answer.
 *
 *                      ┌──────────── ready ──▶ flying ──▶ answer
 *   open ──seal──▶ inbox                ▲
 *                      └──▶ spool ──────┘ read back
 *
 *   OPEN      the inbox goes straight to ready. Nothing is on disk.
 *   SPOOLING  the inbox is appended to the spool and synced; ready is filled from the spool, oldest first.
 *   PAUSED    as SPOOLING, but the spool is full or cannot be written: the inbox waits in memory, and the sources with it.
 *
 * road_spills() is the one place that decides to leave OPEN: a sealed part could not be submitted for spool_after, or the
 * daemon stops. The spool then holds an unbroken run of the outlet's sequence: what is in flight (or waits for its
 * retry) is written first and stays in memory as well, `keep`; what comes behind is written and forgotten. The outlet is
 * OPEN again when the spool is empty.
 *
 * What *safe* means is known to one function, batch_safe(): on disk and synced, or at its end.
 *
 * tests/model/outlet.pml is this file's protocol, with these states and names, checked in every state it can reach. A part
 * there is in one of INBOX, APPENDING (an append has it from the inbox), READY, FLYING, LANDED (`late`: its answer waits
 * for the append), DEAD, BURYING.
 *
 * If we die at any instruction: parts in memory were never safe, their runs hold the cursors, the records are read again;
 * parts on disk are read back in order. Either repeats with the same event ids and loses nothing.
 */
#include "daemon/outlet.h"

#include "daemon/buf.h"
#include "daemon/burial.h"
#include "daemon/log.h"
#include "daemon/status.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_FIRST_BYTES ((size_t)32 * 1024)
#define DISK_RETRY_MS 2000u
#define AWAY_SAY_MS (60u * 1000)     /* a far end that stays away is said again after this, then after twice as long … */
#define AWAY_SAY_MAX_MS (3600u * 1000)

struct outlet {
    struct outlet_conf conf;
    const struct sink_settings *settings;
    const struct schema *schema;
    struct pen_host host;
    void *sink;
    struct pen_limits limits;
    enum outlet_state state;
    struct batch *open[PEN_KINDS];
    struct parts inbox, ready, flying;
    uint32_t ready_count, flying_count;
    uint32_t late_count;                           /* parts that are answered, but still being written */
    uint64_t order;
    uint64_t hold_until_ms;                        /* the sink is backing off */
    uint32_t backoff_ms;
    struct {
        bool said;                                 /* and not yet that it is back */
        uint32_t retries;                          /* since the last line */
        uint32_t interval_ms;
        uint64_t say_at_ms;                        /* not before, however often it comes and goes */
        uint64_t last_ms;
    } away;
    bool refused[PEN_KINDS];                       /* alarmed already: one kind's stream may lack where others do not */
    uint32_t dead_in_a_row;                        /* rejected to the last message, and nothing delivered since */
    bool doubting;                                 /* alarmed already */
    struct burial burial;
    struct spool *spool;
    /* The disk in trouble. Each for itself: on a full disk nothing can be appended, and reading is what makes room. */
    uint64_t append_hold_until_ms, read_hold_until_ms;
    bool append_trouble, read_trouble;             /* said already */
    struct ledger_row *ledger;
    struct outlet_counts counts;
    struct answers answers;
    char trouble[256];                             /* the last answer that was not "delivered", for people; "" since one was */
    uv_timer_t timer;
    /* one job of each at a time */
    struct outlet_append {
        uv_work_t work;
        struct spool_append *append;
        struct part *parts[SPOOL_APPEND_MAX];
        uint32_t count;
        uint64_t since_ms;
    } append;
    struct outlet_read {
        uv_work_t work;
        struct spool_read *read;
        uint64_t since_ms;
    } read;
    /* stopping */
    bool stopping, sink_stopping, stopped;
    uint64_t deliver_until_ms, give_up_ms;
    void (*on_stopped)(void *arg);
    void *stopped_arg;
};

static uint64_t now_ms(const struct outlet *outlet)
{
    return uv_now(outlet->conf.loop);
}

/* ---- Counting and safety ---- */

static uint32_t ledger_row_of(const struct outlet *outlet, const struct pen_message *message)
{
    return message->source < outlet->conf.source_count ? message->source : outlet->conf.source_count;
}

/* Messages [from, from + count) of the part come to their end. The frame is gone after its last message. */
static void part_end(struct part *part, uint32_t from, uint32_t count, enum ledger_place end)
{
    struct outlet *outlet = part->outlet;
    enum ledger_place before = part->frame != NULL ? LEDGER_SPOOLED : LEDGER_HELD;
    uint32_t row, same, i = from;

    while (i < from + count) {
        row = ledger_row_of(outlet, &part->lent.messages[i]);
        for (same = 1; i + same < from + count && ledger_row_of(outlet, &part->lent.messages[i + same]) == row; same++)
            ;
        ledger_move(&outlet->ledger[row], before, end, same);
        if (part->frame != NULL)
            spool_settle(outlet->spool, part->frame, row, same);
        i += same;
    }
    if (before == LEDGER_HELD)
        batch_safe(part->batch, count);
}

/* The part lies in the spool, synced. */
static void part_on_disk(struct part *part)
{
    struct outlet *outlet = part->outlet;

    for (uint32_t i = 0; i < part->lent.count; i++)
        ledger_move(&outlet->ledger[ledger_row_of(outlet, &part->lent.messages[i])], LEDGER_HELD, LEDGER_SPOOLED, 1);
    batch_safe(part->batch, part->lent.count);
}

/* What the spool could not read back is gone, and must not be counted as waiting for ever. */
static void outlet_count_lost(struct outlet *outlet)
{
    for (uint32_t row = 0; row <= outlet->conf.source_count; row++)
        ledger_move(&outlet->ledger[row], LEDGER_SPOOLED, LEDGER_DROPPED, spool_lost(outlet->spool, row));
}

/* ---- Lists ---- */

static void ready_add(struct outlet *outlet, struct part *part)
{
    parts_insert(&outlet->ready, part);
    outlet->ready_count++;
}

static struct part *ready_take(struct outlet *outlet)
{
    struct part *part = TAILQ_FIRST(&outlet->ready);

    if (part != NULL) {
        TAILQ_REMOVE(&outlet->ready, part, entry);
        outlet->ready_count--;
    }
    return part;
}

/* ---- Sealing ---- */

static void outlet_seal(struct outlet *outlet, enum pen_kind kind)
{
    struct batch *batch = outlet->open[kind];
    struct part *part;

    outlet->open[kind] = NULL;
    batch_trim(batch);
    part = part_new(outlet, batch, ++outlet->order, now_ms(outlet));
    TAILQ_INSERT_TAIL(&outlet->inbox, part, entry);
}

void outlet_flush(struct outlet *outlet)
{
    for (int kind = 0; kind < PEN_KINDS; kind++)
        if (outlet->open[kind] != NULL)
            outlet_seal(outlet, kind);
    outlet_pump(outlet);
}

bool outlet_has_open(const struct outlet *outlet)
{
    for (int kind = 0; kind < PEN_KINDS; kind++)
        if (outlet->open[kind] != NULL)
            return true;
    return false;
}

void outlet_add(struct outlet *outlet, enum pen_kind kind, const char *data, size_t size,
                const struct batch_origin *origin)
{
    enum pen_kind lane = outlet->limits.by_kind ? kind : PEN_UNKNOWN;
    struct batch **open = &outlet->open[lane];

    if (*open != NULL && !batch_fits(*open, size, origin->ticks, &outlet->limits))
        outlet_seal(outlet, lane);
    if (*open == NULL)
        *open = batch_new(outlet->conf.budget, lane, BATCH_FIRST_BYTES, now_ms(outlet));
    batch_add(*open, data, size, origin);
    outlet->ledger[origin->source].count[LEDGER_HELD]++;
}

void outlet_drop(struct outlet *outlet, uint32_t source)
{
    outlet->ledger[source].count[LEDGER_DROPPED]++;
}

/* When an open batch is sealed, full or not. While others stand before it, it would only wait sealed: so it goes on filling,
 * and one full post leaves in place of many small ones. But no longer than what waits may wait before it goes to disk. */
static uint64_t outlet_due_ms(const struct outlet *outlet, const struct batch *batch)
{
    uint32_t wait_ms = outlet->settings->flush_ms;
    bool queue = !TAILQ_EMPTY(&outlet->ready) || outlet->flying_count >= outlet->limits.in_flight_max ||
        now_ms(outlet) < outlet->hold_until_ms;

    if (queue && outlet->state == OUTLET_OPEN && outlet->settings->spool_after_ms > wait_ms)
        wait_ms = outlet->settings->spool_after_ms;
    return batch->opened_ms + wait_ms;
}

static void outlet_seal_due(struct outlet *outlet)
{
    for (int kind = 0; kind < PEN_KINDS; kind++) {
        struct batch *batch = outlet->open[kind];

        if (batch != NULL && (outlet->stopping || batch->size >= outlet->limits.bytes_max ||
                              now_ms(outlet) >= outlet_due_ms(outlet, batch)))
            outlet_seal(outlet, kind);
    }
}

/* ---- Answers ---- */

/* A far end is obeyed, but not to the end of days. */
static uint32_t named_bounded(const struct outlet *outlet, uint32_t named_ms)
{
    uint64_t max = (uint64_t)outlet->settings->retry_max_ms * 10;

    return named_ms < max ? named_ms : (uint32_t)max;
}

static uint32_t backoff_next(struct outlet *outlet, uint32_t named_ms)
{
    const struct sink_settings *settings = outlet->settings;
    uint64_t delay;

    outlet->backoff_ms = outlet->backoff_ms == 0 ? settings->retry_min_ms
        : outlet->backoff_ms > settings->retry_max_ms / 2 ? settings->retry_max_ms : outlet->backoff_ms * 2;
    /* Between half and the whole of it, so that many daemons do not come back at once. */
    delay = outlet->backoff_ms / 2 + arc4random_uniform(outlet->backoff_ms / 2 + 1);
    return named_ms > delay ? named_ms : (uint32_t)delay;
}

static void outlet_hold(struct outlet *outlet, uint32_t delay_ms)
{
    uint64_t until = now_ms(outlet) + delay_ms;

    if (until > outlet->hold_until_ms)
        outlet->hold_until_ms = until;
}

static void outlet_says_delivered(struct outlet *outlet, enum pen_kind kind)
{
    outlet->backoff_ms = 0;
    outlet->dead_in_a_row = 0;
    outlet->trouble[0] = '\0';
    if (outlet->refused[kind] || outlet->doubting || outlet->away.said) {
        outlet->refused[kind] = outlet->doubting = outlet->away.said = false;
        log_line(LOG_NOTE, "the far end takes our messages again", "sink", outlet->settings->name, NULL);
    }
}

/* Said once, then at growing intervals, and its end; a far end that comes and goes is not said more often for that. */
static void outlet_says_away(struct outlet *outlet, uint32_t delay_ms, const char *why)
{
    uint64_t now = now_ms(outlet);

    if (!outlet->away.said && now - outlet->away.last_ms > outlet->away.interval_ms)
        outlet->away.interval_ms = 0;              /* it was well for long enough */
    outlet->away.last_ms = now;
    outlet->away.retries++;
    if (outlet->away.interval_ms > 0 && now < outlet->away.say_at_ms)
        return;
    log_line(LOG_WARN, "the far end is busy or away, holding", "sink", outlet->settings->name, "outcome", "retry",
             "retries", log_number(outlet->away.retries), "delay_ms", log_number(delay_ms), "why", why, NULL);
    outlet->away.said = true;
    outlet->away.retries = 0;
    outlet->away.interval_ms = outlet->away.interval_ms == 0 ? AWAY_SAY_MS
        : outlet->away.interval_ms > AWAY_SAY_MAX_MS / 2 ? AWAY_SAY_MAX_MS : outlet->away.interval_ms * 2;
    outlet->away.say_at_ms = now + outlet->away.interval_ms;
}

static void outlet_says_retry(struct outlet *outlet, uint32_t named_ms, const char *why)
{
    uint32_t delay_ms;

    named_ms = named_bounded(outlet, named_ms);
    if (now_ms(outlet) < outlet->hold_until_ms) {  /* one of several in flight that failed together */
        outlet_hold(outlet, named_ms);
        return;
    }
    delay_ms = backoff_next(outlet, named_ms);
    outlet_hold(outlet, delay_ms);
    outlet_says_away(outlet, delay_ms, why);
}

static void outlet_says_refused(struct outlet *outlet, enum pen_kind kind, uint32_t named_ms, const char *why)
{
    uint32_t delay_ms = outlet->settings->retry_max_ms;

    named_ms = named_bounded(outlet, named_ms);
    if (named_ms > delay_ms)
        delay_ms = named_ms;
    outlet_hold(outlet, delay_ms);
    if (outlet->refused[kind])
        return;
    outlet->refused[kind] = true;
    log_line(LOG_ERROR, "the far end refuses us: nothing is lost, messages are held and retried slowly until this is mended",
             "sink", outlet->settings->name, "outcome", "refused", "retry_ms", log_number(delay_ms), "why", why, NULL);
}

/* One message after the other rejected, and none delivered between: that is rather a rule, a topic or a proxy set up wrongly
 * than so many bad messages. From here on each gets a second try, a backoff later. So a far end that is mended meanwhile has
 * cost a few letters, not all of a backlog; and where the messages are bad indeed, good ones behind them do not wait for
 * ever. */
static bool outlet_doubts(struct outlet *outlet, const char *why)
{
    int64_t limit = outlet->settings->dead_in_a_row;
    uint32_t delay_ms;

    if (limit == 0 || outlet->dead_in_a_row < limit)
        return false;
    if (now_ms(outlet) < outlet->hold_until_ms)    /* one of several that were rejected together */
        return true;
    delay_ms = backoff_next(outlet, 0);
    outlet_hold(outlet, delay_ms);
    if (outlet->doubting)
        return true;
    outlet->doubting = true;
    log_line(LOG_ERROR, "every message is rejected, which looks like a setting: nothing is lost, messages are held and tried "
             "slowly, one by one, until one is delivered; if they are bad indeed, dead_in_a_row = 0 lets them pass at once",
             "sink", outlet->settings->name, "outcome", "rejected", "dead_in_a_row", log_number(outlet->dead_in_a_row),
             "delay_ms", log_number(delay_ms), "why", why, NULL);
    return true;
}

/* A single message that can never go. */
static void part_reject(struct part *part, const char *why)
{
    struct outlet *outlet = part->outlet;

    if (outlet_doubts(outlet, why) && !part->doubted) {
        part->doubted = true;
        ready_add(outlet, part);
        return;
    }
    outlet->dead_in_a_row++;
    burial_add(&outlet->burial, part, why);
}

/* Two halves in its place; a single message is at its end. */
static void part_halve(struct part *part, const char *why)
{
    struct outlet *outlet = part->outlet;
    uint32_t half = part->lent.count / 2;

    if (part->lent.count == 1) {
        part_reject(part, why);
        return;
    }
    outlet->counts.cuts++;
    ready_add(outlet, part_cut(part, 0, half, ++outlet->order));
    ready_add(outlet, part_cut(part, half, part->lent.count - half, ++outlet->order));
    part_free(part);
}

/* Far ends may quote a message where they reject it: that goes with it into the dead letters, and is shown nowhere else. */
static void outlet_note(struct outlet *outlet, enum pen_outcome outcome, const char *why)
{
    answers_add(&outlet->answers, outcome, why);
    if (outcome == PEN_RETRY || outcome == PEN_REFUSED) {
        (void)snprintf(outlet->trouble, sizeof(outlet->trouble), "%s", why != NULL ? why : "");
        text_clean(outlet->trouble);
    }
}

static void part_answered(struct part *part, enum pen_outcome outcome, uint32_t delay_ms, const char *why)
{
    struct outlet *outlet = part->outlet;

    outlet_note(outlet, outcome, why);
    switch (outcome) {
    case PEN_DELIVERED:
        outlet->counts.batches++;
        outlet->counts.bytes += part->lent.size;
        outlet_says_delivered(outlet, part->lent.kind);
        part_end(part, 0, part->lent.count, LEDGER_DELIVERED);
        part_free(part);
        return;
    case PEN_RETRY:
        outlet->counts.retries++;
        outlet_says_retry(outlet, delay_ms, why);
        ready_add(outlet, part);
        return;
    case PEN_REFUSED:
        outlet->counts.refusals++;
        outlet_says_refused(outlet, part->lent.kind, delay_ms, why);
        ready_add(outlet, part);
        return;
    case PEN_TOO_LARGE:
    case PEN_REJECTED:
        part_halve(part, why);
        return;
    }
    assert(!"an outcome that is none");
}

/* ---- An answer while an append still reads the part waits for the append ---- */

static struct part *part_landed(struct pen_batch *batch)
{
    struct part *part = (struct part *)batch;

    assert(part->flying);
    TAILQ_REMOVE(&part->outlet->flying, part, entry);
    part->outlet->flying_count--;
    part->flying = false;
    return part;
}

struct late_answer {
    enum pen_outcome outcome;
    uint32_t delay_ms;
    enum pen_outcome *outcomes;
    char why[];
};

static void part_answer_later(struct part *part, enum pen_outcome outcome, const enum pen_outcome *outcomes,
                              uint32_t delay_ms, const char *why)
{
    struct late_answer *late = malloc(sizeof(*late) + strlen(why) + 1);

    if (late == NULL)
        abort();
    late->outcome = outcome;
    late->delay_ms = delay_ms;
    late->outcomes = NULL;
    strcpy(late->why, why);
    if (outcomes != NULL) {
        late->outcomes = malloc(part->lent.count * sizeof(*outcomes));
        if (late->outcomes == NULL)
            abort();
        memcpy(late->outcomes, outcomes, part->lent.count * sizeof(*outcomes));
    }
    part->late = late;
    part->outlet->late_count++;
}

static void part_answered_each(struct part *part, const enum pen_outcome *outcomes, uint32_t delay_ms, const char *why)
{
    uint32_t same, count = part->lent.count;

    for (uint32_t i = 0; i < count; i += same) {
        for (same = 1; i + same < count && outcomes[i + same] == outcomes[i]; same++)
            ;
        assert(outcomes[i] != PEN_TOO_LARGE);
        if (outcomes[i] == PEN_REJECTED)
            same = 1;                              /* the far end has named the guilty: no need to look for them */
        part_answered(part_cut(part, i, same, ++part->outlet->order), outcomes[i], delay_ms, why);
    }
    part_free(part);
}

static void part_answer_now(struct part *part)
{
    struct late_answer *late = part->late;

    part->late = NULL;
    part->outlet->late_count--;
    if (late->outcomes != NULL)
        part_answered_each(part, late->outcomes, late->delay_ms, late->why);
    else
        part_answered(part, late->outcome, late->delay_ms, late->why);
    free(late->outcomes);
    free(late);
}

void pen_batch_answer(struct pen_batch *batch, enum pen_outcome outcome, uint32_t delay_ms, const char *why)
{
    struct part *part = part_landed(batch);
    struct outlet *outlet = part->outlet;

    if (part->writing)
        part_answer_later(part, outcome, NULL, delay_ms, why);
    else
        part_answered(part, outcome, delay_ms, why);
    outlet_pump(outlet);
}

void pen_batch_answer_each(struct pen_batch *batch, const enum pen_outcome *outcomes, uint32_t delay_ms,
                           const char *why)
{
    struct part *part = part_landed(batch);
    struct outlet *outlet = part->outlet;

    if (part->writing)
        part_answer_later(part, PEN_RETRY, outcomes, delay_ms, why);
    else
        part_answered_each(part, outcomes, delay_ms, why);
    outlet_pump(outlet);
}

/* ---- Dead letters ---- */

static void on_buried(struct part *part)
{
    part_end(part, 0, part->lent.count, LEDGER_DEAD);
    part_free(part);
}

static void on_burial_done(void *arg)
{
    struct outlet *outlet = arg;

    if (outlet->burial.result == UV_ENOSPC)
        reserve_release(outlet->conf.reserve);
    outlet_pump(outlet);
}

/* ---- To the spool ---- */

static void outlet_enter(struct outlet *outlet, enum outlet_state state, const char *why)
{
    static const char *const words[] = { "open", "spooling", "paused" };

    if (outlet->state == state)
        return;
    log_line(state == OUTLET_PAUSED ? LOG_WARN : LOG_NOTE, why, "sink", outlet->settings->name, "flow", words[state],
             "spool_bytes", log_number(spool_bytes(outlet->spool)), NULL);
    outlet->state = state;
}

/* The one decision: does what waits go to disk? */
static bool road_spills(const struct outlet *outlet)
{
    const struct part *oldest = TAILQ_FIRST(&outlet->ready);

    if (oldest == NULL)
        oldest = TAILQ_FIRST(&outlet->inbox);
    if (outlet->stopping && now_ms(outlet) >= outlet->deliver_until_ms)
        return oldest != NULL || outlet->flying_count > 0;
    return oldest != NULL && now_ms(outlet) >= outlet->append_hold_until_ms &&
        now_ms(outlet) - oldest->sealed_ms >= outlet->settings->spool_after_ms;
}

/* OPEN to SPOOLING: what flies, or stands before something that flies, is written and kept; the rest goes back to the
 * inbox, to be written and forgotten. */
static void outlet_spill(struct outlet *outlet)
{
    struct part *part, *next;
    uint64_t last = 0;

    TAILQ_FOREACH(part, &outlet->flying, entry) {
        part->keep = part->unwritten = true;
        if (part->order > last)
            last = part->order;
    }
    for (part = TAILQ_FIRST(&outlet->ready); part != NULL; part = next) {
        next = TAILQ_NEXT(part, entry);
        if (part->order <= last) {
            part->keep = part->unwritten = true;
            continue;
        }
        TAILQ_REMOVE(&outlet->ready, part, entry);
        outlet->ready_count--;
        parts_insert(&outlet->inbox, part);
    }
    outlet_enter(outlet, OUTLET_SPOOLING, outlet->stopping ? "stopping: what is not delivered goes to the spool"
                                                           : "messages wait too long for the far end: they go to the spool");
}

/* SPOOLING or PAUSED to OPEN: nothing is on disk any more. */
static void outlet_unspill(struct outlet *outlet)
{
    struct part *part;

    TAILQ_FOREACH(part, &outlet->ready, entry)
        part->keep = part->unwritten = false;
    TAILQ_FOREACH(part, &outlet->flying, entry)
        part->keep = part->unwritten = false;
    /* Their waiting was for the disk, not for the far end: it must not send them back at once. */
    TAILQ_FOREACH(part, &outlet->inbox, entry)
        part->sealed_ms = now_ms(outlet);
    outlet_enter(outlet, OUTLET_OPEN, "the spool is empty");
}

static void on_append_work(uv_work_t *work)
{
    struct outlet *outlet = work->data;

    spool_append_run(outlet->append.append);
}

static void outlet_appended(struct outlet *outlet)
{
    struct outlet_append *append = &outlet->append;

    outlet->append_trouble = false;
    if (outlet->state == OUTLET_PAUSED)
        outlet_enter(outlet, OUTLET_SPOOLING, "the spool takes messages again");
    for (uint32_t i = 0; i < append->count; i++) {
        struct part *part = append->parts[i];
        bool from_inbox = !part->unwritten;

        part_on_disk(part);
        part->unwritten = false;
        if (part->late != NULL) {
            part_answer_now(part);
        } else if (!part->keep) {
            part_free(part);
        } else if (from_inbox) {
            /* Behind everything that was read back before it, whose order was given anew at that time. */
            part->order = ++outlet->order;
            ready_add(outlet, part);
        }
    }
}

static void outlet_append_failed(struct outlet *outlet, int result)
{
    struct outlet_append *append = &outlet->append;

    outlet->append_hold_until_ms = now_ms(outlet) + DISK_RETRY_MS;
    if (!outlet->append_trouble)
        log_line(LOG_ERROR, "the spool cannot be written: messages wait in memory, and the sources with them", "sink",
                 outlet->settings->name, "error", uv_strerror(result), NULL);
    outlet->append_trouble = true;
    outlet_enter(outlet, OUTLET_PAUSED, "the spool takes nothing more");
    /* Backwards, so that the inbox has its order again. */
    for (uint32_t i = append->count; i > 0; i--) {
        struct part *part = append->parts[i - 1];

        if (part->late != NULL) {
            part_answer_now(part);
        } else if (!part->unwritten) {
            part->keep = false;
            TAILQ_INSERT_HEAD(&outlet->inbox, part, entry);
        }
    }
}

static void on_append_done(uv_work_t *work, int status)
{
    struct outlet *outlet = work->data;
    int result = spool_append_done(outlet->append.append);

    (void)status;
    outlet->append.since_ms = 0;
    if (result == 0)
        outlet_appended(outlet);
    else
        outlet_append_failed(outlet, result);
    outlet_pump(outlet);
}

/* Collects from a list what is to be written although it stays there; in order. */
static uint32_t collect_unwritten(struct parts *list, struct part **parts, uint32_t count)
{
    struct part *part;
    uint32_t at;

    TAILQ_FOREACH(part, list, entry) {
        if (!part->unwritten || count == SPOOL_APPEND_MAX)
            continue;
        for (at = count++; at > 0 && (parts[at - 1]->order > part->order ||
                (parts[at - 1]->order == part->order && parts[at - 1]->first > part->first)); at--)
            parts[at] = parts[at - 1];
        parts[at] = part;
    }
    return count;
}

/* Written parts may go straight on to the sink, with no way round over the disk, while nothing older waits there. */
static bool outlet_may_keep(const struct outlet *outlet, uint32_t kept)
{
    return !outlet->stopping && spool_untaken(outlet->spool) == 0 && outlet->read.since_ms == 0 &&
        outlet->ready_count + outlet->flying_count + kept < outlet->limits.in_flight_max;
}

static bool outlet_make_room(struct outlet *outlet)
{
    uint64_t *lost, sum = 0;
    bool made;

    if (outlet->settings->spool_full != SPOOL_DROP_OLDEST)
        return false;
    lost = calloc(outlet->conf.source_count + 1u, sizeof(*lost));
    if (lost == NULL)
        abort();
    made = spool_drop_oldest(outlet->spool, lost);
    for (uint32_t row = 0; row <= outlet->conf.source_count; row++) {
        ledger_move(&outlet->ledger[row], LEDGER_SPOOLED, LEDGER_DROPPED, lost[row]);
        sum += lost[row];
    }
    free(lost);
    if (made)
        log_line(LOG_WARN, "the spool is full: its oldest messages were dropped, as configured", "sink",
                 outlet->settings->name, "dropped", log_number(sum), NULL);
    return made;
}

static void outlet_start_append(struct outlet *outlet)
{
    struct outlet_append *append = &outlet->append;
    uint32_t count, from_inbox, kept = 0, taken = 0;
    struct part *part;

    if (outlet->state == OUTLET_OPEN || append->since_ms > 0 || now_ms(outlet) < outlet->append_hold_until_ms)
        return;
    count = collect_unwritten(&outlet->flying, append->parts, 0);
    count = collect_unwritten(&outlet->ready, append->parts, count);
    from_inbox = count;
    TAILQ_FOREACH(part, &outlet->inbox, entry) {
        if (count == SPOOL_APPEND_MAX)
            break;
        part->keep = kept == count - from_inbox && outlet_may_keep(outlet, kept);
        kept += part->keep;
        append->parts[count++] = part;
    }
    if (count == 0)
        return;
    do
        append->append = spool_append_new(outlet->spool, append->parts, count, &taken);
    while (append->append == NULL && outlet_make_room(outlet));
    if (append->append == NULL) {
        outlet_enter(outlet, OUTLET_PAUSED, "the spool is full: messages wait in memory, and the sources with them");
        return;
    }
    for (uint32_t i = from_inbox; i < taken; i++)
        TAILQ_REMOVE(&outlet->inbox, append->parts[i], entry);
    append->count = taken;
    append->since_ms = now_ms(outlet);
    append->work.data = outlet;
    uv_queue_work(outlet->conf.loop, &append->work, on_append_work, on_append_done);
}

/* ---- From the spool ---- */

static void on_read_work(uv_work_t *work)
{
    struct outlet *outlet = work->data;

    spool_read_run(outlet->read.read);
}

static void on_read_done(uv_work_t *work, int status)
{
    struct outlet *outlet = work->data;
    struct spool_frame *frame;
    struct batch *batch;
    struct part *part;
    uint64_t order;
    bool own_life;
    int trouble = spool_read_trouble(outlet->read.read);

    (void)status;
    outlet->read.since_ms = 0;
    if (trouble < 0) {
        outlet->read_hold_until_ms = now_ms(outlet) + DISK_RETRY_MS;
        if (!outlet->read_trouble)
            log_line(LOG_ERROR, "the spool cannot be read: its messages wait on disk", "sink", outlet->settings->name,
                     "error", uv_strerror(trouble), NULL);
        outlet->read_trouble = true;
    }
    batch = spool_read_done(outlet->read.read, outlet->conf.budget, &frame, &order, &own_life);
    if (batch != NULL) {
        outlet->read_trouble = false;
        part = part_new(outlet, batch, ++outlet->order, now_ms(outlet));
        part->frame = frame;
        part->lent.replayed = true;
        part->keep = true;
        ready_add(outlet, part);
    }
    outlet_pump(outlet);
}

static void outlet_start_read(struct outlet *outlet)
{
    struct outlet_read *read = &outlet->read;

    if (outlet->state == OUTLET_OPEN || outlet->stopping || read->since_ms > 0 || burial_blocks(&outlet->burial) ||
        outlet->ready_count + outlet->flying_count >= outlet->limits.in_flight_max ||
        now_ms(outlet) < outlet->hold_until_ms || now_ms(outlet) < outlet->read_hold_until_ms)
        return;
    read->read = spool_read_new(outlet->spool);
    if (read->read == NULL)
        return;
    read->since_ms = now_ms(outlet);
    read->work.data = outlet;
    uv_queue_work(outlet->conf.loop, &read->work, on_read_work, on_read_done);
}

/* ---- To the sink ---- */

/* While the answer to a part waits for the disk, nobody knows whether the part comes back: what is behind it must not pass. */
static void outlet_submit(struct outlet *outlet)
{
    struct part *part;

    while (outlet->late_count == 0 && outlet->flying_count < outlet->limits.in_flight_max && !burial_blocks(&outlet->burial) &&
           now_ms(outlet) >= outlet->hold_until_ms && (part = ready_take(outlet)) != NULL) {
        part->flying = true;
        outlet->flying_count++;
        outlet->counts.submitted++;
        TAILQ_INSERT_TAIL(&outlet->flying, part, entry);
        outlet->settings->type->submit(outlet->sink, &part->lent);
    }
}

/* ---- Stopping ---- */

static bool outlet_has_jobs(const struct outlet *outlet)
{
    return outlet->append.since_ms > 0 || outlet->read.since_ms > 0 || outlet->burial.since_ms > 0;
}

/* Everything that is in memory lies on disk as well. */
static bool outlet_is_safe(const struct outlet *outlet)
{
    const struct part *part;

    TAILQ_FOREACH(part, &outlet->ready, entry)
        if (part->frame == NULL)
            return false;
    TAILQ_FOREACH(part, &outlet->flying, entry)
        if (part->frame == NULL)
            return false;
    return TAILQ_EMPTY(&outlet->inbox) && TAILQ_EMPTY(&outlet->burial.waiting);
}

static void parts_abandon(struct parts *list)
{
    struct part *part;

    while ((part = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, part, entry);
        part_abandon(part);
    }
}

static void on_sink_stopped(void *arg)
{
    struct outlet *outlet = arg;

    assert(outlet->flying_count == 0 && !outlet_has_jobs(outlet));
    parts_abandon(&outlet->inbox);
    parts_abandon(&outlet->ready);
    parts_abandon(&outlet->burial.waiting);
    outlet->stopped = true;
    outlet->on_stopped(outlet->stopped_arg);
}

static void outlet_stop_on(struct outlet *outlet)
{
    bool given_up = now_ms(outlet) >= outlet->give_up_ms;
    bool empty = TAILQ_EMPTY(&outlet->ready) && TAILQ_EMPTY(&outlet->flying) && TAILQ_EMPTY(&outlet->inbox) &&
        TAILQ_EMPTY(&outlet->burial.waiting);

    if (outlet->sink_stopping || outlet_has_jobs(outlet))
        return;
    if (!empty && !given_up && (now_ms(outlet) < outlet->deliver_until_ms || !outlet_is_safe(outlet)))
        return;
    if (given_up && !outlet_is_safe(outlet))
        log_line(LOG_WARN, "stopping with messages that are neither delivered nor spooled: their records will be read again",
                 "sink", outlet->settings->name, NULL);
    outlet->sink_stopping = true;
    uv_timer_stop(&outlet->timer);
    outlet->settings->type->stop(outlet->sink, on_sink_stopped, outlet);
}

void outlet_stop(struct outlet *outlet, void (*stopped)(void *arg), void *arg)
{
    outlet->stopping = true;
    outlet->on_stopped = stopped;
    outlet->stopped_arg = arg;
    outlet->deliver_until_ms = now_ms(outlet);
    /* A far end that takes messages gets half the time to take the last ones; one that does not is not waited for. */
    if (outlet->state == OUTLET_OPEN && now_ms(outlet) >= outlet->hold_until_ms)
        outlet->deliver_until_ms += outlet->conf.stop_ms / 2;
    outlet->give_up_ms = now_ms(outlet) + outlet->conf.stop_ms;
    outlet_pump(outlet);
}

/* ---- The pump ---- */

static void soonest(uint64_t *at, uint64_t when)
{
    if (when < *at)
        *at = when;
}

static void on_timer(uv_timer_t *timer)
{
    outlet_pump(timer->data);
}

static void outlet_arm(struct outlet *outlet)
{
    const struct part *part = TAILQ_FIRST(&outlet->ready);
    uint64_t at = UINT64_MAX, now = now_ms(outlet);

    for (int kind = 0; kind < PEN_KINDS; kind++)
        if (outlet->open[kind] != NULL)
            soonest(&at, outlet_due_ms(outlet, outlet->open[kind]));
    if (outlet->hold_until_ms > now)
        soonest(&at, outlet->hold_until_ms);
    if (outlet->append_hold_until_ms > now)
        soonest(&at, outlet->append_hold_until_ms);
    if (outlet->read_hold_until_ms > now)
        soonest(&at, outlet->read_hold_until_ms);
    if (outlet->burial.hold_until_ms > now)
        soonest(&at, outlet->burial.hold_until_ms);
    if (part != NULL && outlet->state == OUTLET_OPEN)
        soonest(&at, part->sealed_ms + outlet->settings->spool_after_ms);
    if (outlet->stopping) {
        if (outlet->deliver_until_ms > now)
            soonest(&at, outlet->deliver_until_ms);
        soonest(&at, outlet->give_up_ms);
    }
    if (at == UINT64_MAX)
        uv_timer_stop(&outlet->timer);
    else
        uv_timer_start(&outlet->timer, on_timer, at > now ? at - now : 1, 0);
}

static void inbox_to_ready(struct outlet *outlet)
{
    struct part *part;

    while ((part = TAILQ_FIRST(&outlet->inbox)) != NULL) {
        TAILQ_REMOVE(&outlet->inbox, part, entry);
        ready_add(outlet, part);
    }
}

void outlet_pump(struct outlet *outlet)
{
    outlet_count_lost(outlet);                     /* a segment with damage may have gone by any answer */
    outlet_seal_due(outlet);
    if (outlet->state != OUTLET_OPEN && outlet->settings->spool != SPOOL_ALWAYS && !outlet_has_jobs(outlet) &&
        spool_is_empty(outlet->spool) && !outlet->stopping)
        outlet_unspill(outlet);
    if (outlet->state == OUTLET_OPEN && !outlet->sink_stopping) {
        inbox_to_ready(outlet);
        outlet_submit(outlet);
        if (road_spills(outlet))
            outlet_spill(outlet);
    }
    /* Once the sink is told to stop, no job may outlive it: what is answered from now on stays unsafe or on disk as it
     * is, and comes again in the next life. */
    if (!outlet->sink_stopping) {
        outlet_start_append(outlet);
        outlet_start_read(outlet);
        outlet_submit(outlet);
        burial_pump(&outlet->burial);
        outlet_arm(outlet);
    }
    if (outlet->stopping)
        outlet_stop_on(outlet);
    outlet->conf.on_moved(outlet->conf.arg);
}

/* ---- Opening and closing ---- */

static int outlet_open_spool(struct outlet *outlet, struct pen_error *err)
{
    const struct sink_settings *settings = outlet->settings;
    struct spool_conf conf = {
        .bytes_max = settings->spool_max, .compress = settings->spool_compress,
        .schema = outlet->schema->name, .type = settings->type->name, .keys = outlet->conf.keys,
        .reserve = outlet->conf.reserve,
        .rows = outlet->conf.source_count + 1, .life = outlet->conf.life, .place = outlet->conf.place,
    };
    char *dir;
    int r;

    if (asprintf(&dir, "%s/spool/%s", outlet->conf.state_dir, settings->name) < 0)
        abort();
    conf.dir = dir;
    r = spool_open(&outlet->spool, &conf, err);
    free(dir);
    if (r < 0)
        return r;
    outlet->ledger[outlet->conf.source_count].count[LEDGER_SPOOLED] =
        spool_messages(outlet->spool, outlet->conf.source_count);
    if (settings->spool == SPOOL_ALWAYS || !spool_is_empty(outlet->spool))
        outlet->state = OUTLET_SPOOLING;
    if (!spool_is_empty(outlet->spool))
        log_line(LOG_NOTE, "messages of an earlier run are in the spool and go first", "sink", settings->name,
                 "messages", log_number(spool_messages(outlet->spool, outlet->conf.source_count)), NULL);
    return 0;
}

int outlet_open(struct outlet **ret, const struct outlet_conf *conf, struct pen_error *err)
{
    struct outlet *outlet = calloc(1, sizeof(*outlet));
    const struct pen_sink *type = conf->settings->type;
    struct pen_error inner = { 0 };
    int r;

    if (outlet == NULL)
        abort();
    outlet->conf = *conf;
    outlet->settings = conf->settings;
    outlet->ledger = calloc(conf->source_count + 1u, sizeof(*outlet->ledger));
    if (outlet->ledger == NULL)
        abort();
    TAILQ_INIT(&outlet->inbox);
    TAILQ_INIT(&outlet->ready);
    TAILQ_INIT(&outlet->flying);
    uv_timer_init(conf->loop, &outlet->timer);
    outlet->timer.data = outlet;
    outlet->schema = schema_find(conf->settings->schema != NULL ? conf->settings->schema : type->schemas[0]);
    if (outlet->schema == NULL) {
        r = pen_error_set(err, UV_EINVAL, "sink %s: there is no schema %s", conf->settings->name, conf->settings->schema);
        goto fail;
    }
    burial_init(&outlet->burial, &(struct burial_conf){
        .loop = conf->loop, .state_dir = conf->state_dir, .bytes_max = conf->settings->dead_max,
        .stamp = { .sink = conf->settings->name, .schema = outlet->schema->name },
        .on_buried = on_buried, .on_done = on_burial_done, .arg = outlet,
    });
    r = outlet_open_spool(outlet, err);
    if (r < 0)
        goto fail;
    outlet->host = (struct pen_host){
        .loop = conf->loop, .http = conf->http, .schema = outlet->schema->name, .memory_max = conf->memory_max,
        .beside = conf->beside,
    };
    r = type->open(&outlet->sink, &outlet->host, conf->settings->section, &inner);
    if (r < 0) {
        pen_error_set(err, r, "sink %s: %.400s", conf->settings->name, inner.text);
        goto fail;
    }
    outlet->limits = *type->limits(outlet->sink);
    assert(outlet->limits.in_flight_max > 0 && outlet->limits.bytes_max > 0 && outlet->limits.messages_max > 0);
    budget_take(conf->budget, outlet->limits.memory);
    *ret = outlet;
    return 0;
fail:
    outlet->stopped = true;
    outlet_close(outlet);
    return r;
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void outlet_close(struct outlet *outlet)
{
    if (outlet == NULL)
        return;
    assert(outlet->stopped);
    if (outlet->sink != NULL)
        outlet->settings->type->close(outlet->sink);
    spool_close(outlet->spool);
    burial_free(&outlet->burial);
    free(outlet->ledger);
    uv_close((uv_handle_t *)&outlet->timer, on_timer_closed);
}

/* ---- What there is to see ---- */

const char *outlet_name(const struct outlet *outlet)
{
    return outlet->settings->name;
}

const struct schema *outlet_schema(const struct outlet *outlet)
{
    return outlet->schema;
}

const struct sink_settings *outlet_settings(const struct outlet *outlet)
{
    return outlet->settings;
}

enum outlet_state outlet_state(const struct outlet *outlet)
{
    return outlet->state;
}

const struct ledger_row *outlet_ledger(const struct outlet *outlet, uint32_t row)
{
    return &outlet->ledger[row];
}

const struct outlet_counts *outlet_counts(const struct outlet *outlet)
{
    return &outlet->counts;
}

static bool outlet_is_refused(const struct outlet *outlet)
{
    bool refused = outlet->doubting;

    for (int kind = 0; kind < PEN_KINDS; kind++)
        refused = refused || outlet->refused[kind];
    return refused;
}

/* Sealed, and not at its end. What is still open waits for its time. */
static bool outlet_waits(const struct outlet *outlet)
{
    return !TAILQ_EMPTY(&outlet->inbox) || outlet->append.since_ms > 0 || outlet->ready_count > 0 ||
        outlet->flying_count > 0 || outlet->burial.waiting_count > 0 || !spool_is_empty(outlet->spool);
}

void outlet_see(const struct outlet *outlet, struct status_sink *sink)
{
    const struct sink_settings *settings = outlet->settings;
    const struct outlet_counts *counts = &outlet->counts;

    sink->name = settings->name;
    sink->type = settings->type->name;
    sink->schema = outlet->schema->name;
    sink->trouble = outlet->trouble[0] != '\0' ? outlet->trouble : NULL;
    sink->flow = outlet->state;
    sink->refused = outlet_is_refused(outlet);
    sink->hold_ms = outlet->hold_until_ms > now_ms(outlet) ? outlet->hold_until_ms - now_ms(outlet) : 0;
    sink->waiting = outlet_waits(outlet);
    sink->batches = counts->batches;
    sink->bytes = counts->bytes;
    sink->submitted = counts->submitted;
    sink->retries = counts->retries;
    sink->refusals = counts->refusals;
    sink->cuts = counts->cuts;
    sink->in_flight = outlet->flying_count;
    sink->in_turn = outlet->ready_count;
    sink->spool_bytes = spool_bytes(outlet->spool);
    sink->spool_max = settings->spool_max;
    sink->damaged = spool_damaged(outlet->spool);
    sink->dead_bytes = burial_bytes(&outlet->burial);
    sink->dead_max = settings->dead_max;
    sink->token_ms = settings->type->token_ms != NULL ? settings->type->token_ms(outlet->sink) : STATUS_NONE;
    sink->answers = &outlet->answers;
}

const struct spool *outlet_spool(const struct outlet *outlet)
{
    return outlet->spool;
}

size_t outlet_window_bytes(const struct outlet *outlet)
{
    return outlet->limits.in_flight_max * outlet->limits.bytes_max;
}

bool outlet_is_idle(const struct outlet *outlet)
{
    for (uint32_t row = 0; row <= outlet->conf.source_count; row++)
        if (outlet->ledger[row].count[LEDGER_HELD] > 0 || outlet->ledger[row].count[LEDGER_SPOOLED] > 0)
            return false;
    return !outlet_has_jobs(outlet);
}

uint64_t outlet_busy_since(const struct outlet *outlet)
{
    uint64_t since = 0;

    if (outlet->append.since_ms > 0)
        since = outlet->append.since_ms;
    if (outlet->read.since_ms > 0 && (since == 0 || outlet->read.since_ms < since))
        since = outlet->read.since_ms;
    if (outlet->burial.since_ms > 0 && (since == 0 || outlet->burial.since_ms < since))
        since = outlet->burial.since_ms;
    return since;
}
