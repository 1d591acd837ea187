/*
 * azure_once.c - of a replay over a container: when is all there found, and when is it read?
 *
 * Each walk comes once. What is at rest without having been read to its end, and not for a failure that was said, has changed
 * under the reading, and is found again by one more walk when nothing else is left to do.
 */
#include "daemon/source/azure_blob.h"

#include "daemon/base/log.h"

static bool blob_is_read(const struct blob *blob)
{
    return blob->state == BLOB_IDLE && !blob->anew && (blob->end_etag != 0 || blob->failed);
}

static bool place_is_read(const struct place *place)
{
    const struct blob *blob;

    LIST_FOREACH(blob, &place->blobs, entry)
        if (!blob_is_read(blob))
            return false;
    return true;
}

bool find_is_whole(const struct blob_source *source)
{
    const struct place *place;

    if (!storage_has_time(source->storage) || source->discovers == 0 || source->discovering || source->sweeping ||
        (source->loose_seen && source->loose.walks == 0))
        return false;
    LIST_FOREACH(place, &source->places, entry)
        if (place->walks == 0 || place->state != PLACE_RESTING)
            return false;
    return true;
}

bool find_is_done(const struct blob_source *source)
{
    const struct place *place;

    if (!find_is_whole(source) || source->ready_count > 0 || source->busy > 0 || !place_is_read(&source->loose))
        return false;
    LIST_FOREACH(place, &source->places, entry)
        if (!place_is_read(place))
            return false;
    return true;
}

/* What changed under the reading is found again by one more walk, when nothing else is left. */
void find_again(struct blob_source *source)
{
    uint64_t soon_ms = source_now_ms(source->host) + source->poll_ms;
    struct place *place;

    if (!find_is_whole(source) || source->ready_count > 0 || source->busy > 0)
        return;
    if (!place_is_read(&source->loose) && source->sweep_due_ms == UINT64_MAX)
        source->sweep_due_ms = soon_ms;
    LIST_FOREACH(place, &source->places, entry)
        if (place->due_ms == UINT64_MAX && !place_is_read(place))
            place->due_ms = soon_ms;
}

/* Its row has no name. */
void find_note_missing(struct blob *blob)
{
    struct blob_source *source = blob->place->source;

    if (!source->once || blob->end_etag != 0 || blob->failed)
        return;
    source_trouble(source->host);
    if (source_says(&source->vanished))
        log_line(LOG_WARN, "a blob was deleted before it was read to its end", "source", source_name(source->host), "place",
                 blob_is_loose(blob) ? "" : blob->place->prefix, "position", log_number(blob_position(blob)), "blobs",
                 log_number(source->vanished), NULL);
}
