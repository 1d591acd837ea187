/* ask.c - see ask.h. */
#include "daemon/command/ask.h"

#include "daemon/status/pages.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#define ANSWER_MAX ((size_t)64 * 1024 * 1024)      /* 256 sources to 32 sinks each are some 2 MB */

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    struct buf *body = arg;

    if (body->size + size * count > ANSWER_MAX)
        return 0;
    buf_add(body, data, size * count);
    return size * count;
}

static int ask_failed(CURL *curl, CURLcode code, const char *state_dir, struct pen_error *err)
{
    long number = 0;

    (void)curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &number);
    if (code == CURLE_COULDNT_CONNECT && (number == EACCES || number == EPERM))
        return pen_error_set(err, UV_EACCES, "%s/" PAGES_SOCKET " is the daemon's user's: try as root", state_dir);
    if (code == CURLE_COULDNT_CONNECT)
        return pen_error_set(err, UV_ENOENT, "no daemon answers in %s: it does not run, or runs with another state_dir", state_dir);
    return pen_error_set(err, UV_EIO, "the daemon does not answer as it should: %s", curl_easy_strerror(code));
}

int ask(const char *state_dir, const char *page, long seconds, struct buf *body, struct pen_error *err)
{
    CURL *curl = curl_easy_init();
    char path[4096], url[256];
    CURLcode code;
    long status = 0;
    int r = 0;

    if (curl == NULL)
        abort();
    (void)snprintf(path, sizeof(path), "%s/" PAGES_SOCKET, state_dir);
    (void)snprintf(url, sizeof(url), "http://localhost%s", page);
    body->size = 0;
    (void)curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, path);
    (void)curl_easy_setopt(curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(curl, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(curl, CURLOPT_TIMEOUT, seconds);
    (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
    code = curl_easy_perform(curl);
    if (code != CURLE_OK)
        r = ask_failed(curl, code, state_dir, err);
    else if (curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status) != CURLE_OK || status != 200)
        r = pen_error_set(err, UV_EIO, "the daemon answers with status %ld: is it another version?", status);
    curl_easy_cleanup(curl);
    return r;
}

int answer_get(struct answer *answer, const char *state_dir, long seconds, struct pen_error *err)
{
    const char *why;
    int r = ask(state_dir, "/status.json", seconds, &answer->body, err);

    answer->there = false;
    if (r < 0)
        return r;
    if (answer->tree == NULL)
        answer->tree = json_new();
    buf_reserve(&answer->body, JSON_PADDING);
    if (json_parse(answer->tree, answer->body.data, answer->body.size, &answer->root, &why) < 0)
        return pen_error_set(err, UV_EIO, "the daemon's answer is not JSON: %s", why);
    answer->there = true;
    return 0;
}

void answer_free(struct answer *answer)
{
    if (answer->tree != NULL)
        json_free(answer->tree);
    buf_free(&answer->body);
}
