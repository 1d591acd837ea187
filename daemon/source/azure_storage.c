/*
 * azure_storage.c - requests to one container, or to one queue, and how they are signed.
 *
 *     start ──▶ WAITING (for a token) ──▶ SENT ──▶ done
 *          └──▶ FAILED (no secret to be had; for a turn of the loop) ──▶ done
 *
 * The signature of Shared Key covers the path as it is sent and the query as it is meant, so both are made here from the
 * same texts, in request_send().
 */
#include "daemon/source/azure_storage.h"

#include "daemon/base/secret.h"
#include "daemon/source/azure_listing.h"
#include "daemon/source/azure_verdict.h"

#include <assert.h>
#include <curl/curl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#define UNRESERVED "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~"
#define KEY_MAX 256                  /* bytes of a key; they are 64 */

enum request_kind { REQUEST_LIST, REQUEST_GET, REQUEST_HEAD, REQUEST_RECEIVE, REQUEST_DELETE };
enum request_state { REQUEST_WAITING, REQUEST_SENT, REQUEST_FAILED };

struct storage_request {
    LIST_ENTRY(storage_request) entry;
    struct storage *storage;
    enum request_kind kind;
    enum request_state state;
    bool cancelled;                  /* WAITING for a token, which still comes */
    struct http_request *http;       /* SENT */
    char *token;
    char *failed;                    /* FAILED: why */
    char *name, *prefix, *marker;    /* name: of a blob, or of a message */
    char *receipt;
    unsigned hidden_s;
    message_told told;
    struct messages *messages;
    struct storage_list list;
    struct storage_get get;
    char if_match[STORAGE_ETAG_MAX + 4];
    struct listing *listing;
    struct listing_events events;
    uint64_t got;                    /* bytes of the range handed on */
    const char *trouble;             /* what was wrong with an answer that looked good */
    /* of the answer */
    uint64_t range_from, range_total;
    bool ranged;
    char etag[STORAGE_ETAG_MAX];
    struct storage_blob blob;
    storage_done done;
    void *arg;
};

struct storage {
    struct http *http;
    struct storage_conf conf;
    struct entra *entra;
    char *base;                      /* https://HOST[:PORT] */
    char *path;                      /* /CONTAINER, or /ACCOUNT/CONTAINER */
    char *account;
    char *secret;                    /* key or SAS; NULL: read it */
    size_t secret_size;
    int64_t skew_s;                  /* the service's clock less ours */
    bool has_time;
    struct storage_counts counts;
    LIST_HEAD(, storage_request) all;
    uv_timer_t later;                /* for those that failed before they were sent */
};

/* ---- Signing --------------------------------------------------------------------------------------------------- */

void storage_encode(struct buf *out, const char *text, const char *keep)
{
    for (; *text != '\0'; text++) {
        if (strchr(UNRESERVED, *text) != NULL || strchr(keep, *text) != NULL)
            buf_char(out, *text);
        else
            buf_text(out, "%%%02X", (unsigned char)*text);
    }
}

void storage_string_to_sign(struct buf *out, const struct storage_call *call)
{
    /* Verb, ten headers of which we send two at most, Range: Content-* and Date are empty, If-Match is the ninth line. */
    buf_text(out, "%s\n\n\n\n\n\n\n\n%s\n\n\n%s\n", call->method, call->if_match != NULL ? call->if_match : "",
             call->range != NULL ? call->range : "");
    buf_text(out, "x-ms-date:%s\nx-ms-version:" STORAGE_VERSION "\n", call->date);
    buf_text(out, "/%s%s", call->account, call->path);
    for (unsigned i = 0; i < call->query_count; i++)
        buf_text(out, "\n%s:%s", call->query[i].name, call->query[i].value);
}

/* Base64 without blanks; the size, or -1. */
static int key_decode(unsigned char out[KEY_MAX], const char *key)
{
    size_t size = strlen(key), pads = 0;
    int n;

    if (size == 0 || size % 4 != 0 || size / 4 * 3 > KEY_MAX)
        return -1;
    while (pads < 2 && key[size - 1 - pads] == '=')
        pads++;
    n = EVP_DecodeBlock(out, (const unsigned char *)key, (int)size);
    return n < 0 ? -1 : n - (int)pads;
}

int storage_sign(struct buf *out, const struct storage_call *call, const char *key)
{
    unsigned char raw[KEY_MAX + 3], mac[EVP_MAX_MD_SIZE];
    char text[EVP_MAX_MD_SIZE * 2];
    unsigned mac_size = 0;
    struct buf words = { 0 };
    int size = key_decode(raw, key);

    if (size < 0)
        return UV_EINVAL;
    storage_string_to_sign(&words, call);
    if (HMAC(EVP_sha256(), raw, size, (unsigned char *)words.data, words.size, mac, &mac_size) == NULL)
        abort();
    EVP_EncodeBlock((unsigned char *)text, mac, (int)mac_size);
    buf_text(out, "SharedKey %s:%s", call->account, text);
    explicit_bzero(raw, sizeof raw);
    buf_free(&words);
    return 0;
}

/* ---- Secrets --------------------------------------------------------------------------------------------------- */

static void storage_forget_secret(struct storage *storage)
{
    pen_secret_wipe(storage->secret, storage->secret_size);
    storage->secret = NULL;
}

/* People paste the whole URL, or the question mark with it. */
static void sas_trim(char *sas)
{
    char *mark = strchr(sas, '?');

    if (mark != NULL)
        memmove(sas, mark + 1, strlen(mark + 1) + 1);
}

static int storage_read_secret(struct storage *storage, struct pen_error *err)
{
    bool sas = storage->conf.auth == STORAGE_SAS;
    const char *path = sas ? storage->conf.sas_file : storage->conf.key_file;
    unsigned char raw[KEY_MAX + 3];
    int r;

    if (storage->secret != NULL)
        return 0;
    r = pen_secret_read(&storage->secret, &storage->secret_size, path, err);
    if (r < 0)
        return r;
    if (sas) {
        sas_trim(storage->secret);
        if (strstr(storage->secret, "sig=") == NULL || storage->secret[strcspn(storage->secret, " \t\r\n#\"'")] != '\0')
            r = pen_error_set(err, UV_EINVAL, "%s holds no SAS: expected sv=…&sp=rl&…&sig=…", path);
    } else if (key_decode(raw, storage->secret) < 0) {
        r = pen_error_set(err, UV_EINVAL, "%s holds no account key: expected the base64 text of key1 or key2", path);
    }
    explicit_bzero(raw, sizeof raw);
    if (r < 0)
        storage_forget_secret(storage);
    return r;
}

/* ---- Answers --------------------------------------------------------------------------------------------------- */

static void request_free(struct storage_request *request)
{
    LIST_REMOVE(request, entry);
    listing_free(request->listing);
    messages_free(request->messages);
    free(request->receipt);
    secret_text_free(request->token);
    free(request->failed);
    free(request->name);
    free(request->prefix);
    free(request->marker);
    free(request);
}

static void request_finish(struct storage_request *request, const struct storage_answer *answer)
{
    request->done(request->arg, answer);
    request_free(request);
}

static void request_fail(struct storage_request *request, enum storage_verdict verdict, int64_t retry_after_ms, const char *why)
{
    request_finish(request, &(struct storage_answer){ .verdict = verdict, .retry_after_ms = retry_after_ms, .why = why,
                                                      .marker = "" });
}

static bool header_number(struct pen_span text, uint64_t *value)
{
    uint64_t number = 0;

    if (text.size == 0 || text.size > 18)
        return false;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        number = number * 10 + (uint64_t)(text.data[i] - '0');
    }
    *value = number;
    return true;
}

static int64_t header_date(struct pen_span value)
{
    char text[64];
    time_t date;

    snprintf(text, sizeof text, "%.*s", (int)(value.size < 63 ? value.size : 63), value.data);
    date = curl_getdate(text, NULL);
    return date > 0 && date < (time_t)1 << 38 ? date : 0;
}

/* "bytes 0-99/1234", or "bytes * /1234" where there is no such range. */
static void header_range(struct storage_request *request, struct pen_span value)
{
    char text[128], *slash, *dash;

    snprintf(text, sizeof text, "%.*s", (int)(value.size < 127 ? value.size : 127), value.data);
    slash = strchr(text, '/');
    dash = strchr(text, '-');
    if (strncmp(text, "bytes ", 6) != 0 || slash == NULL || dash == NULL || dash > slash)
        return;
    request->ranged = header_number((struct pen_span){ text + 6, (size_t)(dash - text - 6) }, &request->range_from) &&
                      header_number((struct pen_span){ slash + 1, strlen(slash + 1) }, &request->range_total);
}

static bool name_is(struct pen_span name, const char *text)
{
    return name.size == strlen(text) && strncasecmp(name.data, text, name.size) == 0;
}

static void on_header(void *arg, struct pen_span name, struct pen_span value)
{
    struct storage_request *request = arg;
    struct storage_blob *blob = &request->blob;

    if (name_is(name, "Date")) {
        int64_t date = header_date(value);

        if (date > 0) {
            request->storage->skew_s = date - (int64_t)time(NULL);
            request->storage->has_time = true;
        }
    } else if (name_is(name, "ETag")) {
        while (value.size > 0 && (value.data[0] == '"'))
            value.data++, value.size--;
        while (value.size > 0 && value.data[value.size - 1] == '"')
            value.size--;
        if (value.size < sizeof request->etag)
            snprintf(request->etag, sizeof request->etag, "%.*s", (int)value.size, value.data);
    } else if (name_is(name, "Content-Length")) {
        header_number(value, &blob->size);
    } else if (name_is(name, "Content-Range")) {
        header_range(request, value);
    } else if (name_is(name, "Last-Modified")) {
        blob->modified = header_date(value);
    } else if (name_is(name, "x-ms-creation-time")) {
        blob->created = header_date(value);
    } else if (name_is(name, "x-ms-blob-type")) {
        blob->kind = name_is(value, "BlockBlob") ? STORAGE_BLOCK : name_is(value, "AppendBlob") ? STORAGE_APPEND
                                                                                                   : STORAGE_OTHER;
    }
}

static bool on_range(struct storage_request *request, int status, const char *data, size_t size)
{
    const struct storage_get *get = &request->get;
    uint64_t room = get->size - request->got;

    /* A far end, or a proxy, that does not know ranges sends the blob from its start: not what was asked. */
    if (status == 206 ? !request->ranged || request->range_from != get->from : get->from > 0) {
        request->trouble = "the far end did not send the range that was asked for";
        return false;
    }
    if (size > room) {
        request->trouble = "the far end sent more than was asked for";
        return false;
    }
    request->got += size;
    return get->on_data(request->arg, data, size);
}

static bool on_data(void *arg, int status, const char *data, size_t size)
{
    struct storage_request *request = arg;

    switch (request->kind) {
    case REQUEST_LIST:
        request->storage->counts.listed += size;
        return listing_feed(request->listing, data, size);
    case REQUEST_GET:
        request->storage->counts.fetched += size;
        return on_range(request, status, data, size);
    case REQUEST_RECEIVE:
        return messages_feed(request->messages, data, size);
    case REQUEST_DELETE:
        return true;
    case REQUEST_HEAD:
        break;
    }
    return false;
}

static void request_explain(const struct storage_request *request, const struct http_answer *answer, const char *sentence,
                            char why[static 512])
{
    static const char *const kinds[] = { [REQUEST_LIST] = "listing", [REQUEST_GET] = "reading", [REQUEST_HEAD] = "reading",
                                         [REQUEST_RECEIVE] = "receiving", [REQUEST_DELETE] = "deleting a message" };
    const char *doing = kinds[request->kind];

    if (answer->status == 0)
        snprintf(why, 512, "%s: %.*s: %.*s", doing, 180, answer->trouble, 250, sentence);
    else
        snprintf(why, 512, "%s: status %d%s%.*s%s%.*s: %.*s", doing, answer->status, answer->error_code ? ", " : "", 60,
                 answer->error_code ? answer->error_code : "", answer->request_id ? ", request " : "", 60,
                 answer->request_id ? answer->request_id : "", 290, sentence);
}

/* An answer of the far end that was not a refusal may still be none. */
static enum storage_verdict request_check(struct storage_request *request, const char **sentence)
{
    if (request->kind == REQUEST_LIST && !listing_end(request->listing))
        *sentence = listing_trouble(request->listing);
    else if (request->kind == REQUEST_RECEIVE && !messages_end(request->messages))
        *sentence = messages_trouble(request->messages);
    else if (request->trouble != NULL)
        *sentence = request->trouble;
    else
        return STORAGE_OK;
    return STORAGE_BUSY;
}

/* Not where the app lacks a right: a new token would say the same. */
static bool storage_is_token_refused(const struct http_answer *answer)
{
    return answer->status == 401 || (answer->error_code != NULL && strcmp(answer->error_code, "AuthenticationFailed") == 0);
}

static void on_answer(void *arg, const struct http_answer *answer)
{
    struct storage_request *request = arg;
    struct storage *storage = request->storage;
    struct storage_answer told = { .retry_after_ms = answer->retry_after_ms, .marker = "", .blob = request->blob };
    const char *sentence = NULL, *hint;
    char why[512];

    if (answer->status == 0) {
        told.verdict = verdict_failure(answer->failure, &sentence);
        if (request->trouble != NULL || (request->listing != NULL && listing_trouble(request->listing) != NULL) ||
            (request->messages != NULL && messages_trouble(request->messages) != NULL))
            told.verdict = request_check(request, &sentence);        /* it was we who hung up */
    } else {
        told.verdict = verdict_judge(storage->conf.queue, answer->status, answer->error_code, &sentence);
        /* A container has no blob of its name: what is gone there is the container. */
        if (told.verdict == STORAGE_GONE && request->kind == REQUEST_LIST)
            told.verdict = verdict_judge(false, 404, "ContainerNotFound", &sentence);
        if (told.verdict == STORAGE_OK)
            told.verdict = request_check(request, &sentence);
    }
    if (told.verdict == STORAGE_REFUSED) {
        hint = NULL;
        if (answer->status == 401 || answer->status == 403)
            hint = verdict_hint(&storage->conf, storage->conf.auth == STORAGE_SAS ? storage->secret : NULL, storage->skew_s);
        sentence = hint != NULL ? hint : sentence;
        if (storage->entra != NULL && request->token != NULL && storage_is_token_refused(answer))
            entra_spoiled(storage->entra, request->token);
        storage_forget_secret(storage);
    }
    request_explain(request, answer, sentence, why);
    told.why = why;
    told.blob.etag = request->etag;
    if (request->ranged)
        told.blob.size = request->range_total;
    if (request->kind == REQUEST_LIST && told.verdict == STORAGE_OK)
        told.marker = listing_marker(request->listing);
    request_finish(request, &told);
}

/* ---- Sending --------------------------------------------------------------------------------------------------- */

static void on_later(uv_timer_t *timer)
{
    struct storage *storage = timer->data;
    struct storage_request *request;

    LIST_FOREACH(request, &storage->all, entry)
        if (request->state == REQUEST_FAILED)
            break;
    if (request == NULL)
        return;
    uv_timer_start(timer, on_later, 0, 0);         /* there may be more; and done() may close us */
    request_fail(request, STORAGE_REFUSED, -1, request->failed);
}

static void call_date(char date[static 64], int64_t now)
{
    static const char *const days[] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
    static const char *const months[] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
    time_t t = (time_t)now;
    struct tm tm;

    gmtime_r(&t, &tm);
    snprintf(date, 64, "%s, %02d %s %04d %02d:%02d:%02d GMT", days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon],
             tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

static void call_put(struct storage_call *call, const char *name, const char *value)
{
    if (value != NULL && *value != '\0')
        call->query[call->query_count++] = (struct storage_pair){ name, value };
}

/* Calls nobody back. */
static void request_send(struct storage_request *request)
{
    struct storage *storage = request->storage;
    const char *headers[6] = { "x-ms-version: " STORAGE_VERSION };
    struct buf path = { 0 }, url = { 0 }, proof = { 0 };
    char date[64], range[64], max[16], hidden[16], lines[3][128];
    struct storage_call call = { .account = storage->account, .date = date };
    struct http_ask ask = { .headers = headers, .conf = storage->conf.http, .on_header = on_header, .on_data = on_data };
    struct pen_error err = { 0 };
    unsigned count = 1;

    if (storage->entra == NULL && storage_read_secret(storage, &err) < 0) {
        request->state = REQUEST_FAILED;
        request->failed = strdup(err.text);
        uv_timer_start(&storage->later, on_later, 0, 0);
        return;
    }
    call.method = ask.method = request->kind == REQUEST_HEAD ? "HEAD" : request->kind == REQUEST_DELETE ? "DELETE" : "GET";
    buf_text(&path, "%s", storage->path);
    if (request->kind == REQUEST_LIST) {
        snprintf(max, sizeof max, "%u", request->list.max);
        call_put(&call, "comp", "list");
        call_put(&call, "delimiter", request->list.folders ? "/" : NULL);
        call_put(&call, "marker", request->marker);
        call_put(&call, "maxresults", max);
        call_put(&call, "prefix", request->prefix);
        call_put(&call, "restype", "container");
    } else if (request->kind == REQUEST_RECEIVE) {
        buf_text(&path, "/messages");
        snprintf(max, sizeof max, "%u", MESSAGES_MAX);
        snprintf(hidden, sizeof hidden, "%u", request->hidden_s);
        call_put(&call, "numofmessages", max);
        call_put(&call, "visibilitytimeout", hidden);
    } else if (request->kind == REQUEST_DELETE) {
        buf_text(&path, "/messages/");
        storage_encode(&path, request->name, "");
        call_put(&call, "popreceipt", request->receipt);
    } else {
        buf_char(&path, '/');
        storage_encode(&path, request->name, "/=");
    }
    buf_char(&path, '\0');
    call.path = path.data;
    if (request->kind == REQUEST_GET) {
        snprintf(range, sizeof range, "bytes=%llu-%llu", (unsigned long long)request->get.from,
                 (unsigned long long)(request->get.from + request->get.size - 1));
        call.range = range;
        call.if_match = request->if_match[0] != '\0' ? request->if_match : NULL;
    }
    call_date(date, (int64_t)time(NULL));

    buf_text(&url, "%s%s", storage->base, path.data);
    for (unsigned i = 0; i < call.query_count; i++) {
        buf_text(&url, "%c%s=", i == 0 ? '?' : '&', call.query[i].name);
        storage_encode(&url, call.query[i].value, "");
    }
    if (storage->conf.auth == STORAGE_SAS)
        buf_text(&url, "%c%s", call.query_count == 0 ? '?' : '&', storage->secret);
    buf_char(&url, '\0');

    snprintf(lines[0], sizeof lines[0], "x-ms-date: %s", date);
    headers[count++] = lines[0];
    if (call.range != NULL) {
        snprintf(lines[1], sizeof lines[1], "Range: %s", call.range);
        headers[count++] = lines[1];
    }
    if (call.if_match != NULL) {
        snprintf(lines[2], sizeof lines[2], "If-Match: %s", call.if_match);
        headers[count++] = lines[2];
    }
    if (storage->conf.auth != STORAGE_SAS) {
        buf_text(&proof, "Authorization: ");
        if (storage->entra != NULL)
            buf_text(&proof, "Bearer %s", request->token);
        else
            storage_sign(&proof, &call, storage->secret);
        buf_char(&proof, '\0');
        headers[count++] = proof.data;
    }
    if (request->kind == REQUEST_RECEIVE)
        request->messages = messages_new(request->told, request->arg);
    if (request->kind == REQUEST_LIST)
        request->listing = listing_new(&request->events, request->arg);
    ask.url = url.data;
    request->state = REQUEST_SENT;
    storage->counts.requests++;
    request->http = http_start(storage->http, &ask, on_answer, request);
    explicit_bzero(url.data, url.size);
    if (proof.data != NULL)
        explicit_bzero(proof.data, proof.size);
    buf_free(&path);
    buf_free(&url);
    buf_free(&proof);
}

static void on_token(void *arg, const char *token, bool refused, int64_t retry_after_ms, const char *why)
{
    struct storage_request *request = arg;

    if (request->cancelled) {
        request_free(request);
        return;
    }
    if (token == NULL) {
        request_fail(request, refused ? STORAGE_REFUSED : STORAGE_BUSY, retry_after_ms, why);
        return;
    }
    request->token = secret_text("%s", token);
    request_send(request);
}

static char *copied(const char *text)
{
    char *copy = text != NULL ? strdup(text) : NULL;

    if (text != NULL && copy == NULL)
        abort();
    return copy;
}

static struct storage_request *request_new(struct storage *storage, enum request_kind kind, storage_done done, void *arg)
{
    struct storage_request *request = calloc(1, sizeof *request);

    if (request == NULL)
        abort();
    request->storage = storage;
    request->kind = kind;
    request->done = done;
    request->arg = arg;
    request->blob.kind = STORAGE_BLOCK;
    LIST_INSERT_HEAD(&storage->all, request, entry);
    return request;
}

static struct storage_request *request_start(struct storage_request *request)
{
    if (request->storage->entra != NULL)
        entra_token(request->storage->entra, on_token, request);
    else
        request_send(request);
    return request;
}

struct storage_request *storage_list(struct storage *storage, const struct storage_list *list, storage_done done, void *arg)
{
    struct storage_request *request = request_new(storage, REQUEST_LIST, done, arg);

    request->list = *list;
    request->prefix = copied(list->prefix);
    request->marker = copied(list->marker);
    request->events = (struct listing_events){ list->on_blob, list->on_folder };
    return request_start(request);
}

struct storage_request *storage_get(struct storage *storage, const struct storage_get *get, storage_done done, void *arg)
{
    struct storage_request *request = request_new(storage, REQUEST_GET, done, arg);

    assert(get->size > 0);
    request->get = *get;
    request->name = copied(get->name);
    if (get->etag != NULL)
        snprintf(request->if_match, sizeof request->if_match, "\"%.*s\"", STORAGE_ETAG_MAX, get->etag);
    return request_start(request);
}

struct storage_request *storage_head(struct storage *storage, const char *name, storage_done done, void *arg)
{
    struct storage_request *request = request_new(storage, REQUEST_HEAD, done, arg);

    request->name = copied(name);
    return request_start(request);
}

struct storage_request *storage_receive(struct storage *storage, unsigned hidden_s, message_told told, storage_done done, void *arg)
{
    struct storage_request *request = request_new(storage, REQUEST_RECEIVE, done, arg);

    request->hidden_s = hidden_s;
    request->told = told;
    return request_start(request);
}

struct storage_request *storage_delete(struct storage *storage, const char *id, const char *receipt, storage_done done, void *arg)
{
    struct storage_request *request = request_new(storage, REQUEST_DELETE, done, arg);

    request->name = copied(id);
    request->receipt = copied(receipt);
    return request_start(request);
}

void storage_cancel(struct storage_request *request)
{
    if (request->state == REQUEST_WAITING) {
        request->cancelled = true;
        return;
    }
    if (request->state == REQUEST_SENT)
        http_cancel(request->http);
    request_free(request);
}

/* ---- Open and close -------------------------------------------------------------------------------------------- */

/* Splits https://HOST[:PORT]/CONTAINER; with an account before the container where the host is no account's own. */
static int container_split(const char *url, char **base, char **path, char **account, struct pen_error *err)
{
    struct pen_error inner = { 0 };
    const char *host, *slash, *second;
    size_t size;

    if (strchr(url, '?') != NULL || strstr(url, "sig=") != NULL)
        return pen_error_set(err, UV_EINVAL, "container: what stands behind the '?' is a secret: put it into a file and name that in "
                             "sas_file");
    if (http_url_check(url, 0, &inner) < 0)
        return pen_error_set(err, UV_EINVAL, "container: %.*s", 400, inner.text);
    host = strstr(url, "://") + 3;
    if (strcasestr(host, ".dfs.core.") != NULL)
        return pen_error_set(err, UV_EINVAL, "container: blobs are read at the account's blob endpoint: write .blob.core. in place of "
                             ".dfs.core.");
    slash = strchr(host, '/');
    size = strlen(url);
    if (slash == NULL || strchr(url, '#') != NULL || strchr(url, '%') != NULL)
        return pen_error_set(err, UV_EINVAL, "container: expected https://ACCOUNT.blob.core.windows.net/CONTAINER");
    while (size > 0 && url[size - 1] == '/')
        size--;
    second = memchr(slash + 1, '/', size > (size_t)(slash + 1 - url) ? size - (size_t)(slash + 1 - url) : 0);
    if (size <= (size_t)(slash + 1 - url) || (second != NULL && memchr(second + 1, '/', size - (size_t)(second + 1 - url))))
        return pen_error_set(err, UV_EINVAL, "container: expected https://ACCOUNT.blob.core.windows.net/CONTAINER; what lies within a "
                             "container is chosen by prefix");
    if (second != NULL && host[strcspn(host, "/:")] == '/' && strspn(host, "0123456789.") < (size_t)(slash - host))
        return pen_error_set(err, UV_EINVAL, "container: expected https://ACCOUNT.blob.core.windows.net/CONTAINER; what lies within a "
                             "container is chosen by prefix");
    *base = strndup(url, (size_t)(slash - url));
    *path = strndup(slash, size - (size_t)(slash - url));
    *account = second != NULL ? strndup(slash + 1, (size_t)(second - slash - 1)) : strndup(host, strcspn(host, ".:/"));
    if (*base == NULL || *path == NULL || *account == NULL)
        abort();
    return 0;
}

int storage_conf_check(const struct storage_conf *conf, struct pen_error *err)
{
    char *base = NULL, *path = NULL, *account = NULL;
    int r = container_split(conf->container, &base, &path, &account, err);

    free(base);
    free(path);
    free(account);
    if (r < 0)
        return conf->queue ? pen_error_set(err, UV_EINVAL, "queue: expected https://ACCOUNT.queue.core.windows.net/QUEUE") : r;
    switch (conf->auth) {
    case STORAGE_SAS:
        return conf->sas_file != NULL ? 0 : pen_error_set(err, UV_EINVAL, "sas_file: auth = sas needs it: the file with the SAS");
    case STORAGE_KEY:
        return conf->key_file != NULL ? 0
                                      : pen_error_set(err, UV_EINVAL, "key_file: auth = key needs it: the file with the account's key");
    case STORAGE_ENTRA:
        r = entra_conf_check(&conf->entra, err);
        return r < 0 ? r : entra_cloud_check(&conf->entra, "container", conf->container, err);
    }
    return 0;
}

static void storage_free(struct storage *storage)
{
    free(storage->base);
    free(storage->path);
    free(storage->account);
    free(storage);
}

int storage_new(struct storage **ret, struct http *http, uv_loop_t *loop, const struct storage_conf *conf,
                struct pen_error *err)
{
    struct storage *storage;
    int r = storage_conf_check(conf, err);

    if (r < 0)
        return r;
    storage = calloc(1, sizeof *storage);
    if (storage == NULL)
        abort();
    storage->http = http;
    storage->conf = *conf;
    LIST_INIT(&storage->all);
    r = container_split(conf->container, &storage->base, &storage->path, &storage->account, err);
    if (r == 0 && conf->auth == STORAGE_ENTRA)
        r = entra_new(&storage->entra, http, loop, &storage->conf.entra, err);
    if (r < 0) {
        storage_free(storage);
        return r;
    }
    uv_timer_init(loop, &storage->later);
    storage->later.data = storage;
    *ret = storage;
    return 0;
}

static void on_later_closed(uv_handle_t *handle)
{
    storage_free(handle->data);
}

void storage_close(struct storage *storage)
{
    struct storage_request *request, *next;

    if (storage == NULL)
        return;
    entra_close(storage->entra);     /* drops the callbacks of those that wait */
    for (request = LIST_FIRST(&storage->all); request != NULL; request = next) {
        next = LIST_NEXT(request, entry);
        if (request->state == REQUEST_SENT)
            http_cancel(request->http);
        request_free(request);
    }
    storage_forget_secret(storage);
    uv_close((uv_handle_t *)&storage->later, on_later_closed);
}

int64_t storage_now(const struct storage *storage)
{
    return (int64_t)time(NULL) + storage->skew_s;
}

bool storage_has_time(const struct storage *storage)
{
    return storage->has_time;
}

uint64_t storage_token_ms(const struct storage *storage)
{
    return storage->entra != NULL ? entra_life_ms(storage->entra) : UINT64_MAX;
}

const struct storage_counts *storage_counts(const struct storage *storage)
{
    return &storage->counts;
}
