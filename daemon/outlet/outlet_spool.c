/*
 * outlet_spool.c - an outlet's parts on their way to the disk and back.
 *
 * One append and one read at a time, each a job on the pool, while the outlet is SPOOLING or PAUSED. Neither waits for the
 * other: on a full disk nothing can be appended, and reading is what makes room. What fails is tried again after
 * DISK_RETRY_MS, and said once.
 */
#include "daemon/outlet/outlet_inside.h"

#include "daemon/base/log.h"
#include "daemon/disk/spools.h"

#include <stdio.h>
#include <stdlib.h>

#define DISK_RETRY_MS 2000u

/* ---- To the spool ---- */

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

        outlet_part_on_disk(part);
        part->unwritten = false;
        if (part->late != NULL) {
            outlet_part_answer_late(part);
        } else if (!part->keep) {
            part_free(part);
        } else if (from_inbox) {
            /* Behind everything that was read back before it, whose order was given anew at that time. */
            part->order = ++outlet->order;
            outlet_ready_add(outlet, part);
        }
    }
}

static void outlet_append_failed(struct outlet *outlet, int result)
{
    struct outlet_append *append = &outlet->append;

    outlet->append_hold_until_ms = outlet_now_ms(outlet) + DISK_RETRY_MS;
    if (!outlet->append_trouble)
        log_line(LOG_ERROR, "the spool cannot be written: messages wait in memory, and the sources with them", "sink",
                 outlet->settings->name, "error", uv_strerror(result), NULL);
    outlet->append_trouble = true;
    outlet_enter(outlet, OUTLET_PAUSED, "the spool takes nothing more");
    /* Backwards, so that the inbox has its order again. */
    for (uint32_t i = append->count; i > 0; i--) {
        struct part *part = append->parts[i - 1];

        if (part->late != NULL) {
            outlet_part_answer_late(part);
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

void outlet_start_append(struct outlet *outlet)
{
    struct outlet_append *append = &outlet->append;
    uint32_t count, from_inbox, kept = 0, taken = 0;
    struct part *part;

    if (outlet->state == OUTLET_OPEN || append->since_ms > 0 || outlet_now_ms(outlet) < outlet->append_hold_until_ms)
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
    append->since_ms = outlet_now_ms(outlet);
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
        outlet->read_hold_until_ms = outlet_now_ms(outlet) + DISK_RETRY_MS;
        if (!outlet->read_trouble)
            log_line(LOG_ERROR, "the spool cannot be read: its messages wait on disk", "sink", outlet->settings->name,
                     "error", uv_strerror(trouble), NULL);
        outlet->read_trouble = true;
    }
    batch = spool_read_done(outlet->read.read, outlet->conf.budget, &frame, &order, &own_life);
    if (batch != NULL) {
        outlet->read_trouble = false;
        part = part_new(outlet, batch, ++outlet->order, outlet_now_ms(outlet));
        part->frame = frame;
        part->lent.replayed = true;
        part->keep = true;
        outlet_ready_add(outlet, part);
    }
    outlet_pump(outlet);
}

void outlet_start_read(struct outlet *outlet)
{
    struct outlet_read *read = &outlet->read;

    if (outlet->state == OUTLET_OPEN || outlet->stopping || read->since_ms > 0 || burial_blocks(&outlet->burial) ||
        outlet->ready_count + outlet->flying_count >= outlet->limits.in_flight_max ||
        outlet_now_ms(outlet) < outlet->hold_until_ms || outlet_now_ms(outlet) < outlet->read_hold_until_ms)
        return;
    read->read = spool_read_new(outlet->spool);
    if (read->read == NULL)
        return;
    read->since_ms = outlet_now_ms(outlet);
    read->work.data = outlet;
    uv_queue_work(outlet->conf.loop, &read->work, on_read_work, on_read_done);
}

/* ---- Opening ---- */

struct spool_conf outlet_spool_conf(const struct outlet *outlet)
{
    const struct sink_settings *settings = outlet->settings;

    return (struct spool_conf){
        .bytes_max = settings->spool_max, .compress = settings->spool_compress,
        .schema = outlet->schema->name, .type = settings->type->name, .keys = outlet->conf.keys,
        .reserve = outlet->conf.reserve,
        .rows = outlet->conf.source_count + 1, .life = outlet->conf.life, .place = outlet->conf.place,
    };
}

/* A restart with another schema, say. A daemon that does not start is noticed, and loses nothing. */
static int outlet_check_spool(const struct outlet *outlet, const char *dir, struct pen_error *err)
{
    struct pen_error why = { 0 };
    struct spool_look look;

    if (spool_is_empty(outlet->spool) || spool_look(&look, dir, outlet->conf.place) < 0 ||
        spool_look_fits(&look, outlet->settings, &why) == 0)
        return 0;
    return pen_error_set(err, UV_EINVAL, "the spool of sink %s: %s. Set that back until they are delivered, or give the new sink "
                         "another name", outlet->name, why.text);
}

int outlet_open_spool(struct outlet *outlet, struct pen_error *err)
{
    const struct sink_settings *settings = outlet->settings;
    struct spool_conf conf = outlet_spool_conf(outlet);
    char *dir;
    int r;

    if (asprintf(&dir, "%s/spool/%s", outlet->conf.state_dir, settings->name) < 0)
        abort();
    conf.dir = dir;
    r = spool_open(&outlet->spool, &conf, err);
    if (r == 0)
        r = outlet_check_spool(outlet, dir, err);
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
