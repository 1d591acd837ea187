/*
 * file_turn.c - whose turn it is: the states of a file as file.c draws them, and how long one waits.
 *
 * Files that can be read stand in two queues, those that are open and those that must be opened first; both move on, and the
 * second only while there is room for another fd. No more than BUSY_MAX chunks are at work at once. A file that was rotated
 * away, lost or found short is looked at again as time passes.
 */
#include "daemon/source/file.h"

#include <assert.h>

/* ---- From state to state --------------------------------------------------------------------------------------- */

void file_ready(struct file *file)
{
    struct source_file *source = file->source;

    assert(file->state != FILE_READY);
    if (file->state == FILE_IDLE && file->reader != NULL)
        TAILQ_REMOVE(&source->open_idle, file, turn);
    file->state = FILE_READY;
    if (file->reader != NULL)
        TAILQ_INSERT_TAIL(&source->ready_open, file, turn);
    else
        TAILQ_INSERT_TAIL(&source->ready_closed, file, turn);
    file_source_kick(source);
}

void file_check(struct file *file)
{
    if (file->state == FILE_READING || file->state == FILE_OUT)
        file->again = true;
    else
        file->dirty = true;
    if (file->state == FILE_IDLE)
        file_ready(file);
}

void file_close_reader(struct file *file)
{
    struct source_file *source = file->source;

    if (file->reader == NULL)
        return;
    if (file->state == FILE_IDLE)
        TAILQ_REMOVE(&source->open_idle, file, turn);
    reader_close(file->reader);
    file->reader = NULL;
    source->open_count--;
}

void file_drop_chunk(struct file *file)
{
    if (file->chunk != NULL)
        chunk_drop(file->source->host, file->chunk);
    file->chunk = NULL;
}

/* The next archive that waits may try: it parks again if no place is free after all. */
static void source_unpark(struct source_file *source)
{
    struct file *file = TAILQ_FIRST(&source->parked);

    if (file == NULL || source->packed_count >= PACKED_MAX)
        return;
    TAILQ_REMOVE(&source->parked, file, turn);
    file_ready(file);
}

void file_park(struct file *file)
{
    file_drop_chunk(file);
    file_close_reader(file);
    file->state = FILE_PARKED;
    TAILQ_INSERT_TAIL(&file->source->parked, file, turn);
}

void file_idle(struct file *file)
{
    struct source_file *source = file->source;
    bool again = file->again;

    file_drop_chunk(file);
    source->packed_count -= file->packed;
    file->packed = false;
    source_unpark(source);
    file->state = FILE_IDLE;
    file->again = false;
    /* An archive read again must be unpacked from its start in any case. */
    if (file->reader != NULL) {
        TAILQ_INSERT_TAIL(&source->open_idle, file, turn);
        if (reader_is_packed(file->reader) && !file->lost)
            file_close_reader(file);
    }
    if (again)
        file_check(file);
    file_source_kick(source);
}

/* ---- Turns ----------------------------------------------------------------------------------------------------- */

/* Makes room for another open file: the one idle for longest is closed. One that could never be opened again is finished
 * first, which takes a turn. */
static void source_close_one(struct source_file *source)
{
    struct file *file;

    TAILQ_FOREACH(file, &source->open_idle, turn)
        if (!file->lost) {
            file_close_reader(file);
            return;
        }
    file = TAILQ_FIRST(&source->open_idle);
    if (file != NULL) {
        file->final = true;
        file_check(file);
    }
}

/* Files that are open and files that must be opened take turns; the latter only while there is room. */
static struct file *source_next(struct source_file *source)
{
    struct file *open = TAILQ_FIRST(&source->ready_open), *closed = TAILQ_FIRST(&source->ready_closed);

    if (closed != NULL && source->open_count >= source->open_max) {
        source_close_one(source);
        open = TAILQ_FIRST(&source->ready_open);
        if (source->open_count >= source->open_max)
            closed = NULL;
    }
    source->closed_next = !source->closed_next;
    return open == NULL || (closed != NULL && source->closed_next) ? closed : open;
}

static void source_note_drained(struct source_file *source)
{
    if (!source_is_once(source->host) || source->drained || !source->swept || source->busy > 0 ||
        !TAILQ_EMPTY(&source->ready_open) || !TAILQ_EMPTY(&source->ready_closed) || !TAILQ_EMPTY(&source->parked))
        return;
    source->drained = true;
    source_drained(source->host);
}

static void on_turn(uv_timer_t *timer)
{
    struct source_file *source = timer->data;
    struct file *file;

    if (source->closing)
        return;
    while (source->busy < BUSY_MAX && flow_is_open(source->host) && (file = source_next(source)) != NULL) {
        if (file->reader != NULL)
            TAILQ_REMOVE(&source->ready_open, file, turn);
        else
            TAILQ_REMOVE(&source->ready_closed, file, turn);
        file_read(file);
    }
    source_note_drained(source);
}

void file_source_kick(struct source_file *source)
{
    if (!source->closing && !uv_is_active((uv_handle_t *)&source->turn))
        uv_timer_start(&source->turn, on_turn, 0, 0);
}

/* ---- Waiting --------------------------------------------------------------------------------------------------- */

static void file_tick(struct file *file, uint64_t now_ms)
{
    if (file->state != FILE_IDLE)
        return;
    if (file->leaving && !file->is_short && now_ms - file->quiet_ms >= file->source->final_after_ms)
        file->final = true;
    if (file->lost || file->is_short || file->final)
        file_check(file);
}

static void on_tick(uv_timer_t *timer)
{
    struct source_file *source = timer->data;
    struct file *file, *next;

    if (source->closing)
        return;
    for (file = TAILQ_FIRST(&source->waiting); file != NULL; file = next) {
        next = TAILQ_NEXT(file, wait);
        if (file->leaving || file->is_short) {
            file_tick(file, source_now_ms(source->host));
        } else {
            TAILQ_REMOVE(&source->waiting, file, wait);
            file->waiting = false;
        }
    }
    if (TAILQ_EMPTY(&source->waiting))
        uv_timer_stop(&source->tick);
}

void file_wait(struct file *file)
{
    struct source_file *source = file->source;
    uint64_t tick_ms = source->final_after_ms < 4000 ? source->final_after_ms / 4 + 1 : 1000;

    if (file->waiting)
        return;
    file->waiting = true;
    TAILQ_INSERT_TAIL(&source->waiting, file, wait);
    if (!uv_is_active((uv_handle_t *)&source->tick))
        uv_timer_start(&source->tick, on_tick, tick_ms, tick_ms);
}
