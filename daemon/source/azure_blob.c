/*
 * azure_blob.c - the azure-blob source: a container of a million blobs, of which a few hundred still grow.
 *
 * What there is. Azure writes PLACE/y=2026/m=11/d=22/h=18/m=00/…, one folder an hour, and goes on writing into an hour for
 * some minutes after it. A *place* (azure_hours.h) is read in the order of its hours. Three walks find what there is:
 *
 *   discover   every `rescan`: folder by folder down to the y=, to find places. Hours are not looked into.
 *   place      every `poll`: the hours from `next` to now, each by its own prefix. After a pause, or at first, the folders
 *              from `next` on, years before months before days, and whole as soon as nothing in them lies before it.
 *   sweep      every `relist`: all names, to find what was written into hours that were let go. Rate-limited by being one
 *              walk, one page at a time.
 *
 * What is remembered. Of each place one number, `next`: every hour before it is done with. Of each blob from `next` on a
 * row with its position, its ETag when it was read to its end, and a print (azure_reader.c). So memory and state follow the
 * hours that still grow, not the container. A listing that shows the same ETag costs no request for the blob.
 *
 * When an hour is let go. Once it is over for `watch`, a whole walk begun after that has seen it, and each of its blobs was
 * read to its end as of that walk, is safe, and has not changed for `watch` (within a day of its hour: a copied archive is
 * new all over). Its rows go in the same transaction in which `next` moves. What is over, the service's clock tells: nothing is
 * judged before its first answer.
 *
 * As `next` passes an hour, it is judged: one without a blob, though nearly all of the day before had one, is counted and
 * said (hours_miss). Of each place 32 bits tell which hours had one; they are in its row.
 *
 * What is written later into an hour that was let go is found by the sweep: its Last-Modified is later than both the
 * hour's end + `watch` and the sweep before. It is called a straggler and read from its start, since its position is
 * forgotten: what had been read of it comes a second time, with the same event ids. It is forgotten again after a sweep.
 *
 * With a queue (azure_notice.c), what is written is heard of by its messages, and places are walked every `rescan` only, but for
 * those with append blobs, of which no notices come. All that is said above holds with it as without.
 *
 * What lies in no place (other layouts, single files) is found by sweeps alone, which then come as often as they can: every
 * `poll`, or ten times as long as one takes. What was not modified since the last sweep began is done with; while a sweep is
 * under way, so is what lies before the name it has reached (saved, so that a restart need not read it again) and was not
 * modified since it began. Of the LOOSE_MAX blobs last modified the positions are kept; an older one that grows is read
 * from its start again.
 *
 * A replay (`once`) discovers once, walks each place once, from where its window begins, and sweeps once if something lies in no
 * place; names whose hours cannot hold anything of the window are passed over, and folders not entered. A place is walked again
 * only for blobs that changed while they were read. The queue is left alone.
 *
 * What can be lost, as far as we know:
 *
 *   - a blob deleted before it was read (a retention shorter than the backlog), and what was appended before a deletion;
 *   - a blob written over by a longer one that has the same 64 bytes just before our position: its beginning is not read.
 *     So is that of any other one, where we died before all that was read of the old one was safe: then no print is known.
 *   - what is written into an hour that was let go, with relist = 0.
 *
 * Where it must guess it reads again rather than skip, and says so.
 */
#include "daemon/source/azure_blob.h"

#include "daemon/base/log.h"
#include "daemon/record/window.h"
#include "daemon/source/azure_hours.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STREAMS_MAX 2048             /* blobs with something that is not safe yet */
#define HOLD_MIN_MS 1000
#define HOLD_MAX_MS 60000
#define HOLD_ASKED_MAX_MS 600000     /* of a Retry-After */

#define ROW(member) offsetof(struct blob_source, member)

/* Entra's own ways (enum entra_auth), and three more. */
enum { AUTH_ENTRA = ENTRA_AUTHS, AUTH_KEY, AUTH_SAS };
static const char *const auth_choices[] = {
    [ENTRA_AUTO] = "auto", [ENTRA_SECRET] = "secret", [ENTRA_CERTIFICATE] = "certificate", [ENTRA_WORKLOAD] = "workload-identity",
    [ENTRA_MANAGED] = "managed-identity", [AUTH_ENTRA] = "entra", [AUTH_KEY] = "key", [AUTH_SAS] = "sas", NULL,
};

static const struct pen_option blob_options[] = {
    { "container", PEN_URL, ROW(container), .required = true,
      .help = "The container's address: https://ACCOUNT.blob.core.windows.net/CONTAINER." },
    { "auth", PEN_CHOICE, ROW(auth), .required = true, .choices = auth_choices,
      .help = "How to enter: sas, key (the account's), or as an identity of Entra with the role Storage Blob Data Reader; entra is "
              "auto: what the files below say, else the environment (AZURE_…), else the machine's managed identity." },
    { "sas_file", PEN_SECRET_FILE, ROW(sas_file), .help = "auth = sas: file with the SAS; it must allow read and list." },
    { "key_file", PEN_SECRET_FILE, ROW(key_file), .help = "auth = key: file with one of the account's keys." },
    ENTRA_ROWS(struct blob_source, entra),
    { "queue", PEN_URL, ROW(queue),
      .help = "A storage queue, https://ACCOUNT.queue.core.windows.net/QUEUE, to which Event Grid sends what is written." },
    { "queue_sas_file", PEN_SECRET_FILE, ROW(queue_sas_file),
      .help = "auth = sas: file with the queue's SAS; it must allow to process. Without the row: sas_file." },
    { "prefix", PEN_LIST, ROW(prefix), .help = "Beginnings of the names to read; without it the whole container." },
    { "since", PEN_TEXT, ROW(since),
      .help = "Where the very first start begins: a date (2026-11-22), a time (2026-11-22T18:00Z) or now; without it, at the "
              "oldest." },
    { "poll", PEN_MS, ROW(poll_ms), .fallback = "60s", .min = 10, .max = 86400000,
      .help = "How often hours that may still grow are listed; with queue, how often that is asked." },
    { "rescan", PEN_MS, ROW(rescan_ms), .fallback = "15m", .min = 10, .max = 86400000,
      .help = "How often the folders are looked through for new resources; with queue, the hours too." },
    { "watch", PEN_MS, ROW(watch_ms), .fallback = "2h", .min = 1000, .max = 604800000,
      .help = "How long after its end, and after its last change, an hour may still grow." },
    { "relist", PEN_MS, ROW(relist_ms), .fallback = "1d", .min = 0, .max = 2592000000,
      .help = "How often every name is listed, for what was written into hours thought over; 0 is never." },
    { "parallel", PEN_INT, ROW(parallel), .fallback = "8", .min = 1, .max = 64, .help = "Blobs read at once." },
    { "chunk", PEN_BYTES, ROW(chunk), .fallback = "512K", .min = 4096, .max = 16777216,
      .help = "Bytes asked for at once." },
    { "timeout", PEN_MS, ROW(timeout_ms), .fallback = "60s", .min = 1000, .max = 600000,
      .help = "Longest wait for one answer." },
    { "connect_timeout", PEN_MS, ROW(connect_timeout_ms), .fallback = "10s", .min = 500, .max = 60000,
      .help = "Longest wait for a connection." },
    { "proxy", PEN_TEXT, ROW(proxy),
      .help = "HTTP proxy, http://HOST:PORT; \"none\" for none; without the row, as the environment's https_proxy says." },
    { "ca_file", PEN_PATH, ROW(ca_file), .help = "PEM file of the CAs to trust in place of the system's." },
    { 0 }
};

static void source_note_at_rest(struct blob_source *source);

/* ---- Work ------------------------------------------------------------------------------------------------------ */

static struct want *want_new(const struct storage_blob *entry)
{
    struct want *want = calloc(1, sizeof *want);

    if (want == NULL || (want->name = strdup(entry->name)) == NULL)
        abort();
    strcpy(want->etag, entry->etag);
    want->size = entry->size;
    want->modified = entry->modified;
    want->created = entry->created;
    want->kind = entry->kind;
    return want;
}

void blob_ready(struct blob *blob, const struct storage_blob *entry, bool final)
{
    struct blob_source *source = blob->place->source;

    assert(blob->state == BLOB_IDLE && blob->want == NULL);
    if (blob->stream != NULL)
        TAILQ_REMOVE(&source->settling, blob, turn);
    if (blob->created == 0)
        blob->created = entry->created;
    blob->want = want_new(entry);
    blob->want->final = final;
    source->wanted += entry->size - (blob->packed || blob->position > entry->size ? 0 : blob->position);
    blob->end_etag = 0;
    blob->state = BLOB_READY;
    /* What is written now does not wait behind a backlog. */
    if (blob->hour >= hours_at(storage_now(source->storage)) - 1)
        TAILQ_INSERT_HEAD(&source->ready, blob, turn);
    else
        TAILQ_INSERT_TAIL(&source->ready, blob, turn);
    source->ready_count++;
    source_kick(source);
}

void blob_rest(struct blob *blob)
{
    struct blob_source *source = blob->place->source;

    blob->state = BLOB_IDLE;
    source->busy--;
    if (blob->stream != NULL)
        TAILQ_INSERT_TAIL(&source->settling, blob, turn);
    else
        blob->place->dirty = true;
    blob_settled_for_sweep(blob);    /* without a row where there was nothing in it */
    if (blob->anew && blob->stream == NULL)
        blob_reset(blob);
    if (source->closing)
        source_note_at_rest(source);
    else
        source_kick(source);
}

void blob_wait(struct blob *blob, bool first)
{
    struct blob_source *source = blob->place->source;

    blob->state = BLOB_READY;
    source->busy--;
    if (first)
        TAILQ_INSERT_HEAD(&source->ready, blob, turn);
    else
        TAILQ_INSERT_TAIL(&source->ready, blob, turn);
    source->ready_count++;
    if (source->closing)
        source_note_at_rest(source);
}

/* What may happen to thousands of blobs is said of the first, the second, the fourth, and so on, with their number. */
bool source_says(uint64_t *count)
{
    ++*count;
    return (*count & (*count - 1)) == 0;
}

void blob_vanish(struct blob *blob)
{
    struct blob_source *source = blob->place->source;

    if (source_says(&source->vanished))
        log_line(LOG_WARN, "a blob was deleted before it was read to its end", "source", source_name(source->host), "blob",
                 blob->want->name, "position", log_number(blob_position(blob)), "size", log_number(blob->want->size), "blobs",
                 log_number(source->vanished), NULL);
    source_trouble(source->host);
    blob->end_etag = 1;              /* there will be no more */
    blob->torn = false;
    blob_want_free(blob);
    blob_rest(blob);
}

bool source_may_fetch(const struct blob_source *source)
{
    return !source->closing && flow_is_open(source->host) && source_now_ms(source->host) >= source->hold_ms;
}

/* ---- What the service says about us ---------------------------------------------------------------------------- */

static void source_hold(struct blob_source *source, uint64_t delay_ms)
{
    uint64_t until = source_now_ms(source->host) + delay_ms;

    if (until > source->hold_ms)
        source->hold_ms = until;
}

static void source_busy(struct blob_source *source, const struct storage_answer *answer)
{
    int64_t asked_ms;

    if (source_now_ms(source->host) >= source->hold_ms)            /* those sent before the hold say no more than the first */
        source->backoff_ms = source->backoff_ms == 0 ? HOLD_MIN_MS
                           : source->backoff_ms * 2 < HOLD_MAX_MS ? source->backoff_ms * 2 : HOLD_MAX_MS;
    asked_ms = answer->retry_after_ms < HOLD_ASKED_MAX_MS ? answer->retry_after_ms : HOLD_ASKED_MAX_MS;
    source_hold(source, asked_ms > (int64_t)source->backoff_ms ? (uint64_t)asked_ms : source->backoff_ms);
    if (!source->busy_said && source->backoff_ms > HOLD_MIN_MS * 4) {
        log_line(LOG_WARN, "the container cannot be read for now: tried again", "source", source_name(source->host), "error",
                 answer->why, NULL);
        source->busy_said = true;
        source_trouble(source->host);
    }
}

static void source_refused(struct blob_source *source, const struct storage_answer *answer, bool *said)
{
    source_hold(source, source->poll_ms < HOLD_MIN_MS ? HOLD_MIN_MS : source->poll_ms < HOLD_MAX_MS ? source->poll_ms
                                                                                                      : HOLD_MAX_MS);
    if (!*said) {
        log_line(LOG_ERROR, "the container may not be read: tried again with every poll", "source", source_name(source->host),
                 "error", answer->why, NULL);
        source_trouble(source->host);
    }
    *said = true;
}

void source_heard(struct blob_source *source, const struct storage_answer *answer, bool listing)
{
    bool *refused = listing ? &source->refused_list : &source->refused_read;

    switch (answer->verdict) {
    case STORAGE_OK:
        source->backoff_ms = 0;
        if (*refused || source->busy_said)
            log_line(LOG_NOTE, "the container can be read again", "source", source_name(source->host), NULL);
        *refused = source->busy_said = false;
        break;
    case STORAGE_BUSY:
        source_busy(source, answer);
        break;
    case STORAGE_REFUSED:
        source_refused(source, answer, refused);
        break;
    case STORAGE_GONE:
    case STORAGE_CHANGED:
    case STORAGE_BEYOND:
    case STORAGE_LOCKED:
        break;
    }
    source_is_ailing(source->host, source->busy_said || source->refused_list || source->refused_read);
    source_kick(source);
}

/* ---- Turns ----------------------------------------------------------------------------------------------------- */

static void on_turn(uv_timer_t *timer)
{
    struct blob_source *source = timer->data;
    struct blob *blob;

    if (!source_may_fetch(source))
        return;
    find_turn(source);
    notices_turn(source->notices);
    while (source->busy < source->parallel && source_may_fetch(source) && (blob = TAILQ_FIRST(&source->ready)) != NULL &&
           (blob->stream != NULL || source->stream_count < STREAMS_MAX)) {
        TAILQ_REMOVE(&source->ready, blob, turn);
        source->ready_count--;
        source->busy++;
        blob_start(blob);
    }
}

void source_kick(struct blob_source *source)
{
    if (!source->closing && !uv_is_active((uv_handle_t *)&source->turn))
        uv_timer_start(&source->turn, on_turn, 0, 0);
}

static void on_tick(uv_timer_t *timer)
{
    struct blob_source *source = timer->data;

    if (source->closing)
        return;
    find_tick(source);
    if (source->once && !source->drained && find_is_done(source)) {
        source->drained = true;
        source_drained(source->host);
        return;
    }
    source_kick(source);
}

/* ---- Settings -------------------------------------------------------------------------------------------------- */

/* A replay begins where its window does, not where the source did. */
static void source_take_window(struct blob_source *source)
{
    const struct window *window = source_window(source->host);

    source->once = source_is_once(source->host);
    if (!source->once)
        return;
    source->since_s = 0;
    if (window != NULL && window->from_ticks > WINDOW_EARLY_S * WINDOW_TICKS_A_SECOND)
        source->since_s = window->from_ticks / WINDOW_TICKS_A_SECOND - WINDOW_EARLY_S;
}

/* Seconds since 1970; 0: at the oldest; -1: now. */
static int since_read(const char *text, int64_t *since, struct pen_error *err)
{
    static const char *const forms[] = { "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ", "%Y-%m-%dT%HZ", "%Y-%m-%d" };
    struct tm tm;
    const char *end;

    *since = 0;
    if (text == NULL)
        return 0;
    if (strcmp(text, "now") == 0) {
        *since = -1;
        return 0;
    }
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        tm = (struct tm){ 0 };
        end = strptime(text, forms[i], &tm);
        if (end != NULL && *end == '\0' && timegm(&tm) >= 0) {
            *since = timegm(&tm);
            return 0;
        }
    }
    return pen_error_set(err, UV_EINVAL, "since: expected a date (2026-11-22), a time in UTC (2026-11-22T18:00Z) or now");
}

static struct storage_conf source_conf(const struct blob_source *source)
{
    struct http_conf http = {
        .proxy = source->proxy != NULL && strcmp(source->proxy, "none") == 0 ? "" : source->proxy, .ca_file = source->ca_file,
        .timeout_ms = source->timeout_ms, .connect_timeout_ms = source->connect_timeout_ms,
    };

    struct storage_conf conf = {
        .container = source->container, .sas_file = source->sas_file, .key_file = source->key_file, .http = http,
        .auth = source->auth == AUTH_SAS ? STORAGE_SAS : source->auth == AUTH_KEY ? STORAGE_KEY : STORAGE_ENTRA,
        .entra = source->entra,
    };

    conf.entra.auth = source->auth < ENTRA_AUTHS ? source->auth : ENTRA_AUTO;
    conf.entra.audience = ENTRA_STORAGE;
    conf.entra.http = http;
    return conf;
}

struct storage_conf source_queue_conf(const struct blob_source *source)
{
    struct storage_conf conf = source_conf(source);

    conf.container = source->queue;
    conf.queue = true;
    conf.sas_file = source->queue_sas_file != NULL ? source->queue_sas_file : conf.sas_file;
    return conf;
}

static int source_fill(struct blob_source *source, const struct pen_conf *conf, struct pen_error *err)
{
    struct storage_conf storage_conf;
    int r = pen_conf_fill(conf, blob_options, source, err);

    if (r == 0)
        r = since_read(source->since, &source->since_s, err);
    if (r == 0 && source->proxy != NULL && strchr(source->proxy, '@') != NULL)
        r = pen_error_set(err, UV_EINVAL, "proxy: a name and password have no place in the configuration");
    if (r < 0)
        return r;
    storage_conf = source_conf(source);
    r = storage_conf_check(&storage_conf, err);
    if (r == 0 && source->queue != NULL) {
        storage_conf = source_queue_conf(source);
        r = storage_conf_check(&storage_conf, err);
    }
    return r;
}

int blob_source_read(struct blob_source *source, const struct pen_conf *conf, struct storage_conf *ret, struct pen_error *err)
{
    int r = source_fill(source, conf, err);

    if (r == 0)
        *ret = source_conf(source);
    return r;
}

static int blob_source_prove(const struct pen_conf *conf, struct pen_error *err)
{
    struct blob_source *source = calloc(1, sizeof *source);
    int r;

    if (source == NULL)
        abort();
    r = source_fill(source, conf, err);
    free(source);
    return r;
}

/* ---- Life ------------------------------------------------------------------------------------------------------ */

static void blob_source_close(void *self)
{
    struct blob_source *source = self;

    if (source == NULL)
        return;
    book_close(source);
    notices_close(source->notices);
    storage_close(source->storage);
    free(source->container_id);
    free(source->prefixes);
    free(source);
}

static int text_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int blob_source_open(void **self, struct source_host *host, const struct pen_conf *conf, struct pen_error *err)
{
    struct blob_source *source = calloc(1, sizeof *source);
    struct storage_conf storage_conf;
    size_t size;
    int r;

    if (source == NULL)
        abort();
    source->host = host;
    source->loose.source = source;
    LIST_INIT(&source->places);
    LIST_INIT(&source->loose.blobs);
    TAILQ_INIT(&source->ready);
    TAILQ_INIT(&source->settling);
    TAILQ_INIT(&source->due);
    TAILQ_INIT(&source->due_whole);
    TAILQ_INIT(&source->walked);
    r = source_fill(source, conf, err);
    if (r < 0)
        goto fail;
    source_take_window(source);
    size = strlen(source->container);
    while (source->container[size - 1] == '/')
        source->container[--size] = '\0';
    if (asprintf(&source->container_id, "%016" PRIx64, text_hash(source->container, size)) < 0)
        abort();
    source->prefixes = calloc(source->prefix.count + 1, sizeof *source->prefixes);
    if (source->prefixes == NULL)
        abort();
    for (size_t i = 0; i < source->prefix.count; i++)
        source->prefixes[i] = source->prefix.items[i];
    qsort(source->prefixes, source->prefix.count, sizeof *source->prefixes, text_compare);
    storage_conf = source_conf(source);
    r = storage_new(&source->storage, source_http(host), source_loop(host), &storage_conf, err);
    if (r < 0)
        goto fail;
    if (source->queue != NULL && !source->once) {  /* its messages are the daemon's */
        storage_conf = source_queue_conf(source);
        r = notices_new(&source->notices, source, &storage_conf, err);
        if (r < 0)
            goto fail;
    }
    *self = source;
    return 0;
fail:
    blob_source_close(source);
    return r;
}

static void blob_source_start(void *self)
{
    struct blob_source *source = self;
    uint64_t tick_ms = source->poll_ms < 1000 ? source->poll_ms / 2 + 1 : 500;

    uv_timer_init(source_loop(source->host), &source->turn);
    uv_timer_init(source_loop(source->host), &source->tick);
    source->turn.data = source->tick.data = source;
    source->timers = 2;
    book_load(source);
    find_start(source);
    uv_timer_start(&source->tick, on_tick, tick_ms, tick_ms);
    source_kick(source);
}

static void blob_source_on_chunk(void *self, void *stream_self, struct chunk *chunk, size_t consumed)
{
    struct blob *blob = stream_self;

    (void)self;
    assert(blob->state == BLOB_OUT && blob->want->chunk == chunk);
    blob_take_chunk(blob, consumed);
}

static void blob_source_on_flow(void *self)
{
    source_kick(self);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct blob_source *source = handle->data;
    struct blob *blob;

    if (--source->timers > 0)
        return;
    while ((blob = TAILQ_FIRST(&source->ready)) != NULL) {
        TAILQ_REMOVE(&source->ready, blob, turn);
        blob_want_free(blob);
        if (blob->stream != NULL)
            TAILQ_INSERT_TAIL(&source->settling, blob, turn);
    }
    while ((blob = TAILQ_FIRST(&source->settling)) != NULL) {
        TAILQ_REMOVE(&source->settling, blob, turn);
        stream_close(blob->stream, false);
        blob->stream = NULL;
    }
    source->stopped(source->stopped_arg);
}

/* Nothing is on the pool or with the pipeline any more: the last handle may go, and stopped() follows on a later turn. */
static void source_note_at_rest(struct blob_source *source)
{
    if (source->busy == 0 && !uv_is_closing((uv_handle_t *)&source->turn))
        uv_close((uv_handle_t *)&source->turn, on_timer_closed);
}

static void place_halt(struct place *place)
{
    struct blob *blob;

    LIST_FOREACH(blob, &place->blobs, entry)
        blob_halt(blob);
}

static void blob_source_stop(void *self, void (*stopped)(void *arg), void *arg)
{
    struct blob_source *source = self;
    struct place *place;

    source->closing = true;
    if (source->timers == 0) {                     /* never started: there is nothing to wait for */
        stopped(arg);
        return;
    }
    source->stopped = stopped;
    source->stopped_arg = arg;
    uv_timer_stop(&source->turn);
    uv_close((uv_handle_t *)&source->tick, on_timer_closed);
    source->busy++;                                /* none of those below is the last */
    notices_stop(source->notices);
    find_stop(source);
    LIST_FOREACH(place, &source->places, entry)
        place_halt(place);
    place_halt(&source->loose);
    source->busy--;
    source_note_at_rest(source);
}

static uint64_t blob_source_token_ms(void *self)
{
    const struct blob_source *source = self;

    return storage_token_ms(source->storage);
}

static size_t blob_source_numbers(void *self, struct source_number numbers[SOURCE_NUMBERS_MAX])
{
    const struct blob_source *source = self;
    const struct storage_counts *counts = storage_counts(source->storage);
    size_t count = 0;

    numbers[count++] = (struct source_number){ "requests", SOURCE_COUNT, counts->requests, "Requests to the service." };
    numbers[count++] = (struct source_number){ "fetched", SOURCE_COUNT, counts->fetched, "Bytes of blobs downloaded." };
    numbers[count++] = (struct source_number){ "listed", SOURCE_COUNT, counts->listed, "Bytes of listings downloaded." };
    numbers[count++] = (struct source_number){ "places", SOURCE_LEVEL, source->place_count, "Prefixes with hours." };
    numbers[count++] = (struct source_number){ "blobs", SOURCE_LEVEL, source->blob_count, "Blobs that are remembered." };
    numbers[count++] = (struct source_number){ "waiting", SOURCE_LEVEL, source->ready_count, "Blobs in turn to be read." };
    numbers[count++] = (struct source_number){ "notices", SOURCE_COUNT, notices_count(source->notices),
                                               "Messages of the queue that were dealt with." };
    numbers[count++] = (struct source_number){ "hours_missing", SOURCE_COUNT, source->hours_missing,
                                               "Hours over without a blob, though nearly all of the day before had one." };
    return count;
}

static void blob_source_progress(void *self, struct source_progress *progress)
{
    const struct blob_source *source = self;
    uint64_t fetched = storage_counts(source->storage)->fetched;

    *progress = (struct source_progress){
        .done = fetched < source->wanted ? fetched : source->wanted, .total = source->wanted, .whole = find_is_whole(source),
    };
}

const struct source_type azure_blob_source = {
    .name = "azure-blob", .options = blob_options, .open = blob_source_open, .start = blob_source_start,
    .on_chunk = blob_source_on_chunk, .on_flow = blob_source_on_flow, .stop = blob_source_stop, .close = blob_source_close,
    .prove = blob_source_prove, .numbers = blob_source_numbers, .token_ms = blob_source_token_ms,
    .probe = blob_source_probe, .progress = blob_source_progress,
};
