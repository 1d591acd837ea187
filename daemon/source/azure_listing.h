/*
 * azure_listing.h - the XML of List Blobs, read as it comes: expat behind a narrow door.
 *
 * The text is hostile. A document type, and with it every entity but the five of XML, ends the reading; so do too much
 * depth, a name or marker longer than the service allows, and a page longer than any real one. Nothing is kept but the
 * entry at hand and the marker.
 */
#ifndef DAEMON_SOURCE_AZURE_LISTING_H
#define DAEMON_SOURCE_AZURE_LISTING_H

#include "daemon/source/azure_storage.h"

#define LISTING_MARKER_MAX 8192
#define LISTING_BYTES_MAX (64u << 20)

struct listing;

struct listing_events {
    void (*on_blob)(void *arg, const struct storage_blob *blob);
    void (*on_folder)(void *arg, const char *prefix);
};

struct listing *listing_new(const struct listing_events *events, void *arg);
/* False: this is no listing, or one that cannot be; why in listing_trouble(). */
bool listing_feed(struct listing *listing, const char *data, size_t size);
/* The whole document was there. */
bool listing_end(struct listing *listing);
const char *listing_marker(const struct listing *listing);
const char *listing_trouble(const struct listing *listing);        /* static sentence, or NULL */
void listing_free(struct listing *listing);                        /* copes with NULL */

#endif
