/*
 * azure_messages.h - what a storage queue's answer holds: messages, and the event of Event Grid in each.
 *
 * Both are hostile. The XML is read as listings are (azure_listing.h): no document type, little depth, bounds on every value
 * and on the whole. A message's text is JSON, as it is or in base64: Event Grid writes the latter.
 */
#ifndef DAEMON_SOURCE_AZURE_MESSAGES_H
#define DAEMON_SOURCE_AZURE_MESSAGES_H

#include "daemon/record/json.h"

#include <stdbool.h>

#define MESSAGES_MAX 32              /* of one answer: the service gives no more */
#define MESSAGE_ID_MAX 128           /* bytes; a UUID */
#define MESSAGE_RECEIPT_MAX 1024
#define MESSAGE_TEXT_MAX (96u << 10) /* the service takes 64 KiB */
#define MESSAGES_BYTES_MAX (8u << 20)

struct messages;

struct message {                     /* lent for the call */
    const char *id, *receipt;        /* by which it is deleted */
    struct pen_span text;
};

typedef void (*message_told)(void *arg, const struct message *message);

struct messages *messages_new(message_told told, void *arg);
/* As listing_feed(), listing_end(), listing_trouble(). */
bool messages_feed(struct messages *messages, const char *data, size_t size);
bool messages_end(struct messages *messages);
const char *messages_trouble(const struct messages *messages);
void messages_free(struct messages *messages);                     /* copes with NULL */

#define NOTICE_NAMES_MAX 16          /* of one message; Event Grid sends one event in each */

/* The blobs that were written, by name, as far as they lie in that container. False: these are no events of a storage
 * account. For each name told, at most STORAGE_NAME_MAX bytes and none of them 0, told() is called. */
bool notice_read(struct json *json, struct pen_span text, const char *container, void (*told)(void *arg, const char *name), void *arg);

#endif
