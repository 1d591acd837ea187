/*
 * azure_reader.c - one blob, read from its position to its end.
 *
 *                 ┌───────────────── more to read ──────────────────┐
 *                 ▼                                                 │
 *   READY ──▶ READING ──(archive)──▶ UNPACKING ──▶ OUT (pipeline) ──┴── at its end ──▶ IDLE
 *                 │  ▲
 *                 └──┘ it changed meanwhile: ask what it is now
 *
 * Each byte is fetched once. What the framer leaves of a chunk is put before the next range. At the blob's end the rest is
 * dropped, and fetched again when the blob has grown: the two bytes of a PT1H.json that change with every commit.
 *
 * Block blobs are read under If-Match, since a commit may change the tail in the middle of a reading. Append blobs only
 * grow, many times a minute perhaps: they are read as they are. Whether it is still the blob that we knew, neither size nor
 * creation time tells: a list of blocks committed over it may be a growth or all new. So the 64 bytes before the position
 * are fetched along with the first range of a reading, and compared; those of an archive as it is unpacked up to there. If
 * they differ, it is read from its start.
 */
#include "daemon/source/azure_blob.h"

#include "daemon/base/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define STALE_MAX 5
/* Tries of one blob in a row that brought nothing: from so many on others go first; and more, while others are read, are a
 * trouble of its own. What is refused will be again; what is busy passes, and a replay asks but once. */
#define VAIN_BEHIND 3
#define VAIN_REFUSED 3
#define VAIN_BUSY 8
#define PACKED_BYTES (256 * 1024)    /* of an archive, fetched at once */
#define SKIP_BYTES (16 * 1024 * 1024)    /* unpacked and passed over in one job */

struct unpack_job {
    uv_work_t work;
    struct blob *blob;
    size_t had;                      /* bytes in the chunk before */
    ssize_t result;
    struct pen_error err;
};

static void blob_go(struct blob *blob);

uint64_t blob_position(const struct blob *blob)
{
    return blob->stream != NULL ? stream_position(blob->stream) : blob->position;
}

static void blob_log(const struct blob *blob, enum log_level level, const char *msg, const char *error)
{
    log_line(level, msg, "source", source_name(blob->place->source->host), "blob", blob->want->name, "position",
             log_number(blob_position(blob)), error != NULL ? "error" : NULL, error, NULL);
}

static void drop_chunk(struct blob *blob, struct chunk **chunk)
{
    if (*chunk != NULL)
        chunk_drop(blob->place->source->host, *chunk);
    *chunk = NULL;
}

void blob_want_free(struct blob *blob)
{
    struct want *want = blob->want;

    if (want == NULL)
        return;
    assert(want->request == NULL);
    drop_chunk(blob, &want->chunk);
    drop_chunk(blob, &want->packed);
    unpack_free(want->unpack);
    free(want->name);
    free(want);
    blob->want = NULL;
}

/* ---- Ends ------------------------------------------------------------------------------------------------------ */

static bool rest_is_torn(const char *rest, size_t size)
{
    for (; size > 0; rest++, size--)
        if (strchr("]} \t\r\n", *rest) == NULL || *rest == '\0')
            return true;
    return false;
}

static void blob_done(struct blob *blob)
{
    if (blob->pending && blob->end_etag == 0)      /* a sweep goes on behind it only if it is known from then on */
        blob_save(blob);
    blob_want_free(blob);
    blob_rest(blob);
}

/* In a replay nothing more will come of it. It is no end that the row may know: whoever tries again should hear of it again. */
static void blob_note_cut(struct blob *blob)
{
    if (!blob->want->damaged) {
        blob_log(blob, LOG_WARN, "an archive ends in its middle: it is read up to there", NULL);
        source_trouble(blob->place->source->host);
    }
    blob->end_etag = 0;
    blob->failed = true;
}

/* All of it was offered: it is as the ETag says until that changes. */
static void blob_ended(struct blob *blob, const char *rest, size_t size)
{
    struct want *want = blob->want;

    blob->torn = rest_is_torn(rest, size) && !want->final;
    blob->end_etag = want->etag[0] != '\0' ? text_hash(want->etag, strlen(want->etag)) : 0;
    blob->end_size = want->size;
    blob->modified = want->modified;
    blob->created = want->created;
    blob->failed = false;
    if (blob->place->source->once && want->unpack != NULL && !unpack_complete(want->unpack))
        blob_note_cut(blob);
    if (blob->stream != NULL)
        blob_save(blob);
    blob_done(blob);
}

/* Its old bytes may not be safe yet, so it is not begun before they are: the next listing brings it again. */
static void blob_begin_anew(struct blob *blob)
{
    if (source_says(&blob->place->source->renewed))
        blob_log(blob, LOG_NOTE, "blob was written anew: reading it from its start", NULL);
    blob->anew = true;
    blob_done(blob);
}

static void blob_fail(struct blob *blob, const char *why)
{
    if (!blob->failed) {
        if (source_says(&blob->place->source->locked))
            blob_log(blob, LOG_WARN, "cannot read a blob: tried again with every listing", why);
        source_trouble(blob->place->source->host);
    }
    blob->failed = true;
    blob_done(blob);
}

/* A key of its own that is gone, a condition of our role, a fault of the service: what cannot be read while others can is no
 * trouble of the container's, and holds nobody. False: who knows; what the answer says of the container is noted. */
static bool blob_fails_alone(struct blob *blob, const struct storage_answer *answer)
{
    struct blob_source *source = blob->place->source;
    struct want *want = blob->want;

    if (answer->verdict == STORAGE_OK) {
        source->reads++;
        want->vain = 0;
    } else if (answer->verdict == STORAGE_BUSY || answer->verdict == STORAGE_REFUSED) {
        if (want->vain++ == 0)
            want->reads = source->reads;
        if (blob->failed || (want->vain > (answer->verdict == STORAGE_BUSY ? VAIN_BUSY : VAIN_REFUSED) &&
                             want->reads != source->reads))
            return true;
    }
    source_heard(source, answer, false);
    return false;
}

/* ---- Reading --------------------------------------------------------------------------------------------------- */

/* From the position, with what must be compared before it. */
static void want_begin(struct blob *blob)
{
    struct want *want = blob->want;

    drop_chunk(blob, &want->chunk);
    drop_chunk(blob, &want->packed);
    unpack_free(want->unpack);
    want->unpack = NULL;
    want->starved = want->fresh = false;
    want->tail = 0;
    want->fetched = blob->packed ? 0 : blob_position(blob);
    want->skip = blob->packed ? blob_position(blob) : 0;
    want->begun = true;
}

/* Is it still the blob whose bytes we have? What cannot be told is fetched along. False: it was begun anew. */
static bool blob_recognize(struct blob *blob)
{
    struct want *want = blob->want;
    uint64_t position = blob_position(blob);
    bool created = want->created != blob->created && blob->created != 0;

    want->check = 0;
    if (position == 0)
        return true;
    if (blob->packed) {              /* positions are of what was unpacked: they tell nothing here */
        if (created || want->size < blob->end_size)
            blob_begin_anew(blob);
        return !blob->anew;
    }
    if (want->size < position || (created && (blob->print.size == 0 || blob->print.at != position))) {
        blob_begin_anew(blob);
        return false;
    }
    if (!want->proved && blob->print.at == position)
        want->check = blob->print.size;
    return true;
}

/* Back in turn; after tries in vain behind the others, and then it holds nothing while it waits. */
static void blob_try_later(struct blob *blob)
{
    bool first = blob->want->vain < VAIN_BEHIND;

    if (!first)
        want_begin(blob);
    blob_wait(blob, first);
}

static void on_asked(void *arg, const struct storage_answer *answer);

/* It is not what the listing said any more. */
static void blob_ask(struct blob *blob)
{
    struct blob_source *source = blob->place->source;

    if (++blob->want->stale > STALE_MAX || source->closing) {
        blob_done(blob);             /* it changes faster than we can ask: the next listing tells */
        return;
    }
    blob->state = BLOB_READING;
    blob->want->request = storage_head(source->storage, blob->want->name, on_asked, blob);
}

static void on_asked(void *arg, const struct storage_answer *answer)
{
    struct blob *blob = arg;
    struct want *want = blob->want;

    want->request = NULL;
    if (blob_fails_alone(blob, answer)) {
        blob_fail(blob, answer->why);
        return;
    }
    switch (answer->verdict) {
    case STORAGE_OK:
        strcpy(want->etag, answer->blob.etag);
        want->size = answer->blob.size;
        want->modified = answer->blob.modified;
        want->created = answer->blob.created;
        want->kind = answer->blob.kind;
        want->proved = false;
        if (!blob_recognize(blob))
            return;
        want_begin(blob);
        blob_go(blob);
        return;
    case STORAGE_GONE:
        blob_vanish(blob);
        return;
    case STORAGE_LOCKED:
        blob_fail(blob, answer->why);
        return;
    case STORAGE_CHANGED:
    case STORAGE_BEYOND:
    case STORAGE_BUSY:
    case STORAGE_REFUSED:
        want->etag[0] = '\0';        /* what it was is not what it is: ask again */
        blob_try_later(blob);
        return;
    }
}

static bool on_data(void *arg, const char *data, size_t size)
{
    struct blob *blob = arg;
    struct want *want = blob->want;
    struct chunk *into = want->packed != NULL ? want->packed : want->chunk;
    size_t n = want->check - want->checked;

    n = n < size ? n : size;
    memcpy(want->print + want->checked, data, n);
    want->checked += (uint32_t)n;
    assert(size - n <= into->capacity - into->size);
    memcpy(into->data + into->size, data + n, size - n);
    into->size += size - n;
    want->fetched += size - n;
    return true;
}

static void on_fetched(void *arg, const struct storage_answer *answer);

static void blob_fetch(struct blob *blob)
{
    struct blob_source *source = blob->place->source;
    struct want *want = blob->want;
    uint64_t left = want->size - want->fetched, room;
    struct chunk *into;

    if (want->packed == NULL && want->unpack == NULL && blob->packed) {
        want->packed = chunk_take(source->host, PACKED_BYTES);
        want->packed->size = 0;
    }
    if (want->chunk == NULL) {
        room = want->room > source->chunk ? want->room : source->chunk;
        if (!blob->packed && room > left && want->room == 0)
            room = left < 4096 ? 4096 : left;
        want->chunk = chunk_take(source->host, room);
        want->chunk->size = 0;
        want->chunk->offset = blob_position(blob);
    }
    into = want->packed != NULL ? want->packed : want->chunk;
    room = into->capacity - into->size;
    assert(room > 0);
    blob->state = BLOB_READING;
    want->checked = 0;
    want->asked = want->fetched;
    want->request = storage_get(source->storage, &(struct storage_get){
        .name = want->name, .from = want->fetched - want->check, .size = want->check + (left < room ? left : room),
        .etag = want->kind == STORAGE_APPEND || want->etag[0] == '\0' ? NULL : want->etag, .on_data = on_data,
    }, on_fetched, blob);
}

static bool is_archive(const struct chunk *chunk)
{
    return chunk->size >= 4 && (memcmp(chunk->data, "\x1f\x8b", 2) == 0 || memcmp(chunk->data, "\x28\xb5\x2f\xfd", 4) == 0);
}

/* Are the bytes before the position, if they were asked for, those that we know? */
static bool blob_proves(struct blob *blob)
{
    struct want *want = blob->want;

    if (want->check > 0 && (want->checked < want->check || text_hash(want->print, want->check) != blob->print.hash))
        return false;
    want->proved |= want->check > 0;
    want->check = 0;
    return true;
}

static void blob_offer(struct blob *blob);
static void blob_unpack(struct blob *blob);

static void blob_take_range(struct blob *blob, const struct storage_answer *answer)
{
    struct want *want = blob->want;
    bool first = want->packed == NULL && want->unpack == NULL && want->chunk->size > 0 &&
                 want->fetched - want->chunk->size == want->chunk->offset;

    if (want->checked < want->check || (want->check == 0 && want->fetched == want->asked)) {
        blob_ask(blob);              /* a good answer with nothing in it */
        return;
    }
    if (!blob_proves(blob)) {
        blob_begin_anew(blob);
        return;
    }
    if (answer->verdict == STORAGE_OK && want->kind == STORAGE_APPEND) {
        if (answer->blob.created != want->created && answer->blob.created != 0 && want->created != 0) {
            blob_ask(blob);
            return;
        }
        strcpy(want->etag, answer->blob.etag);
        want->size = answer->blob.size > want->fetched ? answer->blob.size : want->fetched;
        want->modified = answer->blob.modified;
    }
    want->stale = 0;
    if (first && want->chunk->offset == 0 && is_archive(want->chunk)) {
        blob->packed = true;
        want->packed = want->chunk;
        want->chunk = NULL;
    }
    if (want->packed != NULL) {
        want->fresh = true;
        blob_unpack(blob);
    } else {
        blob_offer(blob);
    }
}

static void on_fetched(void *arg, const struct storage_answer *answer)
{
    struct blob *blob = arg;
    struct want *want = blob->want;

    want->request = NULL;
    if (want->packed == NULL && want->fetched > want->asked)
        want->vain = 0;
    if (blob_fails_alone(blob, answer)) {
        blob_fail(blob, answer->why);
        return;
    }
    switch (answer->verdict) {
    case STORAGE_OK:
        blob_take_range(blob, answer);
        return;
    case STORAGE_CHANGED:
    case STORAGE_BEYOND:
        blob_ask(blob);
        return;
    case STORAGE_GONE:
        blob_vanish(blob);
        return;
    case STORAGE_LOCKED:
        blob_fail(blob, answer->why);
        return;
    case STORAGE_BUSY:
    case STORAGE_REFUSED:
        /* What came before the line broke is good, unless it is not the blob we knew, or is unpacked as a whole. */
        if (want->packed != NULL) {
            want->fetched -= want->packed->size;
            want->packed->size = 0;
        } else if (!blob_proves(blob) || want->chunk->size == 0) {
            want_begin(blob);
        }
        blob_try_later(blob);
        return;
    }
}

/* ---- Archives -------------------------------------------------------------------------------------------------- */

/* Of what is passed over the last bytes are kept, to be compared. */
static void want_pass(struct want *want, const char *data, size_t size)
{
    size_t taken = size < BLOB_PRINT ? size : BLOB_PRINT, room = BLOB_PRINT - taken;
    size_t stays = want->tail < room ? want->tail : room;

    memmove(want->print, want->print + want->tail - stays, stays);
    memcpy(want->print + stays, data + size - taken, taken);
    want->tail = (uint32_t)(stays + taken);
    want->skip -= size;
}

static void on_unpack(uv_work_t *work)
{
    struct unpack_job *job = work->data;
    struct want *want = job->blob->want;
    struct chunk *chunk = want->chunk;
    size_t passed = 0;

    job->result = 0;
    if (want->unpack == NULL)
        job->result = unpack_new_fed(&want->unpack, want->packed->data, want->packed->size, &job->err);
    else if (want->fresh)
        unpack_feed(want->unpack, want->packed->data, want->packed->size);
    want->fresh = false;
    while (job->result >= 0 && chunk->size < chunk->capacity && passed < SKIP_BYTES) {
        size_t skip;

        job->result = unpack_read(want->unpack, chunk->data + chunk->size, chunk->capacity - chunk->size, &job->err);
        if (job->result <= 0)
            break;
        skip = want->skip < (uint64_t)job->result ? (size_t)want->skip : (size_t)job->result;
        want_pass(want, chunk->data + chunk->size, skip);
        memmove(chunk->data + chunk->size, chunk->data + chunk->size + skip, (size_t)job->result - skip);
        chunk->size += (size_t)job->result - skip;
        passed += skip;
    }
}

/* Is the archive another one? Its end may come before our position; or other bytes stand before that. */
static bool blob_is_other_archive(struct blob *blob)
{
    struct want *want = blob->want;
    const struct blob_print *print = &blob->print;
    uint32_t tail = want->tail;

    if (want->skip > 0)
        return want->starved && !want->damaged && want->fetched >= want->size;
    want->tail = 0;
    return tail > 0 && print->size > 0 && print->size <= tail && print->at == blob_position(blob) &&
        text_hash(want->print + tail - print->size, print->size) != print->hash;
}

static void on_unpacked(uv_work_t *work, int status)
{
    struct unpack_job *job = work->data;
    struct blob *blob = job->blob;
    struct want *want = blob->want;
    bool more = want->chunk->size > job->had;

    (void)status;
    want->starved = job->result == 0;
    if (job->result < 0) {
        blob_log(blob, LOG_WARN, "an archive is damaged: it is read up to there", job->err.text);
        source_trouble(blob->place->source->host);
        want->damaged = true;
        want->starved = true;
        want->fetched = want->size;
    }
    free(job);
    if (blob->place->source->closing)
        blob_done(blob);
    else if (blob_is_other_archive(blob))
        blob_begin_anew(blob);
    else if (more)
        blob_offer(blob);
    else
        blob_go(blob);
}

static void blob_unpack(struct blob *blob)
{
    struct blob_source *source = blob->place->source;
    struct want *want = blob->want;
    struct unpack_job *job = calloc(1, sizeof *job);

    if (job == NULL)
        abort();
    if (want->chunk == NULL) {
        want->chunk = chunk_take(source->host, want->room > source->chunk ? want->room : source->chunk);
        want->chunk->size = 0;
        want->chunk->offset = blob_position(blob);
    }
    job->blob = blob;
    job->had = want->chunk->size;
    job->work.data = job;
    blob->state = BLOB_UNPACKING;
    uv_queue_work(source_loop(source->host), &job->work, on_unpack, on_unpacked);
}

/* ---- Offering -------------------------------------------------------------------------------------------------- */

static bool want_is_at_end(const struct want *want)
{
    return want->fetched >= want->size && want->check == 0 && (want->unpack == NULL || want->starved);
}

static void blob_offer(struct blob *blob)
{
    struct want *want = blob->want;

    if (want->chunk->size == 0) {
        blob_go(blob);
        return;
    }
    if (blob->stream == NULL)
        blob_save(blob);
    stream_set_end(blob->stream, blob->packed ? 0 : want->size);
    want->chunk->offset = blob_position(blob);
    want->chunk->final = want->final && want_is_at_end(want) && (want->unpack == NULL || unpack_complete(want->unpack));
    blob->state = BLOB_OUT;
    stream_offer(blob->stream, want->chunk);
}

/* The rest stays where the next range can follow it. */
static void want_keep_rest(struct blob *blob, size_t consumed)
{
    struct want *want = blob->want;
    struct chunk *chunk = want->chunk, *next = chunk;
    size_t rest = chunk->size - consumed;

    want->room = consumed == 0 && chunk->size == chunk->capacity ? chunk->capacity * 2 : 0;
    if (rest == 0) {
        drop_chunk(blob, &want->chunk);
        return;
    }
    if (want->room > 0 || chunk->capacity == rest)
        next = chunk_take(blob->place->source->host, chunk->capacity * 2);
    memmove(next->data, chunk->data + consumed, rest);
    next->size = rest;
    if (next != chunk)
        chunk_drop(blob->place->source->host, chunk);
    want->chunk = next;
}

void blob_take_chunk(struct blob *blob, size_t consumed)
{
    struct want *want = blob->want;
    const struct chunk *chunk = want->chunk;
    size_t size = consumed < BLOB_PRINT ? consumed : BLOB_PRINT;

    if (consumed > 0) {
        blob->print = (struct blob_print){ chunk->offset + consumed, text_hash(chunk->data + consumed - size, size),
                                           (uint32_t)size };
        blob_save(blob);
    }
    if (blob->place->source->closing || chunk->unseen)
        blob_done(blob);             /* not at an end, whatever it reaches to */
    else if (want_is_at_end(want))
        blob_ended(blob, chunk->data + consumed, chunk->size - consumed);
    else {
        want_keep_rest(blob, consumed);
        blob_go(blob);
    }
}

/* ---- Turns ----------------------------------------------------------------------------------------------------- */

/* What comes next. */
static void blob_go(struct blob *blob)
{
    struct want *want = blob->want;

    if (want_is_at_end(want)) {
        if (want->final && want->chunk != NULL && want->chunk->size > 0) {
            blob_offer(blob);        /* the rest of an archive, which had to be unpacked to its end to be known as such */
            return;
        }
        /* What lies there was offered, or nothing does: an empty blob, or one whose print was all there was to see. */
        blob_ended(blob, want->chunk != NULL ? want->chunk->data : "", want->chunk != NULL ? want->chunk->size : 0);
        return;
    }
    if (want->unpack != NULL && !want->starved) {
        blob_unpack(blob);
        return;
    }
    if (want->unpack != NULL && want->fetched >= want->size) {     /* an archive that ends in its middle */
        blob_ended(blob, "", 0);
        return;
    }
    if (want->packed != NULL)
        want->packed->size = 0;
    if (!source_may_fetch(blob->place->source))
        blob_wait(blob, true);
    else
        blob_fetch(blob);
}

void blob_start(struct blob *blob)
{
    struct want *want = blob->want;

    if (want->etag[0] == '\0' && want->kind != STORAGE_APPEND && want->stale > 0) {
        want->stale--;
        blob_ask(blob);
        return;
    }
    if (!want->begun) {
        if (!blob_recognize(blob))
            return;
        want_begin(blob);
    }
    blob_go(blob);
}

void blob_halt(struct blob *blob)
{
    struct want *want = blob->want;

    if (blob->state != BLOB_READING)
        return;
    storage_cancel(want->request);
    want->request = NULL;
    blob_done(blob);
}
