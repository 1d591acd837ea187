/*
 * tokens.c - whatever gives us tokens: an answer of any endpoint is a token fit for a header with a life within bounds, or
 * one clean line; Arc's challenge opens no file but a key in its folder.
 *
 * Input: 1 byte which of the two, and the kind of identity. Answer: 2 bytes status, the body. Challenge: the header's value,
 * FOLDER standing for the folder.
 */
#include "tests/fuzz/fuzz.h"

#include "daemon/base/secret.h"
#include "daemon/remote/entra_answer.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECRET "s3cret-of-ours"

static void put(const char *name, const char *text)
{
    char path[128];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", fuzz_folder(), name);
    file = fopen(path, "w");
    assert(file);
    fputs(text, file);
    fclose(file);
}

static void assert_clean(const char *why)
{
    assert(why[0] != '\0' && judge_line((struct pen_span){ why, strlen(why) }, false));
    assert(strstr(why, SECRET) == NULL);
}

static void answer(enum credential_kind kind, struct feed *feed)
{
    static const int statuses[] = { 200, 200, 200, 400, 401, 403, 404, 410, 429, 500 };
    struct credential credential = { .kind = kind };
    unsigned status = (unsigned)feed_number(feed, 2);
    struct pen_span body = feed_span(feed, HTTP_ANSWER_MAX);
    char *copy = fuzz_copy(body, HTTP_ANSWER_PADDING);
    struct http_answer http = { .retry_after_ms = (int64_t)(status >> 4) - 1, .body = { copy, body.size } };
    struct entra_answer told;

    http.status = status & 1 ? statuses[(status >> 1) % 10] : (int)(status >> 1) % 1000;
    if (http.status == 0) {
        http.failure = HTTP_UNUSABLE + status % 5;
        http.trouble = "no connection";
    }
    entra_answer_read(&told, &credential, &http, 1700000000);
    if (told.token != NULL) {
        assert(http.status == 200 && told.life_s > 0 && told.life_s <= 48 * 3600 && told.renew_s >= 0 && told.renew_s <= 48 * 3600);
        assert(told.token[0] != '\0' && strlen(told.token) <= 16 * 1024);
        for (const char *at = told.token; *at != '\0'; at++)
            assert(*at > ' ' && *at < 0x7f);
        secret_text_free(told.token);
    } else {
        assert_clean(told.why);
        for (const char *at = told.why; *at != '\0'; at++)
            assert((unsigned char)*at < 0x80);
        assert(told.hold_ms >= -1);
    }
    free(copy);
}

static void challenge(struct feed *feed)
{
    struct pen_span value = feed_span(feed, CREDENTIAL_CHALLENGE_MAX - 1);
    char *copy = fuzz_copy(value, 1), whole[CREDENTIAL_CHALLENGE_MAX + 128], *key;
    const char *hole = strstr(copy, "FOLDER");
    struct pen_error err = { 0 };
    int before = hole ? (int)(hole - copy) : (int)strlen(copy);

    put("good.key", "the key\n");
    put("secret", SECRET);
    snprintf(whole, sizeof(whole), "%.*s%s%s", before, copy, hole ? fuzz_folder() : "", hole ? hole + 6 : "");
    if (managed_read_key(&key, whole, fuzz_folder(), &err) == 0) {
        assert(strcmp(key, "the key") == 0 && strlen(whole) > 9 && strcmp(whole + strlen(whole) - 9, "/good.key") == 0);
        secret_text_free(key);
    } else {
        assert_clean(err.text);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = feed_of(data, size);
    uint8_t what = feed_byte(&feed);

    if (what % 4 == 3)
        challenge(&feed);
    else
        answer((enum credential_kind)(what / 4 % 6), &feed);
    return 0;
}
