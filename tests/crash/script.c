/* script.c - see script.h. */
#include "crash/script.h"

#include "daemon/disk/cursor.h"
#include "daemon/disk/dead.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROUP_MAX 4u
#define TAKEN_MAX 8u

/* A part whose frame is in memory as well. */
struct taken {
    struct part *part;
    struct spool_frame *frame;
    bool own_life;
};

struct script {
    const struct variant *variant;
    char dir[128], dead_path[192];
    unsigned seed;
    uint32_t count, next;            /* records to read; the next one */
    struct cursors *cursors;
    struct spool *spool;
    struct budget budget;
    struct cursor_change change;     /* collected, not saved yet */
    uint64_t change_position;
    bool safe[RECORDS_MAX];
    struct part *waiting[GROUP_MAX]; /* an append of them failed, or there was no room */
    uint32_t waiting_count;
    struct taken taken[TAKEN_MAX];
    uint32_t taken_count;
    uint32_t front[RECORDS_MAX], front_at, front_end;  /* records of untaken frames, oldest first */
};

static unsigned chance(struct script *script, unsigned n)
{
    return (unsigned)rand_r(&script->seed) % n;
}

/* ---- Cursors ---- */

static uint32_t safe_prefix(const struct script *script)
{
    uint32_t n = 0;

    while (n < script->count && script->safe[n])
        n++;
    return n;
}

static void told_safe(struct script *script, uint32_t record)
{
    script->safe[record] = true;
    disk_note(NOTE_SAFE, record, record + 1);
}

/* Both halves of a save, as the saver has them: other things happen between the two. */
static void collect(struct script *script)
{
    struct cursor cursor = { .key = "stream", .attrs = "", .position = safe_prefix(script) };

    if (script->change.row_count > 0)
        return;
    cursor_change_row(&script->change, SOURCE, &cursor, false);
    cursor_change_place(&script->change, SINK, spool_place(script->spool));
    script->change_position = cursor.position;
}

static bool save(struct script *script)
{
    struct pen_error err = { 0 };

    if (script->change.row_count == 0)
        return true;
    if (cursors_save(script->cursors, &script->change, &err) < 0)
        return false;
    disk_note(NOTE_SAVED, script->change_position, 0);
    cursor_change_clear(&script->change);
    return true;
}

/* ---- Delivering ---- */

static void part_each(const struct part *part, void (*each)(struct script *script, uint32_t record), struct script *script)
{
    for (uint32_t i = 0; i < part->lent.count; i++)
        each(script, (uint32_t)part->lent.messages[i].position);
}

static void on_delivered(struct script *script, uint32_t record)
{
    (void)script;
    disk_note(NOTE_DELIVERED, record, 0);
}

static void settle(struct script *script, struct taken *taken)
{
    spool_settle(script->spool, taken->frame, taken->own_life ? 0 : 1, taken->part->lent.count);
    part_free(taken->part);
    *taken = script->taken[--script->taken_count];
}

/* Answers come in any order. */
static void deliver_taken(struct script *script)
{
    struct taken *taken;

    if (script->taken_count == 0)
        return;
    taken = &script->taken[chance(script, script->taken_count)];
    part_each(taken->part, on_delivered, script);
    settle(script, taken);
}

static void bury_taken(struct script *script)
{
    struct taken *taken;

    if (script->taken_count == 0)
        return;
    taken = &script->taken[chance(script, script->taken_count)];
    if (dead_append(script->dead_path, &(struct dead_stamp){ .sink = SINK, .schema = "raw" }, &taken->part, 1, UINT64_MAX) == 0)
        settle(script, taken);
}

static void deliver_directly(struct script *script)
{
    if (script->next == script->count || script->waiting_count > 0 || !spool_is_empty(script->spool))
        return;
    disk_note(NOTE_DELIVERED, script->next, 0);
    told_safe(script, script->next++);
}

/* ---- Appending ---- */

static struct part *part_read(struct script *script)
{
    struct batch *batch = batch_new(&script->budget, PEN_AUDIT, 64, 0);
    uint32_t order = script->next;
    char text[MESSAGE_MAX];

    for (unsigned left = 1 + chance(script, 3); left > 0 && script->next < script->count; left--, script->next++) {
        struct batch_origin origin = { .stream = STREAM, .position = script->next, .ticks = script->next };

        batch_add(batch, text, message_write(text, script->next), &origin);
    }
    return part_new(NULL, batch, order, 0);
}

/* What may happen while an append is out. */
static void meanwhile(struct script *script)
{
    switch (chance(script, 5)) {
    case 0:
        deliver_taken(script);
        break;
    case 1:
        collect(script);
        break;
    case 2:
        save(script);
        break;
    }
}

/* The oldest segment goes. Which records those are is known only afterwards, and they may be gone before we know: so all that
 * may go is noted first, and what stayed is taken back. */
static void drop_oldest(struct script *script)
{
    uint64_t lost[2] = { 0 };
    uint32_t stay;

    /* Of what earlier lives left we do not know which records lie where. */
    if (!script->variant->drop_oldest || script->taken_count > 0 || spool_messages(script->spool, 1) > 0)
        return;
    for (uint32_t i = script->front_at; i < script->front_end; i++)
        disk_note(NOTE_DROPPED, script->front[i], script->front[i] + 1);
    spool_drop_oldest(script->spool, lost);
    stay = script->front_at + (uint32_t)(lost[0] + lost[1]);
    for (uint32_t i = stay; i < script->front_end; i++)
        disk_note(NOTE_KEPT, script->front[i], script->front[i] + 1);
    script->front_at = stay;
}

static void on_front(struct script *script, uint32_t record)
{
    script->front[script->front_end++] = record;
}

static void appended(struct script *script, struct part *part)
{
    for (uint32_t i = 0; i < part->lent.count; i++)
        told_safe(script, (uint32_t)part->lent.messages[i].position);
    batch_safe(part->batch, part->lent.count);
    if (part->keep) {
        script->taken[script->taken_count++] = (struct taken){ part, part->frame, true };
        return;
    }
    part_each(part, on_front, script);
    part_free(part);
}

static void append_group(struct script *script)
{
    struct spool_append *append;
    uint32_t wanted = 1 + chance(script, GROUP_MAX), taken, keep = 0;

    while (script->waiting_count < wanted && script->next < script->count)
        script->waiting[script->waiting_count++] = part_read(script);
    if (script->waiting_count == 0)
        return;
    if (spool_untaken(script->spool) == 0)
        keep = chance(script, script->waiting_count + 1);
    for (uint32_t i = 0; i < script->waiting_count; i++)
        script->waiting[i]->keep = i < keep && script->taken_count + i < TAKEN_MAX;
    append = spool_append_new(script->spool, script->waiting, script->waiting_count, &taken);
    if (append == NULL) {
        drop_oldest(script);
        return;
    }
    meanwhile(script);
    spool_append_run(append);
    meanwhile(script);
    if (spool_append_done(append) < 0)
        return;
    for (uint32_t i = 0; i < taken; i++)
        appended(script, script->waiting[i]);
    script->waiting_count -= taken;
    memmove(script->waiting, script->waiting + taken, script->waiting_count * sizeof(*script->waiting));
}

/* ---- Reading back ---- */

static void read_back(struct script *script)
{
    struct taken *taken = &script->taken[script->taken_count];
    struct spool_read *read;
    struct batch *batch;
    uint64_t order;

    if (script->taken_count == TAKEN_MAX)
        return;
    read = spool_read_new(script->spool);
    if (read == NULL)
        return;
    spool_read_run(read);
    meanwhile(script);
    taken = &script->taken[script->taken_count];
    batch = spool_read_done(read, &script->budget, &taken->frame, &order, &taken->own_life);
    if (batch == NULL)
        return;
    taken->part = part_new(NULL, batch, order, 0);
    script->taken_count++;
    for (uint32_t i = 0; taken->own_life && i < batch->count; i++)
        if (script->front_at < script->front_end && script->front[script->front_at] == batch->messages[i].position)
            script->front_at++;
}

/* ---- A life ---- */

static void on_cursor(void *arg, const struct cursor *cursor)
{
    struct script *script = arg;

    script->next = (uint32_t)cursor->position;
}

static bool script_open(struct script *script)
{
    struct spool_place place;
    struct spool_conf conf;
    struct pen_error err = { 0 };
    char path[192];

    snprintf(path, sizeof(path), "%s/state.db", script->dir);
    if (cursors_open(&script->cursors, path, &err) < 0)
        return false;
    if (cursors_each(script->cursors, SOURCE, on_cursor, script, &err) < 0 ||
        cursors_spool_place(script->cursors, SINK, &place, &err) < 0)
        return false;
    for (uint32_t n = 0; n < script->next; n++)
        script->safe[n] = true;
    snprintf(path, sizeof(path), "%s/spool/" SINK, script->dir);
    conf = variant_conf(script->variant, path, place);
    return spool_open(&script->spool, &conf, &err) == 0;
}

static void script_close(struct script *script)
{
    for (uint32_t i = 0; i < script->taken_count; i++)
        part_free(script->taken[i].part);
    for (uint32_t i = 0; i < script->waiting_count; i++)
        part_free(script->waiting[i]);
    assert(script->budget.held == 0);
    cursor_change_clear(&script->change);
    spool_close(script->spool);
    cursors_close(script->cursors);
    free(script);
}

static void act(struct script *script)
{
    switch (chance(script, 12)) {
    case 0: case 1: case 2: case 3:
        append_group(script);
        break;
    case 4: case 5: case 6:
        read_back(script);
        break;
    case 7: case 8:
        deliver_taken(script);
        break;
    case 9:
        deliver_directly(script);
        break;
    case 10:
        if (chance(script, 2) == 0)
            bury_taken(script);
        break;
    case 11:
        collect(script);
        if (chance(script, 2) == 0)
            save(script);
        break;
    }
}

/* Everything that is left comes to its end, as far as the disk lets it. */
static bool drained(struct script *script)
{
    for (unsigned tries = 0; tries < 20 * script->count + 1000; tries++) {
        bool empty = spool_is_empty(script->spool) && script->waiting_count == 0 && script->next == script->count;

        if (!empty) {
            append_group(script);
            read_back(script);
            deliver_taken(script);
            continue;
        }
        if (!save(script))
            continue;
        collect(script);
        if (save(script))                          /* a segment in which nothing was whole may lie there, set aside */
            return safe_prefix(script) == script->count && spool_is_empty(script->spool);
    }
    return false;
}

bool script_live(const char *dir, const struct variant *variant, unsigned seed, unsigned actions, uint32_t count, bool drain)
{
    struct script *script = calloc(1, sizeof(*script));
    bool good;

    assert(script != NULL && count <= RECORDS_MAX);
    script->variant = variant;
    script->seed = seed;
    script->count = count;
    snprintf(script->dir, sizeof(script->dir), "%s", dir);
    snprintf(script->dead_path, sizeof(script->dead_path), "%s/dead/" SINK ".jsonl", dir);
    good = script_open(script);
    for (unsigned i = 0; i < actions && good; i++)
        act(script);
    if (good && drain)
        good = drained(script);
    script_close(script);
    return good;
}
