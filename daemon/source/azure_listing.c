/*
 * azure_listing.c - see azure_listing.h.
 *
 *   EnumerationResults ─┬─ Blobs ─┬─ Blob ─┬─ Name, Deleted, Snapshot, …
 *                       │         │        └─ Properties ─ Content-Length, Etag, …
 *                       │         └─ BlobPrefix ─ Name
 *                       └─ NextMarker
 *
 * Elements are told apart by name and depth, so that a Name elsewhere, in Metadata say, is nobody's name.
 */
#include "daemon/source/azure_listing.h"

#include <assert.h>
#include <curl/curl.h>
#include <expat.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 16
#define FIELD_MAX 256                /* of a value that is neither name nor marker */

/* Which text is being gathered. */
enum field {
    FIELD_NONE, FIELD_NAME, FIELD_MARKER, FIELD_LENGTH, FIELD_ETAG, FIELD_MODIFIED, FIELD_CREATED, FIELD_TYPE, FIELD_TIER,
    FIELD_RESOURCE, FIELD_DELETED, FIELD_SNAPSHOT, FIELD_CURRENT, FIELDS
};

static const struct {
    const char *name;
    unsigned depth;                  /* of the element: EnumerationResults is 1 */
    size_t max;
} fields[FIELDS] = {
    [FIELD_NAME] = { "Name", 4, STORAGE_NAME_MAX },
    [FIELD_MARKER] = { "NextMarker", 2, LISTING_MARKER_MAX },
    [FIELD_LENGTH] = { "Content-Length", 5, FIELD_MAX },
    [FIELD_ETAG] = { "Etag", 5, FIELD_MAX },
    [FIELD_MODIFIED] = { "Last-Modified", 5, FIELD_MAX },
    [FIELD_CREATED] = { "Creation-Time", 5, FIELD_MAX },
    [FIELD_TYPE] = { "BlobType", 5, FIELD_MAX },
    [FIELD_TIER] = { "AccessTier", 5, FIELD_MAX },
    [FIELD_RESOURCE] = { "ResourceType", 5, FIELD_MAX },
    [FIELD_DELETED] = { "Deleted", 4, FIELD_MAX },
    [FIELD_SNAPSHOT] = { "Snapshot", 4, FIELD_MAX },
    [FIELD_CURRENT] = { "IsCurrentVersion", 4, FIELD_MAX },
};

struct listing {
    XML_Parser parser;
    const struct listing_events *events;
    void *arg;
    const char *trouble;
    size_t bytes;
    unsigned depth;
    bool in_blobs, in_properties, is_blob, is_folder, encoded, done;
    enum field field;
    size_t text_size;
    char text[LISTING_MARKER_MAX + 1];
    char name[STORAGE_NAME_MAX + 1], etag[STORAGE_ETAG_MAX], marker[LISTING_MARKER_MAX + 1];
    struct storage_blob blob;
};

static void listing_stop(struct listing *listing, const char *trouble)
{
    if (listing->trouble == NULL)
        listing->trouble = trouble;
    XML_StopParser(listing->parser, XML_FALSE);
}

/* ---- Values ---------------------------------------------------------------------------------------------------- */

static bool number_read(const char *text, uint64_t *value)
{
    uint64_t number = 0;

    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9' || number > (UINT64_MAX >> 1) / 10 - 1)
            return false;
        number = number * 10 + (uint64_t)(*text - '0');
    }
    *value = number;
    return true;
}

static int64_t date_read(const char *text)
{
    time_t date = curl_getdate(text, NULL);

    return date > 0 && date < (time_t)1 << 38 ? date : 0;
}

/* Names with characters that XML cannot hold come percent-encoded. */
static bool name_decode(char *name)
{
    char *out = name;

    for (; *name != '\0'; name++) {
        unsigned code = (unsigned char)*name;

        if (code == '%') {
            const char *digits = "0123456789abcdef", *high, *low;

            high = name[1] != '\0' ? strchr(digits, name[1] | ((name[1] & 0x40) >> 1)) : NULL;
            low = high != NULL && name[2] != '\0' ? strchr(digits, name[2] | ((name[2] & 0x40) >> 1)) : NULL;
            if (low == NULL)
                return false;
            code = (unsigned)(high - digits) << 4 | (unsigned)(low - digits);
            name += 2;
        }
        if (code == 0)
            return false;
        *out++ = (char)code;
    }
    *out = '\0';
    return true;
}

static void listing_take_name(struct listing *listing)
{
    memcpy(listing->name, listing->text, listing->text_size + 1);
    if (listing->encoded && !name_decode(listing->name))
        listing_stop(listing, "a name in the listing cannot be decoded");
}

static void listing_take_etag(struct listing *listing)
{
    const char *text = listing->text;
    size_t size = listing->text_size;

    if (size >= 2 && text[0] == '"' && text[size - 1] == '"') {
        text++;
        size -= 2;
    }
    if (size >= STORAGE_ETAG_MAX)
        return;                      /* unknown, then: it is compared and sent, never needed */
    memcpy(listing->etag, text, size);
    listing->etag[size] = '\0';
}

static void listing_take(struct listing *listing)
{
    struct storage_blob *blob = &listing->blob;
    const char *text = listing->text;

    switch (listing->field) {
    case FIELD_NAME:
        listing_take_name(listing);
        break;
    case FIELD_MARKER:
        memcpy(listing->marker, text, listing->text_size + 1);
        break;
    case FIELD_LENGTH:
        if (!number_read(text, &blob->size))
            listing_stop(listing, "a length in the listing is no number");
        break;
    case FIELD_ETAG:
        listing_take_etag(listing);
        break;
    case FIELD_MODIFIED:
        blob->modified = date_read(text);
        break;
    case FIELD_CREATED:
        blob->created = date_read(text);
        break;
    case FIELD_TYPE:
        if (blob->kind != STORAGE_OTHER)
            blob->kind = strcmp(text, "BlockBlob") == 0 ? STORAGE_BLOCK : strcmp(text, "AppendBlob") == 0 ? STORAGE_APPEND
                                                                                                           : STORAGE_OTHER;
        break;
    case FIELD_TIER:
        blob->archived = strcmp(text, "Archive") == 0;
        break;
    case FIELD_RESOURCE:             /* of accounts with a hierarchical namespace */
        if (strcmp(text, "directory") == 0)
            blob->kind = STORAGE_OTHER;
        break;
    case FIELD_DELETED:
        if (strcmp(text, "true") == 0)
            blob->kind = STORAGE_OTHER;
        break;
    case FIELD_SNAPSHOT:
        blob->kind = STORAGE_OTHER;
        break;
    case FIELD_CURRENT:
        if (strcmp(text, "true") != 0)
            blob->kind = STORAGE_OTHER;
        break;
    case FIELD_NONE:
    case FIELDS:
        break;
    }
}

/* ---- What expat says ------------------------------------------------------------------------------------------- */

static enum field field_of(const struct listing *listing, const char *name)
{
    for (enum field field = FIELD_NONE + 1; field < FIELDS; field++) {
        if (fields[field].depth != listing->depth || strcmp(fields[field].name, name) != 0)
            continue;
        if (field == FIELD_MARKER || (field == FIELD_NAME && listing->is_folder))
            return field;
        return listing->is_blob && (fields[field].depth == 4 || listing->in_properties) ? field : FIELD_NONE;
    }
    return FIELD_NONE;
}

static void on_start(void *arg, const char *name, const char **attributes)
{
    struct listing *listing = arg;

    if (++listing->depth > DEPTH_MAX) {
        listing_stop(listing, "the listing nests too deep");
        return;
    }
    if (listing->depth == 1 && strcmp(name, "EnumerationResults") != 0)
        listing_stop(listing, "the answer is no listing of blobs");
    if (listing->depth == 2)
        listing->in_blobs = strcmp(name, "Blobs") == 0;
    if (listing->depth == 3) {
        listing->is_blob = listing->in_blobs && strcmp(name, "Blob") == 0;
        listing->is_folder = listing->in_blobs && strcmp(name, "BlobPrefix") == 0;
        listing->blob = (struct storage_blob){ .kind = STORAGE_BLOCK };
        listing->name[0] = listing->etag[0] = '\0';
    }
    if (listing->depth == 4)
        listing->in_properties = listing->is_blob && strcmp(name, "Properties") == 0;
    listing->field = field_of(listing, name);
    listing->text_size = 0;
    if (listing->field == FIELD_NAME) {
        listing->encoded = false;
        for (; attributes[0] != NULL; attributes += 2)
            if (strcmp(attributes[0], "Encoded") == 0)
                listing->encoded = strcmp(attributes[1], "true") == 0;
    }
}

static void on_text(void *arg, const char *text, int size)
{
    struct listing *listing = arg;

    if (listing->field == FIELD_NONE)
        return;
    if (listing->text_size + (size_t)size > fields[listing->field].max) {
        listing_stop(listing, "a value in the listing is too long");
        return;
    }
    memcpy(listing->text + listing->text_size, text, (size_t)size);
    listing->text_size += (size_t)size;
}

static void listing_tell(struct listing *listing)
{
    listing->blob.name = listing->name;
    listing->blob.etag = listing->etag;
    if (listing->name[0] == '\0')
        listing_stop(listing, "an entry of the listing has no name");
    else if (listing->is_blob)
        listing->events->on_blob(listing->arg, &listing->blob);
    else if (listing->is_folder && listing->events->on_folder != NULL)
        listing->events->on_folder(listing->arg, listing->name);
}

static void on_close(void *arg, const char *name)
{
    struct listing *listing = arg;

    (void)name;
    if (listing->trouble != NULL)
        return;                      /* expat still ends the element at which it was stopped */
    listing->text[listing->text_size] = '\0';
    listing_take(listing);
    listing->field = FIELD_NONE;
    if (listing->depth == 3 && (listing->is_blob || listing->is_folder) && listing->trouble == NULL) {
        listing_tell(listing);
        listing->is_blob = listing->is_folder = false;
    }
    listing->depth--;
    if (listing->depth == 0)
        listing->done = true;
}

static void on_doctype(void *arg, const char *name, const char *system, const char *public, int internal)
{
    (void)name, (void)system, (void)public, (void)internal;
    listing_stop(arg, "the listing declares a document type");
}

/* ---- The door -------------------------------------------------------------------------------------------------- */

struct listing *listing_new(const struct listing_events *events, void *arg)
{
    struct listing *listing = calloc(1, sizeof *listing);

    if (listing == NULL)
        abort();
    listing->events = events;
    listing->arg = arg;
    listing->parser = XML_ParserCreate("UTF-8");
    if (listing->parser == NULL)
        abort();
    XML_SetUserData(listing->parser, listing);
    XML_SetElementHandler(listing->parser, on_start, on_close);
    XML_SetCharacterDataHandler(listing->parser, on_text);
    XML_SetStartDoctypeDeclHandler(listing->parser, on_doctype);
    return listing;
}

bool listing_feed(struct listing *listing, const char *data, size_t size)
{
    if (listing->trouble != NULL)
        return false;
    listing->bytes += size;
    if (listing->bytes > LISTING_BYTES_MAX)
        listing->trouble = "a page of the listing is too long";
    else if (XML_Parse(listing->parser, data, (int)size, 0) == XML_STATUS_ERROR && listing->trouble == NULL)
        listing->trouble = "the answer is not XML";
    return listing->trouble == NULL;
}

bool listing_end(struct listing *listing)
{
    if (listing->trouble == NULL && (XML_Parse(listing->parser, "", 0, 1) == XML_STATUS_ERROR || !listing->done))
        listing->trouble = "the listing ends in its middle";
    return listing->trouble == NULL;
}

const char *listing_marker(const struct listing *listing)
{
    return listing->marker;
}

const char *listing_trouble(const struct listing *listing)
{
    return listing->trouble;
}

void listing_free(struct listing *listing)
{
    if (listing == NULL)
        return;
    XML_ParserFree(listing->parser);
    free(listing);
}
