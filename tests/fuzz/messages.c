/*
 * messages.c - any answer of a storage queue, whole and in pieces: the same messages and the same end; and any text of a
 * message: few names, each within its bounds.
 *
 * Input: 1 byte size of the pieces; the answer. It is taken for a message's text as well.
 */
#include "tests/fuzz/fuzz.h"

#include "daemon/source/azure_messages.h"
#include "daemon/source/azure_storage.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct told {
    unsigned messages, names;
    uint64_t hash;                   /* over all that was told, in its order */
};

static struct json *json;

static void tell(struct told *told, const void *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        told->hash = (told->hash ^ ((const unsigned char *)data)[i]) * 1099511628211u;
}

static void on_name(void *arg, const char *name)
{
    struct told *told = arg;

    assert(strlen(name) <= STORAGE_NAME_MAX);
    told->names++;
    tell(told, name, strlen(name) + 1);
}

static void read_notice(struct told *told, struct pen_span text)
{
    char *copy = fuzz_copy(text, 0);
    unsigned before = told->names;
    bool ours = notice_read(json, (struct pen_span){ copy, text.size }, "logs", on_name, told);

    assert(told->names - before <= NOTICE_NAMES_MAX);
    tell(told, &ours, sizeof(ours));
    free(copy);
}

static void on_message(void *arg, const struct message *message)
{
    struct told *told = arg;

    assert(message->id[0] != '\0' && strlen(message->id) <= MESSAGE_ID_MAX);
    assert(message->receipt[0] != '\0' && strlen(message->receipt) <= MESSAGE_RECEIPT_MAX);
    assert(message->text.size <= MESSAGE_TEXT_MAX && ++told->messages <= MESSAGES_MAX);
    tell(told, message->id, strlen(message->id) + 1);
    tell(told, message->receipt, strlen(message->receipt) + 1);
    read_notice(told, message->text);
}

static void read_pieces(struct told *told, struct pen_span text, size_t piece)
{
    struct messages *messages = messages_new(on_message, told);
    bool good = true;

    for (size_t at = 0; at < text.size && good; at += piece) {
        struct pen_span part = { text.data + at, text.size - at < piece ? text.size - at : piece };
        char *copy = fuzz_copy(part, 0);

        good = messages_feed(messages, copy, part.size);
        free(copy);
    }
    good = good && messages_end(messages);
    assert(good == (messages_trouble(messages) == NULL));
    tell(told, &good, sizeof(good));
    messages_free(messages);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = feed_of(data, size);
    size_t piece = (size_t)feed_byte(&feed) + 1;
    struct pen_span text = feed_span(&feed, SIZE_MAX);
    struct told whole = { 0 }, pieces = { 0 }, notice = { 0 };

    if (json == NULL)
        json = json_new();
    read_pieces(&whole, text, text.size + 1);
    read_pieces(&pieces, text, piece);
    assert(memcmp(&whole, &pieces, sizeof(whole)) == 0);
    if (text.size <= MESSAGE_TEXT_MAX)
        read_notice(&notice, text);
    return 0;
}
