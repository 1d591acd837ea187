/*
 * azure_messages.c - see azure_messages.h.
 *
 *   QueueMessagesList ── QueueMessage ── MessageId, PopReceipt, MessageText, …
 *
 *   {"type": "Microsoft.Storage.BlobCreated", "subject": "/blobServices/default/containers/CONTAINER/blobs/NAME", …}
 *
 * Event Grid's own schema has eventType in place of CloudEvents' type. Either may come alone or in an array.
 */
#include "daemon/source/azure_messages.h"

#include "daemon/source/azure_storage.h"

#include <expat.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 8

enum field { FIELD_NONE, FIELD_ID, FIELD_RECEIPT, FIELD_TEXT, FIELDS };

static const struct {
    const char *name;
    size_t max;
} fields[FIELDS] = {
    [FIELD_ID] = { "MessageId", MESSAGE_ID_MAX },
    [FIELD_RECEIPT] = { "PopReceipt", MESSAGE_RECEIPT_MAX },
    [FIELD_TEXT] = { "MessageText", MESSAGE_TEXT_MAX },
};

struct messages {
    XML_Parser parser;
    message_told told;
    void *arg;
    const char *trouble;
    size_t bytes;
    unsigned depth, count;
    bool is_message, done;
    enum field field;
    struct buf values[FIELDS];
};

static void messages_stop(struct messages *messages, const char *trouble)
{
    if (messages->trouble == NULL)
        messages->trouble = trouble;
    XML_StopParser(messages->parser, XML_FALSE);
}

static void on_start(void *arg, const char *name, const char **attributes)
{
    struct messages *messages = arg;

    (void)attributes;
    messages->field = FIELD_NONE;
    if (++messages->depth > DEPTH_MAX)
        messages_stop(messages, "the queue's answer nests too deep");
    else if (messages->depth == 1 && strcmp(name, "QueueMessagesList") != 0)
        messages_stop(messages, "the answer is no list of messages");
    if (messages->depth == 2) {
        messages->is_message = strcmp(name, "QueueMessage") == 0;
        for (enum field field = FIELD_NONE; field < FIELDS; field++)
            messages->values[field].size = 0;
    }
    if (messages->depth == 3 && messages->is_message)
        for (enum field field = FIELD_NONE + 1; field < FIELDS; field++)
            if (strcmp(fields[field].name, name) == 0) {
                messages->field = field;
                messages->values[field].size = 0;
            }
}

static void on_text(void *arg, const char *text, int size)
{
    struct messages *messages = arg;
    struct buf *value = &messages->values[messages->field];

    if (messages->field == FIELD_NONE)
        return;
    if (value->size + (size_t)size > fields[messages->field].max)
        messages_stop(messages, "a value in the queue's answer is too long");
    else
        buf_add(value, text, (size_t)size);
}

static void messages_tell(struct messages *messages)
{
    struct buf *values = messages->values;
    size_t text_size = values[FIELD_TEXT].size;

    if (values[FIELD_ID].size == 0 || values[FIELD_RECEIPT].size == 0) {
        messages_stop(messages, "a message in the queue's answer has no id");
    } else if (messages->count++ == MESSAGES_MAX) {
        messages_stop(messages, "the queue's answer has more messages than were asked for");
    } else {
        for (enum field field = FIELD_NONE + 1; field < FIELDS; field++)
            buf_char(&values[field], '\0');
        messages->told(messages->arg, &(struct message){ values[FIELD_ID].data, values[FIELD_RECEIPT].data,
                                                         { values[FIELD_TEXT].data, text_size } });
    }
}

static void on_close(void *arg, const char *name)
{
    struct messages *messages = arg;

    (void)name;
    if (messages->trouble != NULL)
        return;                      /* expat still ends the element at which it was stopped */
    messages->field = FIELD_NONE;
    if (messages->depth == 2 && messages->is_message)
        messages_tell(messages);
    messages->depth--;
    if (messages->depth == 0)
        messages->done = true;
}

static void on_doctype(void *arg, const char *name, const char *system, const char *public, int internal)
{
    (void)name, (void)system, (void)public, (void)internal;
    messages_stop(arg, "the queue's answer declares a document type");
}

/* ---- The door -------------------------------------------------------------------------------------------------- */

struct messages *messages_new(message_told told, void *arg)
{
    struct messages *messages = calloc(1, sizeof *messages);

    if (messages == NULL || (messages->parser = XML_ParserCreate("UTF-8")) == NULL)
        abort();
    messages->told = told;
    messages->arg = arg;
    XML_SetUserData(messages->parser, messages);
    XML_SetElementHandler(messages->parser, on_start, on_close);
    XML_SetCharacterDataHandler(messages->parser, on_text);
    XML_SetStartDoctypeDeclHandler(messages->parser, on_doctype);
    return messages;
}

bool messages_feed(struct messages *messages, const char *data, size_t size)
{
    if (messages->trouble != NULL)
        return false;
    messages->bytes += size;
    if (messages->bytes > MESSAGES_BYTES_MAX)
        messages->trouble = "the queue's answer is too long";
    else if (XML_Parse(messages->parser, data, (int)size, 0) == XML_STATUS_ERROR && messages->trouble == NULL)
        messages->trouble = "the queue's answer is not XML";
    return messages->trouble == NULL;
}

bool messages_end(struct messages *messages)
{
    if (messages->trouble == NULL && (XML_Parse(messages->parser, "", 0, 1) == XML_STATUS_ERROR || !messages->done))
        messages->trouble = "the queue's answer ends in its middle";
    return messages->trouble == NULL;
}

const char *messages_trouble(const struct messages *messages)
{
    return messages->trouble;
}

void messages_free(struct messages *messages)
{
    if (messages == NULL)
        return;
    XML_ParserFree(messages->parser);
    for (enum field field = FIELD_NONE; field < FIELDS; field++)
        buf_free(&messages->values[field]);
    free(messages);
}

/* ---- The event in a message ------------------------------------------------------------------------------------ */

/* JSON as it is, or out of base64; JSON_PADDING readable bytes behind it. */
static void notice_unwrap(struct buf *out, struct pen_span text)
{
    int size;

    while (text.size > 0 && (unsigned char)text.data[0] <= ' ')
        text.data++, text.size--;
    buf_reserve(out, text.size + JSON_PADDING + 4);
    if (text.size > 0 && text.size % 4 == 0 && text.data[0] != '{' && text.data[0] != '[') {
        size = EVP_DecodeBlock((unsigned char *)out->data, (const unsigned char *)text.data, (int)text.size);
        out->size = size > 0 ? (size_t)size : 0;
        for (size_t pads = 0; out->size > 0 && pads < 2 && text.data[text.size - 1 - pads] == '='; pads++)
            out->size--;
    } else {
        buf_add(out, text.data, text.size);
    }
}

static bool text_begins(struct pen_span *text, const char *with)
{
    size_t size = strlen(with);

    if (text->size < size || memcmp(text->data, with, size) != 0)
        return false;
    text->data += size;
    text->size -= size;
    return true;
}

static bool event_read(const struct pen_json *event, const char *container, char name[static STORAGE_NAME_MAX + 1])
{
    struct pen_span type = pen_json_text(event, "type"), subject = pen_json_text(event, "subject");

    name[0] = '\0';
    if (type.data == NULL)
        type = pen_json_text(event, "eventType");
    if (type.data == NULL || !text_begins(&type, "Microsoft.Storage."))
        return false;
    if (type.size == 11 && memcmp(type.data, "BlobCreated", 11) == 0 && subject.data != NULL &&
        text_begins(&subject, "/blobServices/default/containers/") && text_begins(&subject, container) &&
        text_begins(&subject, "/blobs/") && subject.size <= STORAGE_NAME_MAX && memchr(subject.data, '\0', subject.size) == NULL) {
        memcpy(name, subject.data, subject.size);
        name[subject.size] = '\0';
    }
    return true;
}

bool notice_read(struct json *json, struct pen_span text, const char *container, void (*told)(void *arg, const char *name), void *arg)
{
    char name[STORAGE_NAME_MAX + 1];
    struct buf plain = { 0 };
    struct pen_json root;
    const char *why;
    unsigned count = 0;
    bool ours = false;

    notice_unwrap(&plain, text);
    if (json_parse(json, plain.data, plain.size, &root, &why) == 0) {
        struct pen_json_iter it = pen_json_each(&root);
        bool array = pen_json_type(&root) == PEN_JSON_ARRAY;

        while (array ? pen_json_next(&it) && count < NOTICE_NAMES_MAX : count == 0) {
            count++;
            ours = event_read(array ? &it.value : &root, container, name);
            if (!ours)
                break;
            if (name[0] != '\0')
                told(arg, name);
        }
    }
    buf_free(&plain);
    return ours;
}
