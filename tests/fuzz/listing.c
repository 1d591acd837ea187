/*
 * listing.c - any answer to List Blobs, whole and in pieces: the same entries and the same end, each entry within its bounds.
 *
 * Input: 1 byte size of the pieces; the answer.
 */
#include "tests/fuzz/fuzz.h"

#include "daemon/source/azure_listing.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct told {
    unsigned blobs, folders;
    uint64_t hash;                   /* over all that was told, in its order */
};

static void tell(struct told *told, const void *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        told->hash = (told->hash ^ ((const unsigned char *)data)[i]) * 1099511628211u;
}

static void on_blob(void *arg, const struct storage_blob *blob)
{
    struct told *told = arg;

    assert(blob->name[0] != '\0' && strlen(blob->name) <= STORAGE_NAME_MAX && strlen(blob->etag) < STORAGE_ETAG_MAX);
    assert(blob->size <= INT64_MAX && blob->modified >= 0 && blob->created >= 0 && blob->kind <= STORAGE_OTHER);
    told->blobs++;
    tell(told, blob->name, strlen(blob->name) + 1);
    tell(told, blob->etag, strlen(blob->etag) + 1);
    tell(told, &blob->size, sizeof(blob->size));
    tell(told, &blob->modified, sizeof(blob->modified));
    tell(told, &blob->kind, sizeof(blob->kind));
}

static void on_folder(void *arg, const char *prefix)
{
    struct told *told = arg;

    assert(prefix[0] != '\0' && strlen(prefix) <= STORAGE_NAME_MAX);
    told->folders++;
    tell(told, prefix, strlen(prefix) + 1);
}

static void read_pieces(struct told *told, struct pen_span text, size_t piece)
{
    static const struct listing_events events = { on_blob, on_folder };
    struct listing *listing = listing_new(&events, told);
    bool good = true;

    for (size_t at = 0; at < text.size && good; at += piece) {
        struct pen_span part = { text.data + at, text.size - at < piece ? text.size - at : piece };
        char *copy = fuzz_copy(part, 0);

        good = listing_feed(listing, copy, part.size);
        free(copy);
    }
    good = good && listing_end(listing);
    assert(good == (listing_trouble(listing) == NULL));
    assert(strlen(listing_marker(listing)) <= LISTING_MARKER_MAX);
    tell(told, &good, sizeof(good));
    if (good)
        tell(told, listing_marker(listing), strlen(listing_marker(listing)));
    listing_free(listing);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = feed_of(data, size);
    size_t piece = (size_t)feed_byte(&feed) + 1;
    struct pen_span text = feed_span(&feed, SIZE_MAX);
    struct told whole = { 0 }, pieces = { 0 };

    read_pieces(&whole, text, text.size + 1);
    read_pieces(&pieces, text, piece);
    assert(memcmp(&whole, &pieces, sizeof(whole)) == 0);
    return 0;
}
