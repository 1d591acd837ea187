/*
 * azure_book.c - what the azure-blob source remembers: places, blobs, and their rows in state.db.
 *
 *   "32 hex digits"   a blob that is not let go:  v1 CONTAINER ETAG:SIZE MODIFIED:CREATED PRINT FLAGS NAME
 *   "place-KEY"       a place:                    v2 CONTAINER NEXT:PAST PREFIX
 *   "container-ID"    the marks of the sweeps:    v1 CONTAINER SINCE LATE:LOOSE BEGAN NAME
 *
 * Names are percent-escaped. All rows name the container, by a hash, so that a source that is pointed to another one starts
 * afresh, and finds its way when it is pointed back. ETAG and PRINT may be newer than the row's position: the position is
 * what is safe, they are what was read. Where the two differ, neither is believed, and the blob is asked for again.
 */
#include "daemon/source/azure_blob.h"

#include "daemon/base/log.h"
#include "daemon/source/azure_hours.h"

#include <assert.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ATTRS_MAX (256 + 3 * STORAGE_NAME_MAX)

/* ---- Keys and rows ---------------------------------------------------------------------------------------------- */

uint64_t text_hash(const char *text, size_t size)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    uint64_t hash;

    if (EVP_Digest(text, size, digest, NULL, EVP_sha256(), NULL) != 1)
        abort();
    memcpy(&hash, digest, sizeof hash);
    return hash != 0 ? hash : 1;
}

/* Of a name within this container. */
static void key_make(const struct blob_source *source, const char *name, size_t size, unsigned char key[BLOB_KEY])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    struct buf text = { 0 };

    buf_text(&text, "%s/", source->container_id);
    buf_add(&text, name, size);
    if (EVP_Digest(text.data, text.size, digest, NULL, EVP_sha256(), NULL) != 1)
        abort();
    memcpy(key, digest, BLOB_KEY);
    buf_free(&text);
}

static void key_print(const unsigned char key[BLOB_KEY], char text[static 2 * BLOB_KEY + 1])
{
    for (int i = 0; i < BLOB_KEY; i++)
        snprintf(text + 2 * i, 3, "%02x", key[i]);
}

static int blob_compare(const void *a, const void *b)
{
    return memcmp(((const struct blob *)a)->key, ((const struct blob *)b)->key, BLOB_KEY);
}

static int place_compare(const void *a, const void *b)
{
    return memcmp(((const struct place *)a)->key, ((const struct place *)b)->key, BLOB_KEY);
}

static void name_escape(char *out, const char *name)
{
    for (; *name != '\0'; name++) {
        unsigned char c = (unsigned char)*name;

        if (c > 0x20 && c < 0x7f && c != '%')
            *out++ = (char)c;
        else
            out += sprintf(out, "%%%02X", c);
    }
    *out = '\0';
}

static char *name_unescape(const char *text)
{
    char *name = malloc(strlen(text) + 1), *out = name;
    unsigned code;

    if (name == NULL)
        abort();
    for (; *text != '\0'; text++) {
        if (*text == '%' && sscanf(text + 1, "%2x", &code) == 1 && code != 0 && text[2] != '\0') {
            *out++ = (char)code;
            text += 2;
        } else {
            *out++ = *text;
        }
    }
    *out = '\0';
    return name;
}

/* A row that belongs to no stream of bytes. */
static void row_save(struct blob_source *source, const char *key, const char *attrs)
{
    struct stream *row = stream_open(source->host, key, &(struct cursor){ .key = key, .attrs = "" }, NULL);

    stream_set_attrs(row, attrs);
    stream_close(row, false);
}

static void row_forget(struct blob_source *source, const char *key)
{
    stream_close(stream_open(source->host, key, &(struct cursor){ .key = key, .attrs = "" }, NULL), true);
}

/* ---- Places ---------------------------------------------------------------------------------------------------- */

static struct place *place_find(struct blob_source *source, const char *name, size_t size)
{
    struct place key, **found;

    key_make(source, name, size, key.key);
    found = tfind(&key, &source->place_tree, place_compare);
    return found != NULL ? *found : NULL;
}

static struct place *place_new(struct blob_source *source, const char *name, size_t size)
{
    struct place *place = calloc(1, sizeof *place);

    if (place == NULL)
        abort();
    book_begin(source);
    place->source = source;
    place->prefix = strndup(name, size);
    place->prefix_size = size;
    key_make(source, name, size, place->key);
    place->next = hours_at(source->since_s);
    place->newest = storage_now(source->storage);
    place->seen = source->discovers;
    LIST_INIT(&place->blobs);
    tsearch(place, &source->place_tree, place_compare);
    LIST_INSERT_HEAD(&source->places, place, entry);
    source->place_count++;
    return place;
}

struct place *place_meet(struct blob_source *source, const char *name, size_t size)
{
    struct place *place = place_find(source, name, size);

    if (place == NULL)
        place = place_new(source, name, size);
    place->seen = source->discovers;
    return place;
}

static void place_key(const struct place *place, char text[static 2 * BLOB_KEY + 7])
{
    memcpy(text, "place-", 6);
    key_print(place->key, text + 6);
}

void place_save(struct place *place)
{
    char key[2 * BLOB_KEY + 7], attrs[ATTRS_MAX];
    int size = snprintf(attrs, 256, "v2 %s %" PRId32 ":%08" PRIx32 " ", place->source->container_id, place->next,
                        place->past);

    name_escape(attrs + size, place->prefix);
    place_key(place, key);
    row_save(place->source, key, attrs);
}

static void place_free(struct place *place)
{
    struct blob_source *source = place->source;

    if (place->state == PLACE_DUE)
        TAILQ_REMOVE(place->whole ? &source->due_whole : &source->due, place, turn);
    if (place->state == PLACE_WALKING)
        TAILQ_REMOVE(&source->walked, place, turn);
    walk_drop(&place->walk);
    tdelete(place, &source->place_tree, place_compare);
    LIST_REMOVE(place, entry);
    source->place_count--;
    free(place->prefix);
    free(place);
}

void place_forget(struct place *place)
{
    char key[2 * BLOB_KEY + 7];

    place_key(place, key);
    row_forget(place->source, key);
    place_free(place);
}

/* ---- Blobs ----------------------------------------------------------------------------------------------------- */

struct blob *blob_find(struct blob_source *source, const char *name)
{
    struct blob like, **found;

    key_make(source, name, strlen(name), like.key);
    found = tfind(&like, &source->blob_tree, blob_compare);
    return found != NULL ? *found : NULL;
}

static struct blob *blob_new_keyed(struct place *place, const unsigned char key[BLOB_KEY], int32_t hour)
{
    struct blob_source *source = place->source;
    struct blob *blob = calloc(1, sizeof *blob);

    if (blob == NULL)
        abort();
    blob->place = place;
    blob->hour = hour;
    blob->seen = place->walks;
    memcpy(blob->key, key, BLOB_KEY);
    tsearch(blob, &source->blob_tree, blob_compare);
    LIST_INSERT_HEAD(&place->blobs, blob, entry);
    source->blob_count++;
    source->loose_count += place == &source->loose;
    return blob;
}

struct blob *blob_new(struct place *place, const char *name, int32_t hour)
{
    unsigned char key[BLOB_KEY];

    key_make(place->source, name, strlen(name), key);
    return blob_new_keyed(place, key, hour);
}

/* Not while it has a stream. */
static void blob_free(struct blob *blob)
{
    struct blob_source *source = blob->place->source;

    assert(blob->stream == NULL && blob->want == NULL);
    tdelete(blob, &source->blob_tree, blob_compare);
    LIST_REMOVE(blob, entry);
    source->blob_count--;
    source->loose_count -= blob_is_loose(blob);
    free(blob);
}

void blob_forget(struct blob *blob)
{
    char key[2 * BLOB_KEY + 1];

    key_print(blob->key, key);
    if (blob->has_row)
        row_forget(blob->place->source, key);
    blob_free(blob);
}

static void blob_attrs(const struct blob *blob, char attrs[static ATTRS_MAX])
{
    int size = snprintf(attrs, 256, "v1 %s %016" PRIx64 ":%" PRIu64 " %" PRId64 ":%" PRId64 " %" PRIu64 ":%" PRIu32 ":%016" PRIx64
                        " %c%c ", blob->place->source->container_id, blob->end_etag, blob->end_size, blob->modified,
                        blob->created, blob->print.at, blob->print.size, blob->print.hash, blob->packed ? 'p' : '-',
                        blob->torn ? 't' : '-');

    name_escape(attrs + size, blob->want->name);
}

void blob_settled_for_sweep(struct blob *blob)
{
    blob->place->source->sweep_pending -= blob->pending;
    blob->pending = false;
}

void blob_save(struct blob *blob)
{
    struct blob_source *source = blob->place->source;
    char attrs[ATTRS_MAX], key[2 * BLOB_KEY + 1];
    struct buf name = { 0 };

    if (blob->stream == NULL) {
        key_print(blob->key, key);
        buf_text(&name, "%s/%s", strrchr(source->container, '/') + 1, blob->want->name);
        buf_char(&name, '\0');
        blob->stream = stream_open(source->host, name.data, &(struct cursor){ .key = key, .attrs = "",
                                   .position = blob->position, .word = blob->word }, blob);
        buf_free(&name);
        source->stream_count++;
        blob->has_row = true;
        blob_settled_for_sweep(blob);
    }
    blob_attrs(blob, attrs);
    stream_set_attrs(blob->stream, attrs);
}

void blob_reset(struct blob *blob)
{
    blob->position = blob->word = blob->end_etag = blob->end_size = 0;
    blob->print = (struct blob_print){ 0 };
    blob->created = 0;
    blob->anew = blob->packed = blob->torn = false;
}

/* ---- The container --------------------------------------------------------------------------------------------- */

void source_save(struct blob_source *source)
{
    char key[64], attrs[ATTRS_MAX];
    int size = snprintf(attrs, 256, "v1 %s %" PRId64 " %" PRId64 ":%" PRId64 " %" PRId64 " ", source->container_id,
                        source->since_s, source->late_mark, source->loose_mark, source->sweep_began);

    name_escape(attrs + size, source->sweep_name != NULL ? source->sweep_name : "");
    snprintf(key, sizeof key, "container-%s", source->container_id);
    row_save(source, key, attrs);
}

/* ---- Reading ------------------------------------------------------------------------------------------------------ */

/* Rows are read from a disk: times that no calendar has would overflow what is made of them. */
static bool time_is_sane(int64_t seconds)
{
    return seconds >= 0 && seconds < INT64_C(1) << 38;
}

static bool row_is_ours(const struct blob_source *source, const char *id)
{
    return strcmp(id, source->container_id) == 0;
}

static void row_read_source(struct blob_source *source, const char *attrs)
{
    int64_t since, late, loose, began;
    char id[17];
    int at = 0;

    if (sscanf(attrs, "v1 %16s %" SCNd64 " %" SCNd64 ":%" SCNd64 " %" SCNd64 " %n", id, &since, &late, &loose, &began, &at) < 5 ||
        at == 0 || !time_is_sane(since) || !time_is_sane(late) || !time_is_sane(loose) || !time_is_sane(began) ||
        !row_is_ours(source, id))
        return;
    source->begun = true;
    source->since_s = since;
    source->late_mark = late;
    source->loose_mark = loose;
    source->sweep_began = began;
    free(source->sweep_name);
    source->sweep_name = attrs[at] != '\0' ? name_unescape(attrs + at) : NULL;
}

static void row_read_place(struct blob_source *source, const char *attrs)
{
    char id[17], *prefix;
    struct place *place;
    uint32_t past;
    int32_t next;
    int at = 0;

    if (sscanf(attrs, "v2 %16s %" SCNd32 ":%8" SCNx32 " %n", id, &next, &past, &at) < 3 || at == 0 ||
        !time_is_sane((int64_t)next * 3600) || !row_is_ours(source, id))
        return;
    prefix = name_unescape(attrs + at);
    place = place_meet(source, prefix, strlen(prefix));
    place->next = next;
    place->past = past;
    free(prefix);
}

static bool key_read(const char *text, unsigned char key[BLOB_KEY])
{
    unsigned byte;

    for (int i = 0; i < BLOB_KEY; i++) {
        if (sscanf(text + 2 * i, "%2x", &byte) != 1)
            return false;
        key[i] = (unsigned char)byte;
    }
    return text[2 * BLOB_KEY] == '\0';
}

static void row_read_blob(struct blob_source *source, const struct cursor *cursor)
{
    struct blob_print print;
    uint64_t end_etag, end_size;
    int64_t modified, created;
    unsigned char key[BLOB_KEY];
    char id[17], packed, torn, *name;
    size_t place_size = 0;
    struct place *place = &source->loose;
    struct blob *blob;
    int32_t hour;
    int at = 0;

    if (sscanf(cursor->attrs, "v1 %16s %" SCNx64 ":%" SCNu64 " %" SCNd64 ":%" SCNd64 " %" SCNu64 ":%" SCNu32 ":%" SCNx64 " %c%c %n",
               id, &end_etag, &end_size, &modified, &created, &print.at, &print.size, &print.hash, &packed, &torn, &at) < 10 ||
        at == 0 || print.size > BLOB_PRINT || print.size > print.at || !time_is_sane(modified) ||
        !time_is_sane(created) || !key_read(cursor->key, key)) {
        log_line(LOG_WARN, "a row of the state is not readable: its blob will be read from the start", "source",
                 source_name(source->host), "key", cursor->key, NULL);
        return;
    }
    if (!row_is_ours(source, id))
        return;
    name = name_unescape(cursor->attrs + at);
    hour = hours_of(name, &place_size);
    if (hour != HOURS_NONE)
        place = place_meet(source, name, place_size);
    free(name);
    blob = blob_new_keyed(place, key, hour);
    blob->has_row = true;
    blob->position = cursor->position;
    blob->word = cursor->word;
    /* What was read but not safe must be read again: then we are neither at the end nor where the print was taken. */
    blob->end_etag = print.at == cursor->position ? end_etag : 0;
    blob->print = print.at == cursor->position ? print : (struct blob_print){ 0 };
    blob->end_size = end_size;
    blob->modified = modified;
    blob->created = created;
    blob->packed = packed == 'p';
    blob->torn = torn == 't';
}

/* Places begin at `since`, or where their row says; so the container's own row comes first. */
static void on_row_source(void *arg, const struct cursor *cursor)
{
    if (strncmp(cursor->key, "container-", 10) == 0)
        row_read_source(arg, cursor->attrs);
}

static void on_row(void *arg, const struct cursor *cursor)
{
    if (strncmp(cursor->key, "place-", 6) == 0)
        row_read_place(arg, cursor->attrs);
    else if (strncmp(cursor->key, "container-", 10) != 0)
        row_read_blob(arg, cursor);
}


void book_load(struct blob_source *source)
{
    source_each_cursor(source->host, on_row_source, source);
    source_each_cursor(source->host, on_row, source);
}

/* The very first start is when the service first told the time: ours may be hours off, and these two are for ever. */
void book_begin(struct blob_source *source)
{
    int64_t now = storage_now(source->storage);

    if (source->begun)
        return;
    source->begun = true;
    source->since_s = source->since_s < 0 ? now : source->since_s;
    source->late_mark = now - MARK_S;
    source_save(source);
}

void book_close(struct blob_source *source)
{
    struct place *place;
    struct blob *blob;

    while ((place = LIST_FIRST(&source->places)) != NULL) {
        while ((blob = LIST_FIRST(&place->blobs)) != NULL)
            blob_free(blob);
        place_free(place);
    }
    while ((blob = LIST_FIRST(&source->loose.blobs)) != NULL)
        blob_free(blob);
    free(source->sweep_name);
}
