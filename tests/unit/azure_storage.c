/* Promise: requests are signed as the service signs them, its listings are read and nothing else is, every refusal has its
 * verdict, and names and hours say the same. */
#include "daemon/source/azure_hours.h"
#include "daemon/source/azure_listing.h"
#include "daemon/source/azure_storage.h"
#include "daemon/source/azure_verdict.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>
#include <cmocka.h>

/* ---- Signing: the expected values were made by Python's hmac and hashlib, from texts written by hand ------------- */

#define DATE "Sun, 22 Nov 2026 18:00:00 GMT"
/* Bytes 0 to 63. */
#define KEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw=="

static const struct storage_call call_list = {
    .method = "GET", .account = "acme", .path = "/logs", .date = DATE, .query_count = 5,
    .query = { { "comp", "list" }, { "delimiter", "/" }, { "maxresults", "5000" }, { "prefix", "resourceId=/A B/" },
               { "restype", "container" } },
};
static const struct storage_call call_get = {
    .method = "GET", .account = "devstoreaccount1", .path = "/devstoreaccount1/logs/a%20b/PT1H.json", .date = DATE,
    .if_match = "\"0x8DC\"", .range = "bytes=10-19",
};

static void test_string_to_sign(void **state)
{
    struct buf out = { 0 };

    (void)state;
    storage_string_to_sign(&out, &call_list);
    buf_char(&out, '\0');
    assert_string_equal(out.data, "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:" DATE "\nx-ms-version:2021-12-02\n/acme/logs\ncomp:list\n"
                        "delimiter:/\nmaxresults:5000\nprefix:resourceId=/A B/\nrestype:container");
    out.size = 0;
    storage_string_to_sign(&out, &call_get);
    buf_char(&out, '\0');
    assert_string_equal(out.data, "GET\n\n\n\n\n\n\n\n\"0x8DC\"\n\n\nbytes=10-19\nx-ms-date:" DATE "\nx-ms-version:2021-12-02\n"
                        "/devstoreaccount1/devstoreaccount1/logs/a%20b/PT1H.json");
    buf_free(&out);
}

static void test_sign(void **state)
{
    struct buf out = { 0 };

    (void)state;
    assert_int_equal(storage_sign(&out, &call_list, KEY), 0);
    buf_char(&out, '\0');
    assert_string_equal(out.data, "SharedKey acme:8KdDxOZoWX5j2embxBFRHyTmMxVKPZaeC4PQUsK/l+E=");
    out.size = 0;
    assert_int_equal(storage_sign(&out, &call_get, KEY), 0);
    buf_char(&out, '\0');
    assert_string_equal(out.data, "SharedKey devstoreaccount1:Xoihkwbfrledw3IQ0z38OJMzTvsMEbKV34Z6TlQa1eA=");
    out.size = 0;
    assert_int_equal(storage_sign(&out, &call_get, ""), UV_EINVAL);
    assert_int_equal(storage_sign(&out, &call_get, "no base64!!!"), UV_EINVAL);
    assert_int_equal(storage_sign(&out, &call_get, "AAA"), UV_EINVAL);
    assert_int_equal(out.size, 0);
    buf_free(&out);
}

static void test_encode(void **state)
{
    struct buf out = { 0 };

    (void)state;
    storage_encode(&out, "resourceId=/A b/\xc3\xa4+&%?#.json", "/=");
    buf_char(&out, '\0');
    assert_string_equal(out.data, "resourceId=/A%20b/%C3%A4%2B%26%25%3F%23.json");
    buf_free(&out);
}

/* ---- Verdicts ---- */

struct verdict_row {
    int status;
    const char *code;
    enum storage_verdict verdict;
    const char *word;                /* of its sentence */
};

static void verdicts_check(bool queue, const struct verdict_row *row)
{
    for (; row->status != 0; row++) {
        const char *sentence = NULL;

        if (verdict_judge(queue, row->status, row->code, &sentence) != row->verdict)
            fail_msg("%d %s", row->status, row->code != NULL ? row->code : "");
        assert_non_null(sentence);
        assert_non_null(strstr(sentence, row->word));
    }
}

static void test_judge(void **state)
{
    static const struct verdict_row of_container[] = {
        { 200, NULL, STORAGE_OK, "" }, { 206, NULL, STORAGE_OK, "" },
        { 301, NULL, STORAGE_REFUSED, "container" }, { 304, NULL, STORAGE_CHANGED, "" },
        { 400, "AuthenticationFailed", STORAGE_REFUSED, "key_file" }, { 400, NULL, STORAGE_REFUSED, "container" },
        { 401, "InvalidAuthenticationInfo", STORAGE_REFUSED, "scope" }, { 401, NULL, STORAGE_REFUSED, "auth" },
        { 403, "AuthenticationFailed", STORAGE_REFUSED, "sas_file" },
        { 403, "AuthorizationPermissionMismatch", STORAGE_REFUSED, "Storage Blob Data Reader" },
        { 403, "AuthorizationFailure", STORAGE_REFUSED, "Networking" },
        { 403, "AuthorizationProtocolMismatch", STORAGE_REFUSED, "https" },
        { 403, "SomethingNew", STORAGE_REFUSED, "rights" },
        { 404, "ContainerNotFound", STORAGE_REFUSED, "container" }, { 404, "BlobNotFound", STORAGE_GONE, "" },
        { 404, NULL, STORAGE_GONE, "" },
        { 409, "BlobArchived", STORAGE_LOCKED, "archive" }, { 409, "SomethingNew", STORAGE_LOCKED, "" },
        { 412, "ConditionNotMet", STORAGE_CHANGED, "" }, { 416, "InvalidRange", STORAGE_BEYOND, "" },
        { 429, NULL, STORAGE_BUSY, "limit" }, { 500, "OperationTimedOut", STORAGE_BUSY, "" },
        { 503, "ServerBusy", STORAGE_BUSY, "" },
        { 0, NULL, 0, NULL },
    }, of_queue[] = {
        { 200, NULL, STORAGE_OK, "" }, { 403, "AuthenticationFailed", STORAGE_REFUSED, "key_file" },
        { 403, "AuthorizationPermissionMismatch", STORAGE_REFUSED, "Storage Queue Data Message Processor" },
        { 404, "QueueNotFound", STORAGE_REFUSED, "check queue" }, { 404, NULL, STORAGE_REFUSED, "check queue" },
        { 404, "MessageNotFound", STORAGE_GONE, "" }, { 400, "PopReceiptMismatch", STORAGE_GONE, "" },
        { 503, "ServerBusy", STORAGE_BUSY, "" },
        { 0, NULL, 0, NULL },
    };

    (void)state;
    verdicts_check(false, of_container);
    verdicts_check(true, of_queue);
}

/* ---- Settings ---- */

static void test_container(void **state)
{
    static const struct {
        const char *container, *word;    /* NULL: taken */
    } rows[] = {
        { "https://acme.blob.core.windows.net/logs", NULL }, { "https://acme.blob.core.windows.net/$logs/", NULL },
        { "http://127.0.0.1:10000/devstoreaccount1/logs", NULL }, { "https://acme.blob.core.windows.net", "CONTAINER" },
        { "https://acme.blob.core.windows.net/", "CONTAINER" }, { "https://acme.blob.core.windows.net/logs/y=2026", "prefix" },
        { "https://acme.blob.core.windows.net/logs?sv=1&sig=x", "sas_file" }, { "http://acme.blob.core.windows.net/logs", "https" },
        { "https://u:p@acme.blob.core.windows.net/logs", "user" }, { "ftp://acme/logs", "https" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct storage_conf conf = { .container = rows[i].container, .auth = STORAGE_KEY, .key_file = "/key" };
        struct pen_error err = { 0 };
        int r = storage_conf_check(&conf, &err);

        if ((rows[i].word == NULL) != (r == 0) || (r < 0 && strstr(err.text, rows[i].word) == NULL))
            fail_msg("%s: %s", rows[i].container, err.text);
        assert_true(r == 0 || strncmp(err.text, "container: ", 11) == 0);
    }
}

/* ---- Listings ---- */

struct heard {
    struct buf text;
};

static void on_blob(void *arg, const struct storage_blob *blob)
{
    static const char kinds[] = { [STORAGE_BLOCK] = 'b', [STORAGE_APPEND] = 'a', [STORAGE_OTHER] = '-' };
    struct heard *heard = arg;

    buf_text(&heard->text, "%s %c%s %llu %s %lld %lld\n", blob->name, kinds[blob->kind], blob->archived ? "!" : "",
             (unsigned long long)blob->size, blob->etag, (long long)blob->modified, (long long)blob->created);
}

static void on_folder(void *arg, const char *prefix)
{
    buf_text(&((struct heard *)arg)->text, "%s\n", prefix);
}

/* Reads it in pieces of that size: NULL, or the trouble. What was heard goes to `heard`. */
static const char *listing_read(const char *xml, size_t piece, struct heard *heard, char marker[64])
{
    static const struct listing_events events = { on_blob, on_folder };
    struct listing *listing = listing_new(&events, heard);
    const char *trouble;
    bool good = true;

    heard->text.size = 0;
    for (size_t at = 0, size = strlen(xml); at < size && good; at += piece)
        good = listing_feed(listing, xml + at, size - at < piece ? size - at : piece);
    if (good)
        listing_end(listing);
    trouble = listing_trouble(listing);
    snprintf(marker, 64, "%.63s", listing_marker(listing));
    listing_free(listing);
    buf_char(&heard->text, '\0');
    return trouble;
}

static const char page[] =
    "\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"https://a/\" ContainerName=\"c\">"
    "<Prefix>p</Prefix><MaxResults>5</MaxResults><Delimiter>/</Delimiter><Blobs>"
    "<Blob><Name>a&amp;b &lt;1&gt;.json</Name><Properties><Creation-Time>Sun, 22 Nov 2026 17:00:00 GMT</Creation-Time>"
    "<Last-Modified>Sun, 22 Nov 2026 18:00:00 GMT</Last-Modified><Etag>0x8DC</Etag><Content-Length>12345678901</Content-Length>"
    "<BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier></Properties><Metadata><Name>no</Name></Metadata></Blob>"
    "<Blob><Name Encoded=\"true\">x%EF%BF%BEy%2F</Name><Properties><Etag>\"q\"</Etag><Content-Length>0</Content-Length>"
    "<BlobType>AppendBlob</BlobType><AccessTier>Archive</AccessTier></Properties></Blob>"
    "<BlobPrefix><Name>p/y=2026/</Name></BlobPrefix>"
    "<Blob><Name>page</Name><Properties><Content-Length>512</Content-Length><BlobType>PageBlob</BlobType></Properties></Blob>"
    "<Blob><Name>dir</Name><Properties><ResourceType>directory</ResourceType><BlobType>BlockBlob</BlobType></Properties></Blob>"
    "<Blob><Name>old</Name><Snapshot>2026-11-22T18:00:00.0000000Z</Snapshot><Properties><BlobType>BlockBlob</BlobType></Properties>"
    "</Blob><Blob><Name>gone</Name><Deleted>true</Deleted><Properties><BlobType>BlockBlob</BlobType></Properties></Blob>"
    "</Blobs><NextMarker>2!92!next</NextMarker></EnumerationResults>";

static void test_listing(void **state)
{
    struct heard heard = { 0 };
    char marker[64];

    (void)state;
    for (size_t piece = 1; piece < sizeof page; piece += 1 + piece / 3) {
        assert_null(listing_read(page, piece, &heard, marker));
        assert_string_equal(heard.text.data,
                            "a&b <1>.json b 12345678901 0x8DC 1795370400 1795366800\n"
                            "x\xef\xbf\xbey/ a! 0 q 0 0\n"
                            "p/y=2026/\n"
                            "page - 512  0 0\ndir - 0  0 0\nold - 0  0 0\ngone - 0  0 0\n");
        assert_string_equal(marker, "2!92!next");
    }
    assert_null(listing_read("<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>", 7, &heard, marker));
    assert_string_equal(heard.text.data, "");
    assert_string_equal(marker, "");
    buf_free(&heard.text);
}

static void test_listing_is_refused(void **state)
{
    static const char *const bad[] = {
        "", "no XML", "<html><body>Sign in</body></html>", "<EnumerationResults><Blobs>", "<EnumerationResults></Blobs>",
        "<!DOCTYPE a [<!ENTITY e \"x\">]><EnumerationResults>&e;</EnumerationResults>",
        "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><EnumerationResults/>",
        "<EnumerationResults>&undefined;</EnumerationResults>",
        "<EnumerationResults><Blobs><Blob></Blob></Blobs></EnumerationResults>",
        "<EnumerationResults><Blobs><Blob><Name>a</Name><Properties><Content-Length>-1</Content-Length></Properties></Blob></Blobs>"
        "</EnumerationResults>",
        "<EnumerationResults><Blobs><Blob><Name>a</Name><Properties><Content-Length>99999999999999999999999</Content-Length>"
        "</Properties></Blob></Blobs></EnumerationResults>",
        "<EnumerationResults><Blobs><Blob><Name Encoded=\"true\">a%00b</Name></Blob></Blobs></EnumerationResults>",
        "<EnumerationResults><Blobs><Blob><Name Encoded=\"true\">a%4</Name></Blob></Blobs></EnumerationResults>",
        "<EnumerationResults><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a>",
    };
    struct heard heard = { 0 };
    char marker[64];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (size_t piece = 1; piece <= 64; piece *= 8)
            if (listing_read(bad[i], piece, &heard, marker) == NULL)
                fail_msg("taken: %s", bad[i]);
    buf_free(&heard.text);
}

static void test_listing_is_bounded(void **state)
{
    static const char begin[] = "<EnumerationResults><Blobs><Blob><Name>", many[] = "<Blob><Name>n</Name></Blob>";
    struct heard heard = { 0 };
    struct buf xml = { 0 };
    char marker[64];

    (void)state;
    buf_add(&xml, begin, strlen(begin));
    for (size_t i = 0; i <= STORAGE_NAME_MAX; i++)
        buf_char(&xml, 'n');
    BUF_LITERAL(&xml, "</Name></Blob></Blobs></EnumerationResults>");
    buf_char(&xml, '\0');
    assert_non_null(listing_read(xml.data, 100, &heard, marker));
    xml.size = 0;
    BUF_LITERAL(&xml, "<EnumerationResults><Blobs>");
    while (xml.size < LISTING_BYTES_MAX)
        buf_add(&xml, many, sizeof many - 1);
    BUF_LITERAL(&xml, "</Blobs></EnumerationResults>");
    buf_char(&xml, '\0');
    assert_string_equal(listing_read(xml.data, 1 << 20, &heard, marker), "a page of the listing is too long");
    buf_free(&xml);
    buf_free(&heard.text);
}

/* ---- Hours ---- */

#define HOUR(year_days, hour) ((year_days) * 24 + (hour))
#define DAY_20261122 20779           /* days since 1970 */

static void test_hours(void **state)
{
    static const struct {
        const char *name;
        int32_t hour;
        size_t place;
    } rows[] = {
        { "r/y=2026/m=11/d=22/h=18/m=00/PT1H.json", HOUR(DAY_20261122, 18), 2 },
        { "y=2026/m=11/d=22/h=00/m=00/PT1H.json", HOUR(DAY_20261122, 0), 0 },
        { "a=/b/C/y=1970/m=01/d=01/h=00/x", 0, 7 }, { "r/y=2024/m=02/d=29/h=23/x", HOUR(19782, 23), 2 },
        { "r/y=2026/m=11/d=22/PT1D.json", HOURS_NONE, 2 }, { "r/y=2026/x", HOURS_NONE, 2 },
        { "r/y=26/m=11/d=22/h=18/x", HOURS_NONE, 0 }, { "r/y=2026/m=13/d=22/h=18/x", HOURS_NONE, 2 },
        { "ry=2026/m=11/d=22/h=18/x", HOURS_NONE, 0 }, { "", HOURS_NONE, 0 }, { "/", HOURS_NONE, 0 },
        { "r/y=2026/m=11/d=22/h=18", HOURS_NONE, 2 }, { "r/y=2026m=11/d=22/h=18/x", HOURS_NONE, 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t place = 0;

        if (hours_of(rows[i].name, &place) != rows[i].hour || place != rows[i].place)
            fail_msg("%s: %d %zu", rows[i].name, hours_of(rows[i].name, &place), place);
    }
}

static void test_hours_there_and_back(void **state)
{
    struct buf name = { 0 };
    size_t place;

    (void)state;
    for (int32_t hour = 0; hour < HOUR(DAY_20261122 * 2, 0); hour += 97) {
        name.size = 0;
        hours_prefix(&name, "a/b/", 4, hour);
        BUF_LITERAL(&name, "m=00/PT1H.json");
        buf_char(&name, '\0');
        assert_int_equal(hours_of(name.data, &place), hour);
        assert_int_equal(place, 4);
    }
    buf_free(&name);
}

/* A folder that is passed over holds nothing from `from` on; one that is listed whole, nothing before it. */
static void test_hours_part(void **state)
{
    static const int32_t froms[] = { HOUR(DAY_20261122, 18), HOUR(20514, 0), HOUR(20543, 5) /* the last of March */ };
    static const size_t lengths[] = { 7, 12, 17, 22 };    /* y=2026/, and so on */
    struct buf name = { 0 };

    (void)state;
    for (size_t f = 0; f < sizeof froms / sizeof *froms; f++)
        for (int32_t hour = froms[f] - 24 * 400; hour < froms[f] + 24 * 400; hour += 1 + (hour % 5 == 0) * 30)
            for (size_t l = 0; l < 4; l++) {
                enum hours_part part;

                name.size = 0;
                hours_prefix(&name, "p/", 2, hour);
                name.size = 2 + lengths[l];
                buf_char(&name, '\0');
                part = hours_part(name.data, 2, froms[f]);
                if (hour >= froms[f] ? part == HOURS_BEFORE : part == HOURS_WHOLE)
                    fail_msg("%s from %d: %d", name.data, froms[f], part);
            }
    assert_int_equal(hours_part("p/other/", 2, froms[0]), HOURS_BEFORE);
    buf_free(&name);
}

/* An hour is missed after a day that had nearly all of its own: again and again, but not for ever. */
static void test_hours_miss(void **state)
{
    uint32_t past = 0;
    int missed = 0;

    (void)state;
    for (int hour = 0; hour < HOURS_EXPECTED; hour++)              /* too young to tell */
        assert_false(hours_miss(&past, hour != 0 && hour != HOURS_EXPECTED - 1));
    assert_false(hours_miss(&past, true));
    assert_false(hours_miss(&past, true));
    assert_true(hours_miss(&past, false));
    assert_false(hours_miss(&past, true));
    assert_true(hours_miss(&past, false));
    for (int hour = 0; hour < 24; hour++)
        assert_false(hours_miss(&past, true));
    for (int hour = 0; hour < 100; hour++)
        missed += hours_miss(&past, false);
    assert_int_equal(missed, 24 - HOURS_EXPECTED + 1);
    assert_int_equal(past, 0);
    for (int hour = 0; hour < 240; hour++)                         /* office hours */
        assert_false(hours_miss(&past, hour % 24 >= 6 && hour % 24 < 22));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_string_to_sign), cmocka_unit_test(test_sign), cmocka_unit_test(test_encode),
        cmocka_unit_test(test_judge), cmocka_unit_test(test_container), cmocka_unit_test(test_listing),
        cmocka_unit_test(test_listing_is_refused), cmocka_unit_test(test_listing_is_bounded), cmocka_unit_test(test_hours),
        cmocka_unit_test(test_hours_there_and_back), cmocka_unit_test(test_hours_part),
        cmocka_unit_test(test_hours_miss),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
