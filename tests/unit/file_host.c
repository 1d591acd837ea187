/* file_host.c - see file_host.h. */
#include "tests/unit/file_host.h"

#include "daemon/base/log.h"
#include "daemon/config/settings.h"
#include "daemon/record/work.h"

#include <ftw.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

const struct source_type *const source_types[] = { &file_source, NULL };
const struct pen_sink *const sink_types[] = { NULL };
const struct pen_parser *const builtin_parsers[] = { NULL };

/* ---- The pipeline's side, faked ---- */

struct source_host host;
char log_text[LOG_TEXT_SIZE];
char dir[64];

void log_line(enum log_level level, const char *msg, ...)
{
    (void)level;
    strncat(log_text, msg, sizeof log_text - strlen(log_text) - 2);
    strcat(log_text, "\n");
}

void log_set_level(enum log_level level)
{
    (void)level;
}

const char *log_number(unsigned long long value)
{
    static char text[8][24];
    static unsigned slot;
    char *out = text[slot++ % 8];

    snprintf(out, sizeof text[0], "%llu", value);
    return out;
}

struct chunk *chunk_take(struct source_host *h, size_t capacity)
{
    struct chunk *chunk = calloc(1, sizeof *chunk);

    chunk->data = malloc(capacity + JSON_PADDING);
    chunk->capacity = capacity;
    h->chunk_bytes += capacity;
    if (h->chunk_bytes > h->chunk_bytes_most)
        h->chunk_bytes_most = h->chunk_bytes;
    return chunk;
}

void chunk_drop(struct source_host *h, struct chunk *chunk)
{
    h->chunk_bytes -= chunk->capacity;
    free(chunk->data);
    free(chunk);
}

void source_keep(struct source_host *h, ptrdiff_t size)
{
    h->kept += (size_t)size;
}

void source_each_cursor(struct source_host *h, void (*each)(void *arg, const struct cursor *cursor), void *arg)
{
    for (size_t i = 0; i < h->row_count; i++)
        each(arg, &(struct cursor){ .key = h->rows[i].key, .attrs = h->rows[i].attrs, .position = h->rows[i].position });
}

struct stream *stream_open(struct source_host *h, const char *name, const struct cursor *cursor, void *self)
{
    struct stream *stream = calloc(1, sizeof *stream), *other;
    unsigned looked = 0;

    assert_int_equal(name[0], '/');
    /* Among the latest: all of ten thousand would take longer than the test may. */
    LIST_FOREACH(other, &h->streams, entry)
        if (looked++ < 500)
            assert_string_not_equal(other->key, cursor->key);
    stream->self = self;
    stream->key = strdup(cursor->key);
    stream->attrs = strdup(cursor->attrs);
    stream->position = cursor->position;
    LIST_INSERT_HEAD(&h->streams, stream, entry);
    return stream;
}

uint64_t stream_position(const struct stream *stream)
{
    return stream->position;
}

static size_t row_find(const char *key)
{
    size_t i = 0;

    while (i < host.row_count && strcmp(host.rows[i].key, key) != 0)
        i++;
    return i;
}

static void save_stream(struct stream *stream)
{
    size_t i = row_find(stream->key);

    if (i == host.row_count) {
        assert_true(host.row_count < 256);
        host.rows[host.row_count++] = (struct row){ .key = strdup(stream->key) };
    }
    free(host.rows[i].attrs);
    host.rows[i].attrs = strdup(stream->attrs);
    host.rows[i].position = stream->position;
}

void save(void)
{
    struct stream *stream;

    LIST_FOREACH(stream, &host.streams, entry)
        save_stream(stream);
}

/* As the saver does now and then: what is at rest may be let go. */
static void rest(void)
{
    struct stream *stream, *next;

    for (stream = LIST_FIRST(&host.streams); stream != NULL; stream = next) {
        next = LIST_NEXT(stream, entry);
        if (stream->chunk != NULL)
            continue;
        save_stream(stream);
        if (!file_source.on_rest(host.source, stream->self, &(struct cursor){ stream->key, stream->attrs, stream->position, 0 }))
            continue;
        LIST_REMOVE(stream, entry);
        free(stream->key);
        free(stream->attrs);
        free(stream);
        host.rested++;
    }
}

void stream_set_attrs(struct stream *stream, const char *attrs)
{
    free(stream->attrs);
    stream->attrs = strdup(attrs);
}

void stream_set_end(struct stream *stream, uint64_t end)
{
    (void)stream;
    (void)end;
}

void stream_close(struct stream *stream, bool forget)
{
    size_t i = row_find(stream->key);

    assert_null(stream->chunk);
    if (forget && i < host.row_count) {
        free(host.rows[i].key);
        free(host.rows[i].attrs);
        host.rows[i] = host.rows[--host.row_count];
    }
    host.forgotten += forget;
    LIST_REMOVE(stream, entry);
    free(stream->key);
    free(stream->attrs);
    free(stream);
}

static void take_line(const char *data, size_t size)
{
    assert_true(host.line_count < sizeof host.lines / sizeof *host.lines);
    host.lines[host.line_count++] = strndup(data, size);
}

static size_t frame_lines(const struct chunk *chunk)
{
    const char *at = chunk->data, *end = chunk->data + chunk->size, *nl;

    while (at < end && (nl = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        take_line(at, (size_t)(nl - at));
        at = nl + 1;
    }
    if (chunk->final && at < end) {
        take_line(at, (size_t)(end - at));
        host.torn++;
        at = end;
    }
    return (size_t)(at - chunk->data);
}

static size_t frame_pt1h(const struct chunk *chunk)
{
    size_t at = 0, done = 0;

    if (chunk->offset == 0) {
        if (chunk->size < 12)
            return 0;
        assert_memory_equal(chunk->data, "{\"records\":[", 12);
        done = 12;
    }
    for (at = done; at < chunk->size; at++) {
        size_t from = at;
        const char *end;

        if (chunk->data[at] == ']')
            break;
        if (chunk->data[at] == ',')
            continue;
        assert_int_equal(chunk->data[at], '{');
        end = memchr(chunk->data + at, '}', chunk->size - at);
        if (end == NULL)
            break;
        at = (size_t)(end - chunk->data);
        take_line(chunk->data + from, at - from + 1);
        done = at + 1;
    }
    return done;
}

static void give_back(struct stream *stream)
{
    struct chunk *chunk = stream->chunk;
    size_t consumed = host.pt1h ? frame_pt1h(chunk) : frame_lines(chunk);

    stream->chunk = NULL;
    stream->position += consumed;
    host.out--;
    file_source.on_chunk(host.source, stream->self, chunk, consumed);
}

static void on_answers(uv_timer_t *timer)
{
    struct stream *stream;

    (void)timer;
    do {
        LIST_FOREACH(stream, &host.streams, entry)
            if (stream->chunk != NULL)
                break;
        if (stream != NULL && !host.hold)
            give_back(stream);
    } while (stream != NULL && !host.hold);
}

void resume(void)
{
    host.hold = false;
    uv_timer_start(&host.answers, on_answers, 0, 0);
}

void stream_offer(struct stream *stream, struct chunk *chunk)
{
    assert_null(stream->chunk);
    assert_true(chunk->size > 0);
    assert_int_equal(chunk->offset, stream->position);
    stream->chunk = chunk;
    host.offered++;
    host.out++;
    if (host.out > host.out_most)
        host.out_most = host.out;
    uv_timer_start(&host.answers, on_answers, 0, 0);
}

bool flow_is_open(const struct source_host *h)
{
    return !h->closed_flow;
}

uv_loop_t *source_loop(struct source_host *h)
{
    return &h->loop;
}

const char *source_name(const struct source_host *h)
{
    (void)h;
    return "test";
}

uint64_t source_now_ms(struct source_host *h)
{
    return uv_now(&h->loop);
}

bool source_is_once(const struct source_host *h)
{
    return h->once;
}

const struct window *source_window(const struct source_host *h)
{
    (void)h;
    return NULL;
}

void source_drained(struct source_host *h)
{
    assert_false(h->drained);
    h->drained = true;
}

void source_trouble(struct source_host *h)
{
    h->troubles++;
}

void source_is_ailing(struct source_host *h, bool ailing)
{
    (void)h;
    (void)ailing;
}

/* ---- Driving it ---- */

static void on_guard(uv_timer_t *timer)
{
    (void)timer;
    if (host.resting && host.source != NULL)
        rest();
}

static void on_stopped(void *arg)
{
    (void)arg;
    host.stopped = true;
}

static void on_mistake(void *arg, const char *file, unsigned line, const char *sentence)
{
    (void)arg;
    print_message("%s:%u: %s\n", file, line, sentence);
}

const char *at(const char *name)
{
    static char paths[8][256];
    static unsigned slot;
    char *path = paths[slot++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

void start(const char *options)
{
    const char *path = at("penstock.conf");
    struct pen_error err = { 0 };
    FILE *file = fopen(path, "w");

    fprintf(file, "[source test]\ntype = file\n%s\n", options);
    fclose(file);
    assert_int_equal(conf_read(&host.conf, path, on_mistake, NULL, &err), 0);
    assert_non_null(conf_value(conf_section(host.conf, CONF_SOURCE, 0), "type"));
    if (file_source.open(&host.source, &host, conf_section(host.conf, CONF_SOURCE, 0), &err) < 0)
        fail_msg("%s", err.text);
    file_source.start(host.source);
}

void start_logs(const char *more)
{
    char options[1024];

    snprintf(options, sizeof options, "path = %s/logs/**/*.log\nfinal_after = 100ms\n%s\n%s", dir,
             strstr(more, "rescan") != NULL ? "" : "rescan = 50ms", more);
    start(options);
}

void stop(void)
{
    struct stream *stream;

    host.stopped = false;
    file_source.stop(host.source, on_stopped, NULL);
    /* As the pipeline does: what is out comes back a little later. */
    LIST_FOREACH(stream, &host.streams, entry)
        if (stream->chunk != NULL)
            give_back(stream);
    AWAIT(host.stopped);
    file_source.close(host.source);
    host.source = NULL;
    conf_free(host.conf);
    assert_true(LIST_EMPTY(&host.streams));
    assert_int_equal(host.chunk_bytes, 0);
    assert_int_equal(host.kept, 0);
}

void restart(const char *more)
{
    save();
    stop();
    start_logs(more);
}

void put(const char *name, const char *mode, const char *text)
{
    FILE *file = fopen(at(name), mode);

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

size_t seen(const char *line)
{
    size_t count = 0;

    for (size_t i = 0; i < host.line_count; i++)
        count += strcmp(host.lines[i], line) == 0;
    return count;
}

void settle(void)
{
    static unsigned number;

    for (unsigned i = 0; i < 3; i++) {
        char name[64], text[64];

        snprintf(name, sizeof name, "logs/settle-%u.log", ++number);
        snprintf(text, sizeof text, "settle %u\n", number);
        put(name, "w", text);
        text[strlen(text) - 1] = '\0';
        AWAIT(seen(text) == 1);
        unlink(at(name));
    }
}

static int on_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int setup(void **state)
{
    (void)state;
    memset(&host, 0, sizeof host);
    log_text[0] = '\0';
    strcpy(dir, "/tmp/penstock-file-XXXXXX");
    if (mkdtemp(dir) == NULL || mkdir(at("logs"), 0755) < 0)
        return -1;
    chmod(dir, 0755);
    LIST_INIT(&host.streams);
    uv_loop_init(&host.loop);
    uv_timer_init(&host.loop, &host.guard);
    uv_timer_init(&host.loop, &host.answers);
    return uv_timer_start(&host.guard, on_guard, 5, 5);
}

int teardown(void **state)
{
    (void)state;
    if (host.source != NULL)
        stop();
    uv_close((uv_handle_t *)&host.guard, NULL);
    uv_close((uv_handle_t *)&host.answers, NULL);
    uv_run(&host.loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&host.loop) != 0)
        return -1;
    for (size_t i = 0; i < host.line_count; i++)
        free(host.lines[i]);
    for (size_t i = 0; i < host.row_count; i++) {
        free(host.rows[i].key);
        free(host.rows[i].attrs);
    }
    return nftw(dir, on_remove, 16, FTW_DEPTH | FTW_PHYS);
}

int setup_resting(void **state)
{
    int r = setup(state);

    host.resting = true;
    return r;
}
