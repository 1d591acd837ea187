/*
 * azure_find.c - what the azure-blob source finds, and when it lets go of it: the three walks (head of azure_blob.c).
 *
 * Walks only tell: they put blobs in turn (blob_ready) and places on the list, and start nothing. So a page may break in
 * its middle, and be told again.
 */
#include "daemon/source/azure_blob.h"

#include "daemon/base/log.h"
#include "daemon/record/window.h"
#include "daemon/source/azure_hours.h"

#include <stdlib.h>
#include <string.h>

#define SETTLE_MAX 1000              /* blobs looked at in one tick */
#define WALKS_MAX 8                  /* places walked at once */
#define WHOLE_MAX 4                  /* of them, those that may bring a backlog: the others must not wait for it */
#define READY_MAX 2000               /* blobs in turn above which no further page is asked for */
#define LOOSE_MAX 10000
#define DIRECT_MAX 8                 /* hours that are asked for one by one; more, and the folders are looked at */
#define WHOLE_EVERY 5                /* of so many walks, one looks at hours that are long over */
#define OVER_S (15 * 60)
#define LATE_S (24 * 3600)           /* how long after its hour a blob's own quiet counts */
#define SILENCE_PARTS 300            /* a place is asked every such part of the time that it has been silent */
#define VAIN_STEPS 100               /* of a discovery that has met blobs but no place */
#define PAGE 1000
#define SWEEP_PAGE 5000

/* ---- What listings say ----------------------------------------------------------------------------------------- */

/* Done with, as far as sweeps tell: see the head of this file. */
static bool sweep_covers(const struct blob_source *source, const char *name, int64_t modified, int64_t mark)
{
    return modified <= mark || (source->sweep_began > 0 && modified <= source->sweep_began &&
                                source->sweep_name != NULL && strcmp(name, source->sweep_name) <= 0);
}

static bool source_wants(const struct blob_source *source, const char *name)
{
    size_t i;

    for (i = 0; i < source->prefix.count; i++)
        if (strncmp(name, source->prefix.items[i], strlen(source->prefix.items[i])) == 0)
            break;
    return i < source->prefix.count || source->prefix.count == 0;
}

/* By its hours: something of a replay's window may lie there. */
static bool source_may_hold(const struct blob_source *source, const char *name)
{
    const struct window *window = source_window(source->host);

    return window == NULL || window_may_hold(window, name);
}

/* Names with such parts do not survive a URL. */
static bool name_is_usable(const char *name)
{
    for (;;) {
        size_t size = strcspn(name, "/");

        if (size > 0 && size <= 2 && strspn(name, ".") >= size)
            return false;
        if (name[size] == '\0')
            return true;
        name += size + 1;
    }
}

/* Its hour is over. What lies in no hour is an archive. */
static bool blob_is_over(const struct blob *blob)
{
    const struct blob_source *source = blob->place->source;

    return blob_is_loose(blob) || ((int64_t)blob->hour + 1) * 3600 + source->watch_ms / 1000 < storage_now(source->storage);
}

/* Its hour is over, and it has been quiet: what is left over at its end is torn. */
static bool blob_is_final(const struct blob *blob, const struct storage_blob *entry)
{
    int64_t now = storage_now(blob->place->source->storage), watch_s = blob->place->source->watch_ms / 1000;

    if (blob_is_loose(blob))
        return entry->modified + LATE_S < now;
    return ((int64_t)blob->hour + 1) * 3600 + watch_s < now && entry->modified + watch_s < now;
}

/* A blob that is known, as it is now. */
static void blob_listed(struct blob *blob, const struct storage_blob *entry)
{
    bool same = blob->end_etag != 0 && blob->end_etag == text_hash(entry->etag, strlen(entry->etag));

    blob->seen = blob->place->walks;
    if (blob->state != BLOB_IDLE || blob->anew)
        return;                      /* it is at work: the next listing will do */
    if (entry->modified < blob->modified)
        return;                      /* of two requests the later one was answered first, and has been read */
    if (same && !(blob->torn && blob_is_final(blob, entry)))
        return;
    if (!same && entry->modified > blob->place->newest)
        blob->place->newest = entry->modified;
    blob_ready(blob, entry, same || (blob->place->source->once && blob_is_over(blob)));
}

static void blob_found(struct place *place, const struct storage_blob *entry, int32_t hour, bool sweep)
{
    struct blob *blob = blob_new(place, entry->name, hour);

    if (entry->modified > place->newest)
        place->newest = entry->modified;
    blob->pending = sweep;
    place->source->sweep_pending += sweep;
    blob_ready(blob, entry, place->source->once && blob_is_over(blob));
}

static void source_archived(struct blob_source *source, const char *name)
{
    source_trouble(source->host);
    if (source_says(&source->archived))
        log_line(LOG_WARN, "blobs in the archive tier cannot be read: they are left out", "source", source_name(source->host),
                 "blob", name, "blobs", log_number(source->archived), NULL);
}

static void source_unusable(struct blob_source *source, const char *name)
{
    source_trouble(source->host);
    if (source_says(&source->unusable))
        log_line(LOG_WARN, "names with a part . or .. cannot be asked for: they are left out", "source", source_name(source->host),
                 "blob", name, "times", log_number(source->unusable), NULL);
}

static void source_listed(struct blob_source *source, const struct storage_blob *entry, bool sweep)
{
    size_t place_size = 0;
    int32_t hour = hours_of(entry->name, &place_size);
    struct place *place = &source->loose;
    struct blob *blob;

    if (entry->kind == STORAGE_OTHER || !source_wants(source, entry->name) || !source_may_hold(source, entry->name))
        return;
    if (!name_is_usable(entry->name)) {
        source_unusable(source, entry->name);
        return;
    }
    if (hour != HOURS_NONE) {
        place = place_meet(source, entry->name, place_size);
        place->appends |= entry->kind == STORAGE_APPEND;
        if (sweep && hour >= place->next)
            return;                  /* its own walk sees to it */
    }
    blob = blob_find(source, entry->name);
    if (blob != NULL) {
        blob_listed(blob, entry);
        return;
    }
    if (hour == HOURS_NONE) {
        source->loose_seen = true;
        if (!sweep || entry->modified < source->since_s || sweep_covers(source, entry->name, entry->modified, source->loose_mark))
            return;
    } else if (hour < place->next) {
        int64_t expected = ((int64_t)hour + 1) * 3600 + source->watch_ms / 1000;

        if (!sweep || hour < hours_at(source->since_s) || entry->modified <= expected ||
            sweep_covers(source, entry->name, entry->modified, source->late_mark))
            return;
    }
    if (entry->archived)
        source_archived(source, entry->name);
    else
        blob_found(place, entry, hour, sweep);
}

bool find_has_room(const struct blob_source *source)
{
    return source->ready_count < READY_MAX;
}

bool find_wants(const struct blob_source *source, const char *name)
{
    return *name != '\0' && source_wants(source, name) && name_is_usable(name);
}

bool find_hint(struct blob_source *source, const struct storage_blob *entry)
{
    const struct blob *blob = blob_find(source, entry->name);

    if (blob != NULL && (blob->anew || (blob->state != BLOB_IDLE && strcmp(blob->want->etag, entry->etag) != 0)))
        return false;
    source_listed(source, entry, false);
    return true;
}

/* ---- Letting go ------------------------------------------------------------------------------------------------ */

static bool blob_is_finished(const struct blob *blob)
{
    return blob->state == BLOB_IDLE && blob->stream == NULL && blob->end_etag != 0 && !blob->torn && !blob->failed && !blob->anew;
}

/* May it still grow, as of that time? */
static bool blob_is_warm(const struct blob *blob, int64_t as_of)
{
    return blob->modified + blob->place->source->watch_ms / 1000 > as_of && ((int64_t)blob->hour + 1) * 3600 + LATE_S > as_of;
}

/* Some hours in a row; of many places that miss some, few are named. */
static void place_say_missing(const struct place *place, int32_t from, int32_t count)
{
    struct blob_source *source = place->source;
    struct buf hour = { 0 };

    source->hours_missing += (uint64_t)count;
    if (from == place->next && (place->past & 1) == 0)
        return;                      /* they go on where the last ones ended, of which something was said */
    if (!source_says(&source->gaps))
        return;
    hours_prefix(&hour, "", 0, from);
    buf_char(&hour, '\0');
    log_line(LOG_WARN, "no blob was written in hours where one was expected: look whether the resource still is, and its logging on",
             "source", source_name(source->host), "prefix", place->prefix, "from", hour.data, "hours",
             log_number((uint64_t)count), "gaps", log_number(source->gaps), NULL);
    buf_free(&hour);
}

/* Which of the hours from `next` to here had none? Each is judged once: as `next` passes it. */
static void place_judge_hours(struct place *place, int32_t end)
{
    int32_t from = place->next, missing = 0;
    uint32_t past = place->past;
    const struct blob *blob;
    bool *had;

    if (past == 0) {                 /* years may lie before the first */
        from = end;
        LIST_FOREACH(blob, &place->blobs, entry)
            if (blob->hour >= place->next && blob->hour < from)
                from = blob->hour;
    }
    had = calloc((size_t)(end - from) + 1, sizeof *had);
    if (had == NULL)
        abort();
    LIST_FOREACH(blob, &place->blobs, entry)
        if (blob->hour >= from && blob->hour < end)
            had[blob->hour - from] = true;
    for (int32_t hour = from; hour <= end; hour++) {
        if (hour < end && hours_miss(&past, had[hour - from])) {
            missing++;
        } else if (missing > 0) {
            place_say_missing(place, hour - missing, missing);
            missing = 0;
        }
    }
    free(had);
    place->past = past;
}

/* Moves `next` over the hours that are done with. */
static void place_advance(struct place *place)
{
    int64_t over = place->walk_began - place->source->watch_ms / 1000;
    int32_t next = over > 0 ? hours_at(over) : 0;
    struct blob *blob, *after;

    place->dirty = false;
    if (place->listed_to < next)
        next = place->listed_to;
    LIST_FOREACH(blob, &place->blobs, entry)
        if (blob->hour >= place->next && blob->hour < next && (!blob_is_finished(blob) || blob_is_warm(blob, place->walk_began)))
            next = blob->hour;
    if (next <= place->next)
        return;
    if (!place->source->once && source_wants(place->source, place->prefix))    /* else `prefix` leaves some of it out */
        place_judge_hours(place, next);
    for (blob = LIST_FIRST(&place->blobs); blob != NULL; blob = after) {
        after = LIST_NEXT(blob, entry);
        if (blob->hour >= place->next && blob->hour < next)
            blob_forget(blob);
    }
    place->next = next;
    place_save(place);
}

/* What is safe needs no stream any more. */
static void source_settle(struct blob_source *source)
{
    struct blob *blob;

    for (unsigned i = 0; i < SETTLE_MAX && (blob = TAILQ_FIRST(&source->settling)) != NULL; i++) {
        TAILQ_REMOVE(&source->settling, blob, turn);
        if (!stream_is_safe(blob->stream, &blob->position, &blob->word)) {
            TAILQ_INSERT_TAIL(&source->settling, blob, turn);
            continue;
        }
        stream_close(blob->stream, false);
        blob->stream = NULL;
        source->stream_count--;
        if (blob->anew)
            blob_reset(blob);
        blob->place->dirty = true;
    }
}

/* ---- The walk of a place --------------------------------------------------------------------------------------- */

static void on_place_blob(void *arg, const struct storage_blob *entry)
{
    struct place *place = arg;
    size_t size = 0;
    int32_t hour = hours_of(entry->name, &size);

    source_listed(place->source, entry, false);
    if (hour != HOURS_NONE && hour > place->listed_to && size == place->prefix_size)
        place->listed_to = hour;     /* all before it were listed */
}

static enum walk_choice on_place_folder(void *arg, const char *folder)
{
    struct place *place = arg;
    const struct window *window = source_window(place->source->host);

    if (!source_may_hold(place->source, folder))
        return WALK_SKIP;
    switch (hours_part(folder, place->prefix_size, place->next)) {
    case HOURS_BEFORE:
        return WALK_SKIP;
    case HOURS_STRADDLES:
        return WALK_INTO;
    case HOURS_WHOLE:
        break;
    }
    return window == NULL || window_ends_after(window, folder) ? WALK_ALL : WALK_INTO;
}

/* A blob that its whole walk did not see is no more. */
static void place_walked(struct place *place)
{
    struct blob *blob;

    LIST_FOREACH(blob, &place->blobs, entry)
        if (blob->hour >= place->next && blob->seen != place->walks && blob->state == BLOB_IDLE && !blob->anew) {
            find_note_missing(blob);
            blob->end_etag = 1;
            blob->torn = blob->failed = false;
        }
    place->listed_to = INT32_MAX;
    place_advance(place);
}

/* What is written into it comes as a notice; and listings are for what does not. */
static bool place_is_told(const struct place *place)
{
    return notices_come(place->source->notices) && !place->appends;
}

static uint64_t place_interval_ms(const struct place *place)
{
    const struct blob_source *source = place->source;
    int64_t silent_ms = (storage_now(source->storage) - place->newest) * 1000 / SILENCE_PARTS;
    uint64_t most = source->rescan_ms > source->poll_ms ? source->rescan_ms : source->poll_ms;

    if (place_is_told(place))
        return most;
    if (silent_ms < (int64_t)source->poll_ms)
        return source->poll_ms;
    return (uint64_t)silent_ms < most ? (uint64_t)silent_ms : most;
}

static void on_place_step(void *arg, const struct storage_answer *answer)
{
    struct place *place = arg;

    source_heard(place->source, answer, true);
    if (answer->verdict != STORAGE_OK || !walk_is_done(&place->walk)) {
        place->dirty = true;
        return;
    }
    walk_drop(&place->walk);         /* its memory: there may be thousands */
    TAILQ_REMOVE(&place->source->walked, place, turn);
    place->source->walking--;
    place->source->walking_whole -= place->whole;
    place->state = PLACE_RESTING;
    place->due_ms = place->source->once ? UINT64_MAX : source_now_ms(place->source->host) + place_interval_ms(place);
    if (place->whole)
        place_walked(place);
}

static const struct walk_events place_events = { on_place_blob, on_place_folder, on_place_step };

static void place_walk(struct place *place)
{
    struct blob_source *source = place->source;
    int64_t now = storage_now(source->storage);
    int32_t hour, current = hours_at(now);
    struct buf prefix = { 0 };

    walk_init(&place->walk, source->storage, PAGE, &place_events, place);
    place->state = PLACE_WALKING;
    TAILQ_INSERT_TAIL(&source->walked, place, turn);
    source->walking++;
    source->walking_whole += place->whole;
    place->walks++;
    if (place->whole) {
        place->walk_began = now;
        place->listed_to = place->next;
    }
    if (place->next == 0 && source_window(source->host) == NULL) {
        buf_text(&prefix, "%sy=", place->prefix);
        walk_add(&place->walk, prefix.data, prefix.size, false);
    } else if (current - place->next >= DIRECT_MAX || current < place->next) {
        walk_add(&place->walk, place->prefix, place->prefix_size, true);
    } else {
        for (hour = current; hour >= place->next; hour--) {
            if (!place->whole && ((int64_t)hour + 1) * 3600 + OVER_S < now)
                continue;
            prefix.size = 0;
            hours_prefix(&prefix, place->prefix, place->prefix_size, hour);
            walk_add(&place->walk, prefix.data, prefix.size, false);
        }
    }
    buf_free(&prefix);
}

/* ---- Discovering ----------------------------------------------------------------------------------------------- */

static void on_discovered_blob(void *arg, const struct storage_blob *entry)
{
    source_listed(arg, entry, false);
}

static enum walk_choice on_discovered_folder(void *arg, const char *folder)
{
    struct blob_source *source = arg;
    size_t size;

    if (!hours_place(folder, &size))
        return WALK_INTO;
    place_meet(source, folder, size);
    return WALK_SKIP;
}

/* A place whose folder has gone is not asked for any more. */
static void source_forget_places(struct blob_source *source)
{
    struct place *place, *after;

    for (place = LIST_FIRST(&source->places); place != NULL; place = after) {
        after = LIST_NEXT(place, entry);
        if (place->seen == source->discovers || place->state == PLACE_WALKING || !LIST_EMPTY(&place->blobs))
            continue;
        place_forget(place);
    }
}

static void on_discovered_step(void *arg, const struct storage_answer *answer)
{
    struct blob_source *source = arg;

    source_heard(source, answer, true);
    if (answer->verdict == STORAGE_OK && ++source->discover_steps > VAIN_STEPS && source->loose_seen && source->place_count == 0) {
        source->discovering = false;                               /* there are none, or a sweep meets them sooner */
        source->discover_due_ms = UINT64_MAX;
        walk_drop(&source->discover);
        return;
    }
    if (answer->verdict != STORAGE_OK || !walk_is_done(&source->discover))
        return;
    source->discovering = false;
    source->discover_due_ms = source->once ? UINT64_MAX : source_now_ms(source->host) + source->rescan_ms;
    source_forget_places(source);
    if (source->place_count == 0 && !source->loose_seen && source->discovers == 1)
        log_line(LOG_NOTE, "nothing is in the container yet, or nothing under `prefix`; what comes will be read", "source",
                 source_name(source->host), NULL);
}

static const struct walk_events discover_events = { on_discovered_blob, on_discovered_folder, on_discovered_step };

static void source_walk_prefixes(const struct blob_source *source, struct walk *walk, bool folders)
{
    for (size_t i = source->prefix.count; i-- > 0;)
        walk_add(walk, source->prefixes[i], strlen(source->prefixes[i]), folders);
    if (source->prefix.count == 0)
        walk_add(walk, "", 0, folders);
}

static void source_discover(struct blob_source *source)
{
    source->discovering = true;
    source->discovers++;
    source->discover_steps = 0;
    source_walk_prefixes(source, &source->discover, true);
}

/* ---- Sweeping -------------------------------------------------------------------------------------------------- */

static void on_swept_blob(void *arg, const struct storage_blob *entry)
{
    struct blob_source *source = arg;

    source_listed(source, entry, true);
    free(source->sweep_page_last);
    source->sweep_page_last = strdup(entry->name);
}

static int time_compare(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;

    return left < right ? -1 : left > right;
}

/* The time before which enough of what lies in no place was modified to be let go. */
static int64_t loose_cut(struct blob_source *source)
{
    int64_t *times, cut;
    unsigned count = 0;
    struct blob *blob;

    if (source->loose_count <= LOOSE_MAX)
        return 0;
    times = malloc(source->loose_count * sizeof *times);
    if (times == NULL)
        abort();
    LIST_FOREACH(blob, &source->loose.blobs, entry)
        times[count++] = blob->modified;
    qsort(times, count, sizeof *times, time_compare);
    cut = times[count - LOOSE_MAX];
    free(times);
    return cut;
}

/* Of what lies in no place, only the last modified are kept; and none that is no more. */
static void loose_let_go(struct blob_source *source, bool swept)
{
    int64_t cut = loose_cut(source), mark;
    struct blob *blob, *after;

    for (blob = LIST_FIRST(&source->loose.blobs); blob != NULL; blob = after) {
        after = LIST_NEXT(blob, entry);
        /* One that this sweep has met lies before the name that it has reached. */
        mark = blob->seen == source->loose.walks ? source->sweep_began : source->loose_mark;
        if (swept && blob->seen != source->loose.walks && blob->state == BLOB_IDLE && blob->stream == NULL) {
            find_note_missing(blob);
            blob_forget(blob);
        } else if (blob_is_finished(blob) && blob->modified < cut && blob->modified <= mark) {
            blob_forget(blob);
        }
    }
}

static void stragglers_let_go(struct blob_source *source)
{
    struct blob *blob, *after;
    struct place *place;

    LIST_FOREACH(place, &source->places, entry)
        for (blob = LIST_FIRST(&place->blobs); blob != NULL; blob = after) {
            after = LIST_NEXT(blob, entry);
            if (blob->hour < place->next && blob_is_finished(blob) && blob->modified <= source->late_mark)
                blob_forget(blob);
        }
}

/* By the last sweep's mark, so that restarts do not put it off. */
static uint64_t source_sweep_due(const struct blob_source *source)
{
    int64_t since_ms = (storage_now(source->storage) - source->late_mark) * 1000;
    uint64_t now_ms = source_now_ms(source->host);

    if (source->relist_ms == 0 || source->once)
        return UINT64_MAX;
    if (!source->begun)
        return now_ms + source->relist_ms;
    return since_ms >= (int64_t)source->relist_ms || since_ms < 0 ? now_ms : now_ms + source->relist_ms - (uint64_t)since_ms;
}

static void source_swept(struct blob_source *source)
{
    uint64_t now_ms = source_now_ms(source->host), took_ms = now_ms - source->sweep_started_ms;

    source->sweeping = false;
    loose_let_go(source, true);
    source->late_mark = source->loose_mark = source->sweep_began;
    source->sweep_began = 0;
    free(source->sweep_name);
    source->sweep_name = NULL;
    stragglers_let_go(source);
    source_save(source);
    if (source->loose_seen && !source->once)
        source->sweep_due_ms = now_ms + (took_ms * 10 > source->poll_ms ? took_ms * 10 : source->poll_ms);
    else
        source->sweep_due_ms = source_sweep_due(source);
}

/* The page's blobs have rows now, or need none: what lies before its last name is dealt with. */
static void sweep_note_page(struct blob_source *source)
{
    if (!source->sweep_page || source->sweep_pending > 0)
        return;
    source->sweep_page = false;
    if (source->sweep_page_last != NULL && (source->sweep_name == NULL || strcmp(source->sweep_page_last, source->sweep_name) > 0)) {
        free(source->sweep_name);
        source->sweep_name = source->sweep_page_last;
        source->sweep_page_last = NULL;
    }
    if (walk_is_done(&source->sweep)) {
        source_swept(source);
        return;
    }
    if (source->loose_count > LOOSE_MAX + LOOSE_MAX / 4)
        loose_let_go(source, false);
    source_save(source);
}

static void on_swept_step(void *arg, const struct storage_answer *answer)
{
    struct blob_source *source = arg;

    source_heard(source, answer, true);
    if (answer->verdict != STORAGE_OK)
        return;
    source->sweep_page = true;
    sweep_note_page(source);
}

static const struct walk_events sweep_events = { on_swept_blob, NULL, on_swept_step };

static void source_sweep(struct blob_source *source)
{
    source->sweeping = true;
    source->loose.walks++;
    source->sweep_started_ms = source_now_ms(source->host);
    if (source->sweep_began == 0)    /* else an earlier life began it, and what it has read is done with */
        source->sweep_began = storage_now(source->storage) - MARK_S;
    source_walk_prefixes(source, &source->sweep, false);
}

/* ---- Turns ----------------------------------------------------------------------------------------------------- */

static void source_note_loose(struct blob_source *source)
{
    if (!source->loose_seen || source->loose_said)
        return;
    source->loose_said = true;
    source->sweep_due_ms = 0;
    log_line(LOG_NOTE, "blobs lie outside of y=/m=/d=/h= folders: all names are listed to find what is new; `prefix` can leave them "
             "out", "source", source_name(source->host), NULL);
}

/* One step of each walk whose turn it is. */
void find_turn(struct blob_source *source)
{
    uint64_t now_ms = source_now_ms(source->host);
    struct place *place;

    source_note_loose(source);
    if (!source->discovering && now_ms >= source->discover_due_ms)
        source_discover(source);
    if (source->discovering && !walk_is_under_way(&source->discover))
        walk_step(&source->discover);
    if (!source->sweeping && source->begun && storage_has_time(source->storage) && now_ms >= source->sweep_due_ms &&
        source->sweep_due_ms != UINT64_MAX)
        source_sweep(source);
    if (source->sweeping && !source->sweep_page && !walk_is_under_way(&source->sweep) && find_has_room(source))
        walk_step(&source->sweep);
    while (source->walking < WALKS_MAX && source->walking_whole < WHOLE_MAX && (place = TAILQ_FIRST(&source->due_whole)) != NULL) {
        TAILQ_REMOVE(&source->due_whole, place, turn);
        place_walk(place);
    }
    while (source->walking < WALKS_MAX && (place = TAILQ_FIRST(&source->due)) != NULL) {
        TAILQ_REMOVE(&source->due, place, turn);
        place_walk(place);
    }
    TAILQ_FOREACH(place, &source->walked, turn)
        if (!walk_is_under_way(&place->walk) && (find_has_room(source) || !place->whole))
            walk_step(&place->walk);
}

static void place_fall_due(struct place *place)
{
    struct blob_source *source = place->source;

    place->state = PLACE_DUE;
    place->whole = source->once || place->walks % WHOLE_EVERY == 0 || place_is_told(place) || hours_at(storage_now(source->storage)) - place->next >= DIRECT_MAX;
    TAILQ_INSERT_TAIL(place->whole ? &source->due_whole : &source->due, place, turn);
}

/* Places whose time has come wait for their turn; those that had something settled may let go. */
void find_tick(struct blob_source *source)
{
    uint64_t now_ms = source_now_ms(source->host);
    struct place *place;

    source_settle(source);
    sweep_note_page(source);
    if (!storage_has_time(source->storage))
        return;                      /* when hours are over is the service's clock to tell; the first discovery asks it */
    book_begin(source);
    LIST_FOREACH(place, &source->places, entry) {
        if (place->dirty)
            place_advance(place);
        if (place->state == PLACE_RESTING && now_ms >= place->due_ms)
            place_fall_due(place);
    }
    if (source->once)
        find_again(source);
}

void find_hurry(struct blob_source *source)
{
    uint64_t soon_ms = source_now_ms(source->host) + source->poll_ms;
    struct place *place;

    LIST_FOREACH(place, &source->places, entry)
        if (place->due_ms > soon_ms)
            place->due_ms = soon_ms;
}

void find_start(struct blob_source *source)
{
    walk_init(&source->discover, source->storage, PAGE, &discover_events, source);
    walk_init(&source->sweep, source->storage, SWEEP_PAGE, &sweep_events, source);
    source->loose_seen = source->loose_count > 0;
    source->sweep_due_ms = source->loose_seen || source->sweep_began > 0 ? 0 : source_sweep_due(source);
}

void find_stop(struct blob_source *source)
{
    struct place *place;

    walk_drop(&source->discover);
    walk_drop(&source->sweep);
    LIST_FOREACH(place, &source->places, entry)
        walk_drop(&place->walk);
    free(source->sweep_page_last);
    source->sweep_page_last = NULL;
}
