/* Promise: whatever happens to the names and inodes of log files, every line in them is read, none is torn, and a line is
 * read twice only where reading it once would have been a guess. Real files in a folder of their own, a real loop; the
 * pipeline is a fake that frames by line (or a PT1H.json's records) and can hold what it is given. */
#include "daemon/conf.h"
#include "daemon/log.h"
#include "daemon/settings.h"
#include "daemon/work.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <cmocka.h>

const struct source_type *const source_types[] = { &file_source, NULL };
const struct pen_sink *const sink_types[] = { NULL };
const struct pen_parser *const builtin_parsers[] = { NULL };

/* ---- The pipeline's side, faked ---- */

struct stream {
    LIST_ENTRY(stream) entry;
    void *self;
    char *key, *attrs;
    uint64_t position;
    struct chunk *chunk;
    bool forget;
};

struct row {
    char *key, *attrs;
    uint64_t position;
};

struct source_host {
    uv_loop_t loop;
    uv_timer_t guard, answers;
    LIST_HEAD(, stream) streams;
    struct row rows[256];
    size_t row_count;
    char *lines[300000];
    size_t line_count;
    size_t torn, offered, out, out_most, troubles, forgotten, rested, chunk_bytes, chunk_bytes_most, kept;
    bool closed_flow, hold, once, drained, stopped, pt1h, resting;
    void *source;
    struct conf *conf;
};

static struct source_host host;
static char log_text[1 << 20];
static char dir[64];

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

/* What the daemon does every second: all that was read is safe. */
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

static void save(void)
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

void source_drained(struct source_host *h)
{
    assert_false(h->drained);
    h->drained = true;
}

void source_trouble(struct source_host *h)
{
    h->troubles++;
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

/* Waits for a condition, at most ten seconds. */
#define AWAIT(condition) do { \
        uint64_t until = uv_hrtime() + UINT64_C(10000000000); \
        while (!(condition) && uv_hrtime() < until) \
            uv_run(&host.loop, UV_RUN_ONCE); \
        if (!(condition)) { \
            print_message("log:\n%s", log_text); \
            for (size_t line_at = 0; line_at < host.line_count && line_at < 30; line_at++) \
                print_message("  %s\n", host.lines[line_at]); \
        } \
        assert_true(condition); \
    } while (0)

static const char *at(const char *name)
{
    static char paths[8][256];
    static unsigned slot;
    char *path = paths[slot++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

static void start(const char *options)
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

/* `path` and short times, then what the test adds. */
static void start_logs(const char *more)
{
    char options[1024];

    snprintf(options, sizeof options, "path = %s/logs/**/*.log\nfinal_after = 100ms\n%s\n%s", dir,
             strstr(more, "rescan") != NULL ? "" : "rescan = 50ms", more);
    start(options);
}

static void stop(void)
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

static void restart(const char *more)
{
    save();
    stop();
    start_logs(more);
}

static void put(const char *name, const char *mode, const char *text)
{
    FILE *file = fopen(at(name), mode);

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static size_t seen(const char *line)
{
    size_t count = 0;

    for (size_t i = 0; i < host.line_count; i++)
        count += strcmp(host.lines[i], line) == 0;
    return count;
}

/* Whatever is there now has been looked at: files made later, found by sweeps only, have been read. */
static void settle(void)
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

static int setup(void **state)
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

static int teardown(void **state)
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

/* ---- Finding and following ---- */

static void test_hears_without_rescan(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\ntwo\nthr");
    start_logs("rescan = 1h");
    AWAIT(host.line_count == 2);
    put("logs/a.log", "a", "ee\nfour\n");
    AWAIT(host.line_count == 4);
    assert_int_equal(seen("three"), 1);
    /* A folder made later, and one below it, at once. */
    mkdir(at("logs/x"), 0755);
    mkdir(at("logs/x/y"), 0755);
    put("logs/x/y/b.log", "w", "five\n");
    AWAIT(seen("five") == 1);
    put("logs/x/y/b.log", "a", "six\n");
    AWAIT(seen("six") == 1);
    assert_int_equal(host.line_count, 6);
}

static void test_folder_that_is_made_later(void **state)
{
    char options[512];

    (void)state;
    snprintf(options, sizeof options, "path = %s/later/in/*/a.log\nrescan = 1h", dir);
    start(options);
    mkdir(at("later"), 0755);
    mkdir(at("later/in"), 0755);
    mkdir(at("later/in/z"), 0755);
    put("later/in/z/a.log", "w", "one\n");
    AWAIT(host.line_count == 1);
}

static void test_finds_without_watches(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\n");
    start_logs("watches = 0");
    AWAIT(host.line_count == 1);
    put("logs/a.log", "a", "two\n");
    AWAIT(host.line_count == 2);
    assert_non_null(strstr(log_text, "not all folders can be watched"));
    assert_null(strstr(strstr(log_text, "not all folders") + 1, "not all folders"));
}

static void test_leaves_alone_what_is_no_log(void **state)
{
    (void)state;
    mkdir(at("logs/folder.log"), 0755);
    assert_int_equal(mkfifo(at("logs/fifo.log"), 0644), 0);
    put("logs/.hidden.log", "w", "hidden\n");
    put("logs/other.txt", "w", "other\n");
    mkdir(at("logs/no"), 0755);
    put("logs/no/a.log", "w", "excluded\n");
    put("logs/a.log", "w", "one\n");
    assert_int_equal(symlink("a.log", at("logs/link.log")), 0);
    assert_int_equal(symlink("nowhere", at("logs/dangling.log")), 0);
    assert_int_equal(symlink("..", at("logs/loop")), 0);
    start_logs("exclude = /**/no");
    settle();
    assert_int_equal(seen("one"), 1);
    assert_int_equal(host.line_count, 4);
    assert_int_equal(host.troubles, 0);
}

static void test_start_at_end(void **state)
{
    (void)state;
    put("logs/a.log", "w", "old\nolder\nunfin");
    start_logs("start = end");
    AWAIT(!LIST_EMPTY(&host.streams) || host.rested > 0);
    for (unsigned i = 0; i < 40; i++)              /* the first sweep is over */
        uv_run(&host.loop, UV_RUN_ONCE);
    put("logs/a.log", "a", "ished\nnew\n");
    put("logs/b.log", "w", "later\n");
    AWAIT(seen("new") == 1 && seen("later") == 1);
    assert_int_equal(seen("old"), 0);
    assert_int_equal(seen("unfinished"), 1);
    /* Files that came while we were away are not skipped. */
    save();
    stop();
    put("logs/c.log", "w", "away\n");
    start_logs("start = end");
    AWAIT(seen("away") == 1);
    assert_int_equal(seen("old"), 0);
}

/* ---- Who is who ---- */

static void test_renamed(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\n");
    start_logs("");
    AWAIT(host.line_count == 1);
    rename(at("logs/a.log"), at("logs/b.log"));
    put("logs/b.log", "a", "two\n");
    put("logs/a.log", "w", "three\n");
    AWAIT(seen("two") == 1 && seen("three") == 1);
    settle();
    assert_int_equal(seen("one"), 1);
    assert_int_equal(seen("three"), 1);
}

static void test_renamed_in_a_chain_while_away(void **state)
{
    (void)state;
    put("logs/a.1.log", "w", "old 1\n");
    put("logs/a.log", "w", "one\n");
    start_logs("");
    AWAIT(host.line_count == 2);
    save();
    stop();
    put("logs/a.log", "a", "two\n");
    rename(at("logs/a.1.log"), at("logs/a.2.log"));
    rename(at("logs/a.log"), at("logs/a.1.log"));
    put("logs/a.log", "w", "three\n");
    start_logs("");
    AWAIT(seen("two") == 1 && seen("three") == 1);
    settle();
    assert_int_equal(seen("old 1") + seen("one"), 2);
}

/* Rotated to a name that no pattern matches, with lines we have not read. */
static void test_renamed_out_of_the_pattern(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\n");
    start_logs("");
    AWAIT(host.line_count == 1);
    rename(at("logs/a.log"), at("logs/a.old"));
    put("logs/a.old", "a", "two\ntorn");
    put("logs/a.log", "w", "three\n");
    AWAIT(seen("two") == 1 && seen("three") == 1 && seen("torn") == 1);
    assert_int_equal(host.line_count, 4);

    /* And while we were away: found by its inode, believed by its bytes. */
    save();
    stop();
    put("logs/a.log", "a", "four\n");
    rename(at("logs/a.log"), at("logs/a.older"));
    put("logs/a.log", "w", "five\n");
    start_logs("");
    AWAIT(seen("four") == 1 && seen("five") == 1);
    assert_int_equal(seen("three"), 1);
}

static void test_copied_and_truncated(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\ntwo\n");
    start_logs("");
    AWAIT(host.line_count == 2);
    put("logs/a.log", "w", "x\n");
    AWAIT(seen("x") == 1);
    /* Truncated and past the old place before we look. */
    put("logs/a.log", "w", "other, and longer than before\nmore\n");
    AWAIT(seen("more") == 1);
    assert_int_equal(seen("other, and longer than before"), 1);
    assert_int_equal(host.line_count, 5);
    assert_true(host.forgotten >= 2);
}

static void test_inode_reused_while_away(void **state)
{
    struct stat st;
    char text[64], *space;

    (void)state;
    put("logs/a.log", "w", "one\ntwo\n");
    start_logs("");
    AWAIT(host.line_count == 2);
    save();
    stop();
    unlink(at("logs/a.log"));
    put("logs/b.log", "w", "three\nfour\nfive\n");
    assert_int_equal(stat(at("logs/b.log"), &st), 0);
    /* The file system gives the number again: said here by the row. */
    assert_int_equal(host.row_count, 1);
    space = strchr(strchr(host.rows[0].attrs, ' ') + 1, ' ');
    snprintf(text, sizeof text, "v1 %ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    space = strdup(space);
    free(host.rows[0].attrs);
    assert_true(asprintf(&host.rows[0].attrs, "%s%s", text, space) > 0);
    free(space);
    start_logs("");
    AWAIT(seen("five") == 1);
    assert_int_equal(seen("three"), 1);
    assert_int_equal(host.line_count, 5);
}

/* A longer copy under the same name: azcopy renames it into place. */
static void test_replaced_by_a_longer_copy(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\ntwo\n");
    start_logs("");
    AWAIT(host.line_count == 2);
    for (unsigned i = 0; i < 3; i++) {
        char line[16];

        snprintf(line, sizeof line, "more %u", i);
        put("logs/temporary", "w", "one\ntwo\n");
        for (unsigned j = 0; j <= i; j++) {
            char text[16];

            snprintf(text, sizeof text, "more %u\n", j);
            put("logs/temporary", "a", text);
        }
        rename(at("logs/temporary"), at("logs/a.log"));
        AWAIT(seen(line) == 1);
    }
    settle();
    assert_int_equal(host.line_count, 5 + 3);
    /* Another file in its place is another file. */
    put("logs/temporary", "w", "zero\none\ntwo\nmore\n");
    rename(at("logs/temporary"), at("logs/a.log"));
    AWAIT(seen("zero") == 1 && seen("more") == 1);
    assert_int_equal(seen("one"), 2);
}

/* A folder of files, all replaced by longer copies: file systems hand each freed inode to the next copy. */
static void test_replaced_with_inodes_passed_on(void **state)
{
    char name[64], text[64];

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "logs/%u.log", i);
        snprintf(text, sizeof text, "first of %u\n", i);
        put(name, "w", text);
    }
    start_logs("");
    AWAIT(host.line_count == 20);
    restart("open_max = 8");
    for (unsigned i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "logs/%u.log", i);
        snprintf(text, sizeof text, "first of %u\nsecond of %u\n", i, i);
        put("logs/temporary", "w", text);
        rename(at("logs/temporary"), at(name));
    }
    AWAIT(host.line_count >= 40);
    settle();
    for (unsigned i = 0; i < 20; i++) {
        snprintf(text, sizeof text, "first of %u", i);
        assert_int_equal(seen(text), 1);
        snprintf(text, sizeof text, "second of %u", i);
        assert_int_equal(seen(text), 1);
    }
}

static void test_equal_beginnings(void **state)
{
    char same[4096];

    (void)state;
    memset(same, 's', sizeof same);
    same[sizeof same - 2] = '\n';
    same[sizeof same - 1] = '\0';
    put("logs/a.log", "w", same);
    put("logs/a.log", "a", "a\n");
    put("logs/b.log", "w", same);
    put("logs/b.log", "a", "b\n");
    start_logs("");
    AWAIT(host.line_count == 4);
    put("logs/c.log", "w", same);
    put("logs/c.log", "a", "c\n");
    put("logs/b.log", "a", "bb\n");
    AWAIT(host.line_count == 7);
    assert_int_equal(seen("a") + seen("b") + seen("c") + seen("bb"), 4);
    /* In the place of one of them, equal for long, then not. */
    put("logs/temporary", "w", same);
    put("logs/temporary", "a", "d\nand longer\n");
    rename(at("logs/temporary"), at("logs/a.log"));
    AWAIT(seen("and longer") == 1 && seen("d") == 1);
}

/* The same bytes before our place, other ones at the beginning. */
static void test_equal_only_at_our_place(void **state)
{
    char same[4096];

    (void)state;
    memset(same, 's', sizeof same);
    same[sizeof same - 2] = '\n';
    same[sizeof same - 1] = '\0';
    put("logs/a.log", "w", "one\n");
    put("logs/a.log", "a", same);
    start_logs("");
    AWAIT(host.line_count == 2);
    put("logs/temporary", "w", "two\n");
    put("logs/temporary", "a", same);
    put("logs/temporary", "a", "three\n");
    rename(at("logs/temporary"), at("logs/a.log"));
    AWAIT(seen("two") == 1 && seen("three") == 1);
}

#define ROTATED_LINES 20000

/* Whether each of the first n numbered lines has been read at least once; looks at each line that came only once. */
static bool all_read(unsigned n)
{
    static unsigned char read[ROTATED_LINES];
    static size_t looked;
    static unsigned distinct;

    for (; looked < host.line_count; looked++) {
        unsigned number = (unsigned)atoi(host.lines[looked] + strlen("line "));

        assert_true(number < ROTATED_LINES);
        distinct += read[number]++ == 0;
    }
    return distinct >= n;
}

/* Lines are written and files renamed, deleted behind us and made again, all the time, in no order. Nothing is lost; who
 * looks between two renames may read a file again. */
static void test_rotation_without_pause(void **state)
{
    unsigned written = 0, rotated = 0;
    char text[64], name[64];

    (void)state;
    srand(11);
    start_logs("chunk = 4096");
    while (written < ROTATED_LINES) {
        FILE *file = fopen(at("logs/a.log"), "a");

        for (int i = rand() % 200; i > 0 && written < ROTATED_LINES; i--)
            fprintf(file, "line %u\n", written++);
        fclose(file);
        if (rand() % 4 == 0) {
            /* The last one falls off the end, as in life, only when it was read. */
            if (rotated >= 5)
                AWAIT(all_read(written));
            for (unsigned i = rotated < 5 ? rotated : 5; i > 0; i--) {
                snprintf(name, sizeof name, "logs/a.%u.log", i);
                snprintf(text, sizeof text, "logs/a.%u.log", i + 1);
                rename(at(name), at(text));
            }
            rename(at("logs/a.log"), at("logs/a.1.log"));
            rotated++;
        }
        for (int i = rand() % 4; i > 0; i--)
            uv_run(&host.loop, UV_RUN_NOWAIT);
    }
    AWAIT(all_read(ROTATED_LINES));
}

/* The name is taken again while we are still finding out where its last holder went: heard of, not left to the sweep. */
static void test_hears_of_the_next_file(void **state)
{
    char text[32], name[64];

    (void)state;
    start_logs("rescan = 1h");
    for (unsigned i = 0; i < 200; i++) {
        snprintf(text, sizeof text, "line %u\n", i);
        put("logs/a.log", "w", text);
        text[strlen(text) - 1] = '\0';
        AWAIT(seen(text) == 1);
        snprintf(name, sizeof name, "logs/a.log.%u", i);
        rename(at("logs/a.log"), at(name));
        for (unsigned turns = i % 8; turns > 0; turns--)
            uv_run(&host.loop, UV_RUN_NOWAIT);
    }
}

/* Is a file of this number held open? */
static bool is_open(ino_t ino)
{
    struct dirent *entry;
    bool found = false;
    DIR *fds = opendir("/proc/self/fd");
    struct stat st;

    while ((entry = readdir(fds)) != NULL)
        found |= fstatat(dirfd(fds), entry->d_name, &st, 0) == 0 && st.st_ino == ino;
    closedir(fds);
    return found;
}

/* A file ends before anything was read of it, others hold its name by now, and its inode comes back under a new one: the
 * number is all that was known of it, and says nothing. A hard link elsewhere plays the file system that hands it out again. */
static void test_inode_of_an_unread_file_comes_back(void **state)
{
    struct stat st;

    (void)state;
    put("logs/a.log", "w", "");
    assert_int_equal(stat(at("logs/a.log"), &st), 0);
    assert_int_equal(link(at("logs/a.log"), at("aside")), 0);
    start_logs("");
    AWAIT(is_open(st.st_ino));
    unlink(at("logs/a.log"));
    AWAIT(!is_open(st.st_ino));
    put("logs/a.log", "w", "one\n");
    AWAIT(seen("one") == 1);
    put("aside", "a", "two\n");
    rename(at("aside"), at("logs/b.log"));
    AWAIT(seen("two") == 1);
    put("logs/b.log", "a", "three\n");
    AWAIT(seen("three") == 1);
    settle();
    assert_int_equal(host.line_count, 3 + 3);
}

/* Blocks go in before the closing brackets; the copy is rewritten in place, or replaced. */
static void test_growing_pt1h(void **state)
{
    char text[8192] = "{\"records\":[", whole[8300], line[32], options[512];

    (void)state;
    host.pt1h = true;
    snprintf(options, sizeof options, "path = %s/logs/PT1H.json\nrescan = 50ms\nfinal_after = 100ms", dir);
    start(options);
    for (unsigned i = 0; i < 60; i++) {
        snprintf(line, sizeof line, "{\"time\":\"%u\"}", i);
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i > 0 ? "," : "", line);
        snprintf(whole, sizeof whole, "%s]}", text);
        if (i % 3 == 0) {
            put("logs/temporary", "w", whole);
            rename(at("logs/temporary"), at("logs/PT1H.json"));
        } else {
            int fd = open(at("logs/PT1H.json"), O_WRONLY);

            assert_int_equal(write(fd, whole, strlen(whole)), strlen(whole));
            close(fd);
        }
        if (i % 7 == 0)
            AWAIT(seen(line) == 1);
    }
    AWAIT(seen(line) == 1);
    assert_int_equal(host.line_count, 60);
    AWAIT(!host.resting || host.rested > 0);
}

/* ---- Gone, torn, not allowed ---- */

static void test_deleted_while_read(void **state)
{
    (void)state;
    host.hold = true;
    put("logs/a.log", "w", "one\ntwo\n");
    start_logs("chunk = 4096");
    AWAIT(host.out == 1);
    put("logs/a.log", "a", "three\ntorn");
    unlink(at("logs/a.log"));
    host.hold = false;
    uv_timer_start(&host.answers, on_answers, 0, 0);
    AWAIT(seen("three") == 1 && seen("torn") == 1);
    assert_int_equal(host.line_count, 4);
    assert_int_equal(host.torn, 1);
}

static void test_torn_end_of_a_live_file_waits(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\ntor");
    start_logs("");
    settle();
    assert_int_equal(host.torn, 0);
    put("logs/a.log", "a", "n?\n");
    AWAIT(seen("torn?") == 1);
}

static void test_permission_comes_later(void **state)
{
    uid_t uid = geteuid();

    (void)state;
    put("logs/a.log", "w", "one\n");
    chmod(at("logs/a.log"), 0);
    if (uid == 0)
        assert_int_equal(chown(dir, 65534, 65534) + chown(at("logs"), 65534, 65534) + seteuid(65534), 0);
    start_logs("");
    settle();
    assert_int_equal(host.troubles, 1);
    assert_int_equal(seen("one"), 0);
    assert_int_equal(seteuid(uid), 0);
    chmod(at("logs/a.log"), 0644);
    AWAIT(seen("one") == 1);
    put("logs/a.log", "a", "two\n");
    AWAIT(seen("two") == 1);
    assert_int_equal(seen("one"), 1);
}

static void test_rows_of_gone_files_are_forgotten(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\n");
    start_logs("forget_after = 10ms");
    AWAIT(seen("one") == 1);
    save();
    assert_int_equal(host.row_count, 1);
    unlink(at("logs/a.log"));
    AWAIT(host.forgotten == 1);
    assert_int_equal(host.row_count, 0);
}

static void test_a_file_that_comes_back_goes_on(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\n");
    start_logs("");
    AWAIT(seen("one") == 1);
    rename(at("logs/a.log"), at("elsewhere"));
    settle();
    put("elsewhere", "a", "two\n");
    rename(at("elsewhere"), at("logs/a.log"));
    AWAIT(seen("two") >= 1);
    settle();
    assert_int_equal(seen("one"), 1);
    assert_int_equal(seen("two"), 1);
}

/* ---- Restart ---- */

static void test_restart_reads_on(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\n");
    put("logs/with space % and \xff.log", "w", "strange\n");
    start_logs("");
    AWAIT(host.line_count == 2);
    save();
    put("logs/a.log", "a", "two\n");
    AWAIT(seen("two") == 1);
    /* Died before the second save: two again, one not. */
    stop();
    host.offered = 0;
    put("logs/a.log", "a", "three\n");
    start_logs("");
    AWAIT(seen("three") == 1);
    settle();
    assert_int_equal(seen("one"), 1);
    assert_int_equal(seen("two"), 2);
    assert_int_equal(seen("strange"), 1);
    assert_int_equal(host.offered, 1 + 3);
}

static void test_damaged_rows_cost_a_reading(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\n");
    start_logs("");
    AWAIT(host.line_count == 1);
    save();
    stop();
    free(host.rows[0].attrs);
    host.rows[0].attrs = strdup("v1 nonsense");
    start_logs("");
    AWAIT(seen("one") == 2);
}

/* ---- Bounds ---- */

static void test_waits_for_the_flow(void **state)
{
    (void)state;
    host.closed_flow = true;
    put("logs/a.log", "w", "one\n");
    start_logs("");
    for (unsigned i = 0; i < 50; i++)
        uv_run(&host.loop, UV_RUN_ONCE);
    assert_int_equal(host.offered, 0);
    assert_int_equal(host.chunk_bytes_most, 0);
    host.closed_flow = false;
    file_source.on_flow(host.source);
    AWAIT(seen("one") == 1);
}

static void test_long_lines_grow_the_chunk(void **state)
{
    char *line = malloc(300001);

    (void)state;
    memset(line, 'l', 300000);
    line[300000] = '\0';
    put("logs/a.log", "w", "first\n");
    put("logs/a.log", "a", line);
    put("logs/a.log", "a", "\nlast\n");
    start_logs("chunk = 4096");
    AWAIT(seen("last") == 1);
    assert_int_equal(seen(line), 1);
    assert_int_equal(host.line_count, 3);
    free(line);
}

static void test_files_take_turns(void **state)
{
    FILE *a = fopen(at("logs/a.log"), "w"), *b = fopen(at("logs/b.log"), "w");
    bool seen_a = false, mixed = false;

    (void)state;
    for (unsigned i = 0; i < 5000; i++) {
        fprintf(a, "a %u\n", i);
        fprintf(b, "b %u\n", i);
    }
    fclose(a);
    fclose(b);
    start_logs("chunk = 4096");
    AWAIT(host.line_count == 10000);
    for (size_t i = 0; i < 5000; i++) {
        seen_a |= host.lines[i][0] == 'a';
        mixed |= seen_a && host.lines[i][0] == 'b';
    }
    assert_true(mixed);
}

static size_t open_files(void)
{
    DIR *fds = opendir("/proc/self/fd");
    size_t count = 0;

    while (readdir(fds) != NULL)
        count++;
    closedir(fds);
    return count;
}

static void test_ten_thousand_files(void **state)
{
    struct mallinfo2 before = mallinfo2(), after;
    size_t fds = open_files();
    char name[64], text[64];

    (void)state;
    for (unsigned i = 0; i < 10000; i++) {
        if (i % 100 == 0) {
            snprintf(name, sizeof name, "logs/%u", i / 100);
            mkdir(at(name), 0755);
        }
        snprintf(name, sizeof name, "logs/%u/%u.log", i / 100, i);
        snprintf(text, sizeof text, "line %u\n", i);
        put(name, "w", text);
    }
    start_logs("rescan = 1h\nopen_max = 64");
    AWAIT(host.line_count == 10000);
    assert_true(host.out_most <= 16);
    assert_true(open_files() <= fds + 64 + 16);
    after = mallinfo2();
    print_message("10,000 idle files: %zu bytes each, fake pipeline's share included\n",
                  (after.uordblks - before.uordblks) / 10000);
    put("logs/37/3737.log", "a", "late\n");
    AWAIT(seen("late") == 1);
}

/* ---- Archives ---- */

static void put_gzip(const char *name, const char *text, size_t keep)
{
    gzFile gz = gzopen(at(name), "wb");

    gzputs(gz, text);
    gzclose(gz);
    if (keep > 0)
        assert_int_equal(truncate(at(name), (off_t)keep), 0);
}

static void test_archives(void **state)
{
    char *text = calloc(1, 600000);
    size_t size = 0, lines = 0;
    struct stat st;

    (void)state;
    while (size < 590000)
        size += (size_t)sprintf(text + size, "line %zu %x\n", lines++, rand());
    for (unsigned i = 0; i < 7; i++) {
        char name[64];

        snprintf(name, sizeof name, "logs/%u.gz.log", i);
        put_gzip(name, text, 0);
    }
    start_logs("chunk = 64K");
    AWAIT(host.line_count == 7 * lines);
    /* One that is still being written, another that is damaged. */
    put_gzip("logs/x.log", text, 0);
    stat(at("logs/x.log"), &st);
    unlink(at("logs/x.log"));
    put_gzip("logs/part.log", text, (size_t)st.st_size / 2);
    AWAIT(host.line_count > 7 * lines);
    settle();
    put_gzip("logs/whole", text, 0);
    {
        char *rest = malloc((size_t)st.st_size);
        FILE *in = fopen(at("logs/whole"), "r"), *out = fopen(at("logs/part.log"), "a");

        fseek(in, st.st_size / 2, SEEK_SET);
        size = fread(rest, 1, (size_t)st.st_size, in);
        fwrite(rest, 1, size, out);
        fclose(in);
        fclose(out);
        free(rest);
    }
    snprintf(text + 590000, 100, "line %zu ", lines - 1);
    AWAIT(host.line_count >= 8 * lines);
    settle();
    assert_int_equal(host.line_count, 8 * lines + 6);
    restart("");
    settle();
    assert_int_equal(host.line_count, 8 * lines + 9);
    free(text);
}

static void test_damaged_archive(void **state)
{
    int fd;

    (void)state;
    put_gzip("logs/a.log", "one\ntwo\n", 0);
    fd = open(at("logs/a.log"), O_WRONLY | O_APPEND);
    assert_int_equal(write(fd, "garbage behind it", 17), 17);
    close(fd);
    start_logs("");
    AWAIT(host.line_count == 2);
    settle();
    assert_int_equal(host.line_count, 5);
    assert_int_equal(host.troubles, 1);
}

/* ---- Replay ---- */

static void test_once(void **state)
{
    (void)state;
    host.once = true;
    put("logs/a.log", "w", "one\ntorn");
    put_gzip("logs/b.log", "two\nhalf", 0);
    put("logs/empty.log", "w", "");
    start_logs("");
    AWAIT(host.drained);
    assert_int_equal(host.line_count, 4);
    assert_int_equal(host.torn, 2);
}

static void test_once_with_nothing(void **state)
{
    (void)state;
    host.once = true;
    start_logs("");
    AWAIT(host.drained);
}

static void test_stop_with_chunks_out(void **state)
{
    (void)state;
    host.hold = true;
    put("logs/a.log", "w", "one\n");
    put("logs/b.log", "w", "two\n");
    start_logs("");
    AWAIT(host.out == 2);
    stop();
    assert_int_equal(host.line_count, 2);
}

/* The row may be saved between a file's last chunk and what became of it; then the process may die. */
static void test_death_with_the_last_chunk_out(void **state)
{
    (void)state;
    host.hold = true;
    put("logs/a.log", "w", "one\n");
    start_logs("");
    AWAIT(host.out == 1);
    restart("");                     /* saved as it was; what the end gave back was never safe */
    host.hold = false;
    AWAIT(seen("one") == 2);
    settle();
    assert_int_equal(seen("one"), 2);
    put("logs/a.log", "a", "two\n");
    AWAIT(seen("two") == 1);
    host.hold = true;
    put("logs/a.log", "a", "three\n");
    AWAIT(host.out == 1);
    restart("");
    host.hold = false;
    AWAIT(seen("three") == 2);
    assert_int_equal(seen("one"), 2);
    assert_int_equal(seen("two"), 1);
}

static void test_stop_in_the_middle(void **state)
{
    char name[64];

    (void)state;
    for (unsigned i = 0; i < 600; i++) {
        snprintf(name, sizeof name, "logs/%u.log", i);
        put(name, "w", "line\n");
    }
    for (size_t wanted = 0; wanted < 60; wanted += 7) {
        start_logs("open_max = 16");
        AWAIT(host.line_count >= wanted);
        for (size_t i = wanted % 5; i > 0; i--)
            uv_run(&host.loop, UV_RUN_NOWAIT);
        stop();
    }
}

/* The same with streams that come and go: a source that lets go of what is at rest must see no difference. */
static int setup_resting(void **state)
{
    int r = setup(state);

    host.resting = true;
    return r;
}

#define RESTING(name) { "test_" #name "_resting", test_##name, setup_resting, teardown, NULL }
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(hears_without_rescan),
        TEST(folder_that_is_made_later),
        TEST(finds_without_watches),
        TEST(leaves_alone_what_is_no_log),
        TEST(start_at_end),
        TEST(renamed),
        TEST(renamed_in_a_chain_while_away),
        TEST(renamed_out_of_the_pattern),
        TEST(copied_and_truncated),
        TEST(inode_reused_while_away),
        TEST(replaced_by_a_longer_copy),
        TEST(replaced_with_inodes_passed_on),
        TEST(equal_beginnings),
        TEST(equal_only_at_our_place),
        TEST(rotation_without_pause),
        TEST(hears_of_the_next_file),
        TEST(inode_of_an_unread_file_comes_back),
        TEST(growing_pt1h),
        TEST(deleted_while_read),
        TEST(torn_end_of_a_live_file_waits),
        TEST(permission_comes_later),
        TEST(rows_of_gone_files_are_forgotten),
        TEST(a_file_that_comes_back_goes_on),
        TEST(restart_reads_on),
        TEST(damaged_rows_cost_a_reading),
        TEST(waits_for_the_flow),
        TEST(long_lines_grow_the_chunk),
        TEST(files_take_turns),
        TEST(ten_thousand_files),
        TEST(archives),
        TEST(damaged_archive),
        TEST(once),
        TEST(once_with_nothing),
        TEST(stop_with_chunks_out),
        TEST(death_with_the_last_chunk_out),
        TEST(stop_in_the_middle),
        RESTING(hears_without_rescan),
        RESTING(folder_that_is_made_later),
        RESTING(finds_without_watches),
        RESTING(leaves_alone_what_is_no_log),
        RESTING(start_at_end),
        RESTING(renamed),
        RESTING(renamed_in_a_chain_while_away),
        RESTING(renamed_out_of_the_pattern),
        RESTING(copied_and_truncated),
        RESTING(inode_reused_while_away),
        RESTING(replaced_by_a_longer_copy),
        RESTING(replaced_with_inodes_passed_on),
        RESTING(equal_beginnings),
        RESTING(equal_only_at_our_place),
        RESTING(rotation_without_pause),
        RESTING(hears_of_the_next_file),
        RESTING(inode_of_an_unread_file_comes_back),
        RESTING(growing_pt1h),
        RESTING(deleted_while_read),
        RESTING(torn_end_of_a_live_file_waits),
        RESTING(permission_comes_later),
        RESTING(rows_of_gone_files_are_forgotten),
        RESTING(a_file_that_comes_back_goes_on),
        RESTING(restart_reads_on),
        RESTING(damaged_rows_cost_a_reading),
        RESTING(waits_for_the_flow),
        RESTING(long_lines_grow_the_chunk),
        RESTING(files_take_turns),
        RESTING(archives),
        RESTING(damaged_archive),
        RESTING(once),
        RESTING(once_with_nothing),
        RESTING(stop_with_chunks_out),
        RESTING(death_with_the_last_chunk_out),
        RESTING(stop_in_the_middle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
