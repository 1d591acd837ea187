/*
 * outlet_answers.c - what an answer means: for the part that was lent, for how long we hold, and for people.
 *
 *   delivered            the part is at its end
 *   retry, refused       it is ready again, and the outlet holds: backoff, or slowly until a human has mended the rights
 *   too large, rejected  two halves in its place; a single message goes to the dead letters, but see outlet_doubts()
 *
 * What is wrong is said once, and its end; a healthy far end makes no lines.
 */
#include "daemon/outlet/outlet_inside.h"

#include "daemon/base/buf.h"
#include "daemon/base/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AWAY_SAY_MS (60u * 1000)     /* a far end that stays away is said again after this, then after twice as long … */
#define AWAY_SAY_MAX_MS (3600u * 1000)

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
    uint64_t until = outlet_now_ms(outlet) + delay_ms;

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
    uint64_t now = outlet_now_ms(outlet);

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
    if (outlet_now_ms(outlet) < outlet->hold_until_ms) {  /* one of several in flight that failed together */
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
    if (outlet_now_ms(outlet) < outlet->hold_until_ms)    /* one of several that were rejected together */
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
        outlet_ready_add(outlet, part);
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
    outlet_ready_add(outlet, part_cut(part, 0, half, ++outlet->order));
    outlet_ready_add(outlet, part_cut(part, half, part->lent.count - half, ++outlet->order));
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
        outlet_part_end(part, 0, part->lent.count, LEDGER_DELIVERED);
        part_free(part);
        return;
    case PEN_RETRY:
        outlet->counts.retries++;
        outlet_says_retry(outlet, delay_ms, why);
        outlet_ready_add(outlet, part);
        return;
    case PEN_REFUSED:
        outlet->counts.refusals++;
        outlet_says_refused(outlet, part->lent.kind, delay_ms, why);
        outlet_ready_add(outlet, part);
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

void outlet_part_answer_late(struct part *part)
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
    outlet_part_end(part, 0, part->lent.count, LEDGER_DEAD);
    part_free(part);
}

static void on_burial_done(void *arg)
{
    struct outlet *outlet = arg;

    if (outlet->burial.result == UV_ENOSPC)
        reserve_release(outlet->conf.reserve);
    outlet_pump(outlet);
}

void outlet_open_burial(struct outlet *outlet)
{
    const struct outlet_conf *conf = &outlet->conf;

    burial_init(&outlet->burial, &(struct burial_conf){
        .loop = conf->loop, .state_dir = conf->state_dir, .bytes_max = conf->settings->dead_max,
        .stamp = { .sink = outlet->name, .schema = outlet->schema->name },
        .on_buried = on_buried, .on_done = on_burial_done, .arg = outlet,
    });
}
