/* Promise: of a queue's answer the messages are read and nothing else is; of a message the blobs that were written, in this
 * container. What is neither is refused, within bounds. */
#include "daemon/source/azure_messages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>
#include <cmocka.h>

#define HEAD "<?xml version=\"1.0\" encoding=\"utf-8\"?><QueueMessagesList>"
#define TAIL "</QueueMessagesList>"
#define ENTRY(id, receipt, text) "<QueueMessage><MessageId>" id "</MessageId><InsertionTime>Sun, 22 Nov 2026 18:00:00 GMT</InsertionTime>" \
    "<PopReceipt>" receipt "</PopReceipt><DequeueCount>1</DequeueCount><MessageText>" text "</MessageText></QueueMessage>"

static void on_message(void *arg, const struct message *message)
{
    struct buf *out = arg;

    assert_int_equal(message->text.data[message->text.size], '\0');
    buf_text(out, "%s %s %.*s\n", message->id, message->receipt, (int)message->text.size, message->text.data);
}

/* Reads it in pieces of that size: NULL, or the trouble. */
static const char *messages_read(const char *xml, size_t piece, struct buf *out)
{
    struct messages *messages = messages_new(on_message, out);
    const char *trouble;
    bool good = true;

    out->size = 0;
    for (size_t at = 0, size = strlen(xml); at < size && good; at += piece)
        good = messages_feed(messages, xml + at, size - at < piece ? size - at : piece);
    if (good)
        messages_end(messages);
    trouble = messages_trouble(messages);
    messages_free(messages);
    buf_char(out, '\0');
    return trouble;
}

static void test_messages(void **state)
{
    static const struct {
        const char *xml, *heard, *trouble;
    } rows[] = {
        { HEAD TAIL, "", NULL }, { "\xef\xbb\xbf" HEAD TAIL, "", NULL },
        { HEAD ENTRY("1", "r", "a&amp;&lt;b") ENTRY("2", "s", "") TAIL, "1 r a&<b\n2 s \n", NULL },
        { HEAD "<Other><MessageId>9</MessageId></Other>" ENTRY("1", "r", "x<MessageText>y</MessageText>z") TAIL, "1 r x\n", NULL },
        { HEAD ENTRY("1", "r", "x"), "1 r x\n", "middle" }, { "", "", "middle" }, { "no XML", "", "not XML" },
        { "<html></html>", "", "no list" }, { HEAD ENTRY("", "r", "x") TAIL, "", "no id" }, { HEAD ENTRY("1", "", "x") TAIL, "", "no id" },
        { HEAD "<QueueMessage></QueueMessage>" TAIL, "", "no id" }, { HEAD "<a><a><a><a><a><a><a><a>", "", "deep" },
        { "<!DOCTYPE a [<!ENTITY b \"c\">]><QueueMessagesList/>", "", "document type" },
    };
    struct buf out = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t piece = 1; piece < 1000; piece += piece == 1 ? 998 : 1) {
            const char *trouble = messages_read(rows[i].xml, piece, &out);

            if (rows[i].trouble == NULL ? trouble != NULL : trouble == NULL || strstr(trouble, rows[i].trouble) == NULL)
                fail_msg("%s: %s", rows[i].xml, trouble);
            assert_string_equal(out.data, rows[i].heard);
        }
    buf_free(&out);
}

static void test_messages_are_bounded(void **state)
{
    struct buf xml = { 0 }, out = { 0 };

    (void)state;
    BUF_LITERAL(&xml, HEAD);
    for (int i = 0; i <= MESSAGES_MAX; i++)
        BUF_LITERAL(&xml, ENTRY("1", "r", "x"));
    BUF_LITERAL(&xml, TAIL);
    buf_char(&xml, '\0');
    assert_non_null(messages_read(xml.data, xml.size, &out));
    assert_int_equal(out.size, MESSAGES_MAX * strlen("1 r x\n") + 1);
    xml.size = 0;
    BUF_LITERAL(&xml, HEAD "<QueueMessage><MessageText>");
    for (size_t i = 0; i <= MESSAGE_TEXT_MAX; i++)
        buf_char(&xml, 'x');
    buf_char(&xml, '\0');
    assert_non_null(strstr(messages_read(xml.data, xml.size, &out), "too long"));
    buf_free(&xml);
    buf_free(&out);
}

/* ---- Events ---- */

#define SUBJECT(name) "\"subject\":\"/blobServices/default/containers/logs/blobs/" name "\""
#define CREATED(name) "{\"type\":\"Microsoft.Storage.BlobCreated\"," SUBJECT(name) "}"

static void on_name(void *arg, const char *name)
{
    buf_text(arg, "%s\n", name);
}

static void test_notices(void **state)
{
    static const struct {
        const char *text, *names;    /* NULL: no event of a storage account */
    } rows[] = {
        { CREATED("a/y=2026/PT1H.json"), "a/y=2026/PT1H.json\n" }, { "  " CREATED("a"), "a\n" }, { "\n" CREATED("a") " ", "a\n" },
        { "[" CREATED("a") "," CREATED("\\u00e4 b") "]", "a\n\xc3\xa4 b\n" },
        { "{\"eventType\":\"Microsoft.Storage.BlobCreated\"," SUBJECT("a") ",\"topic\":\"/x\"}", "a\n" },
        { "{\"type\":\"Microsoft.Storage.BlobDeleted\"," SUBJECT("a") "}", "" },
        { "{\"type\":\"Microsoft.Storage.BlobCreatedToo\"," SUBJECT("a") "}", "" },
        { "{\"type\":\"Microsoft.Storage.BlobCreated\"}", "" }, { CREATED("a\\u0000b"), "" },
        { "{\"type\":\"Microsoft.Storage.BlobCreated\",\"subject\":\"/blobServices/default/containers/logs2/blobs/a\"}", "" },
        { "{\"type\":\"Microsoft.EventGrid.SubscriptionValidationEvent\"," SUBJECT("a") "}", NULL },
        { "eyJ0eXBlIjoiTWljcm9zb2Z0LlN0b3JhZ2UuQmxvYkNyZWF0ZWQiLCJzdWJqZWN0IjoiL2Jsb2JTZXJ2aWNlcy9kZWZhdWx0L2NvbnRhaW5lcnMvbG9ncy9ibG9icy9h"
          "In0=", "a\n" },
        { "[" CREATED("a") ",7]", NULL }, { "", NULL }, { "{}", NULL }, { "[]", NULL }, { "AAAA", NULL }, { "====", NULL }, { "=", NULL },
        { "{", NULL }, { "nonsense", NULL }, { "\"text\"", NULL }, { "[[" CREATED("a") "]]", NULL },
    };
    struct json *json = json_new();
    struct buf out = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool ours;

        out.size = 0;
        ours = notice_read(json, (struct pen_span){ rows[i].text, strlen(rows[i].text) }, "logs", on_name, &out);
        buf_char(&out, '\0');
        if (ours != (rows[i].names != NULL) || (ours && strcmp(out.data, rows[i].names) != 0))
            fail_msg("%s: %s", rows[i].text, out.data);
    }
    buf_free(&out);
    json_free(json);
}

static void on_count(void *arg, const char *name)
{
    assert_string_equal(name, "a");
    ++*(int *)arg;
}

static void test_notices_are_bounded(void **state)
{
    struct json *json = json_new();
    struct buf text = { 0 };
    int count = 0;

    (void)state;
    for (int i = 0; i < 100; i++)
        buf_text(&text, "%c%s", i == 0 ? '[' : ',', CREATED("a"));
    buf_char(&text, ']');
    assert_true(notice_read(json, (struct pen_span){ text.data, text.size }, "logs", on_count, &count));
    assert_int_equal(count, NOTICE_NAMES_MAX);
    buf_free(&text);
    json_free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages), cmocka_unit_test(test_messages_are_bounded), cmocka_unit_test(test_notices),
        cmocka_unit_test(test_notices_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
