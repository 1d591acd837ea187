/*
 * dead.c - one JSON line per dead letter.
 *
 *   {"time":"2026-11-22T09:00:01.2345670Z","sink":"sentinel","schema":"asim","kind":"audit","ticks":17637660012345670,
 *    "status":"400","reason":"status 400, InvalidRow, request …: the far end cannot read this: …",
 *    "stream":"activity/srv/…/PT1H.json","position":4711,"message":{…}}
 *
 * The line is ours up to `"message":`, which is therefore the first such key; from there to the last brace stand the bytes
 * that the far end refused. `status` is the word behind "status " where the sink's sentence begins with that, else null:
 * the HTTP status, or Kafka's name of the error. `ticks` is the event's time, 100 ns since 1970.
 *
 * A letter is named by a hash of its line: places in the file change when it is rewritten, event ids are not in every schema
 * and come twice where a crash made two letters of one message.
 *
 * The daemon appends; commands rewrite, through a second file and a rename. Either holds an exclusive lock on the file for
 * that moment, and looks, once it has the lock, whether the name still leads to it: what was locked may have been replaced.
 * flock() reaches no disk and is not in the table of io.h.
 *
 * If we die
 *   while appending: the last line may be torn. Its message was not settled: it is sent, refused and written again. A line
 *   without an end gets one before the next line, and is damage to whoever reads.
 *   while rewriting: the file is as it was, or as it should be. FILE.new may be left; the next rewriting begins it anew.
 */
#include "daemon/disk/dead.h"

#include "daemon/base/buf.h"
#include "daemon/config/settings.h"
#include "daemon/disk/io.h"
#include "daemon/record/json.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define BLOCK_SIZE ((size_t)64 * 1024)
/* What one record of record_max at its highest can make of itself; beyond this a line is not ours. */
#define LINE_BYTES_MAX ((size_t)128 * 1024 * 1024)
#define REPLACED_MAX 100             /* times that the file may be replaced while we wait for its lock */

/* ---- The file and its lock ---- */

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* 1: the name leads to this file, 0: to another one or to none. */
static int dead_is_at(const char *path, const struct stat *st)
{
    int fd = io->openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0), r;
    struct stat now;

    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    r = io->fstat(fd, &now) < 0 ? -errno : same_file(st, &now);
    io->close(fd);
    return r;
}

/* A descriptor of the file that lies at `path`, locked; closing it unlocks. */
static int dead_lock(const char *path, int flags, int operation, struct stat *st)
{
    int fd, r;

    for (int i = 0; i < REPLACED_MAX; i++) {
        fd = io->openat(AT_FDCWD, path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return -errno;
        do
            r = flock(fd, operation) < 0 ? -errno : 0;
        while (r == -EINTR);
        if (r == 0)
            r = io->fstat(fd, st) < 0 ? -errno : dead_is_at(path, st);
        if (r > 0)
            return fd;
        io->close(fd);
        if (r < 0)
            return r;
    }
    return UV_EAGAIN;
}

/* ---- Appending ---- */

/* The far end's own word, where the sink's sentence begins with it (sinks/sink.h). */
static struct pen_span dead_status(const char *why)
{
    static const char mark[] = "status ";

    if (strncmp(why, mark, sizeof(mark) - 1) != 0)
        return (struct pen_span){ 0 };
    why += sizeof(mark) - 1;
    return (struct pen_span){ why, strcspn(why, " ,:") };
}

static void dead_line(struct buf *out, const struct dead_stamp *stamp, const struct part *part, uint32_t i)
{
    const struct pen_message *message = &part->lent.messages[i];
    const char *stream = part->lent.streams[message->stream], *why = part->why != NULL ? part->why : "";
    struct pen_span status = dead_status(why);

    BUF_LITERAL(out, "{\"time\":\"");
    buf_time(out, stamp->ticks);
    BUF_LITERAL(out, "\",\"sink\":");
    buf_json_string(out, stamp->sink, strlen(stamp->sink));
    BUF_LITERAL(out, ",\"schema\":");
    buf_json_string(out, stamp->schema, strlen(stamp->schema));
    buf_text(out, ",\"kind\":\"%s\",\"ticks\":", kind_words[part->lent.kind]);
    buf_int(out, message->ticks);
    BUF_LITERAL(out, ",\"status\":");
    if (status.size > 0)
        buf_json_string(out, status.data, status.size);
    else
        BUF_LITERAL(out, "null");
    BUF_LITERAL(out, ",\"reason\":");
    buf_json_string(out, why, strlen(why));
    BUF_LITERAL(out, ",\"stream\":");
    buf_json_string(out, stream, strlen(stream));
    BUF_LITERAL(out, ",\"position\":");
    buf_int(out, (int64_t)message->position);
    BUF_LITERAL(out, ",\"message\":");
    buf_add(out, part->lent.data + message->offset, message->size);
    BUF_LITERAL(out, "}\n");
}

int dead_append(const char *path, const struct dead_stamp *stamp, struct part *const *parts, uint32_t count,
                uint64_t bytes_max)
{
    struct buf lines = { 0 };
    char last = '\n';
    struct stat st;
    int fd, r = 0;

    fd = dead_lock(path, O_RDWR | O_CREAT, LOCK_EX | LOCK_NB, &st);
    if (fd < 0)
        return fd;
    if (st.st_size > 0 && io_read_full(fd, &last, 1, (uint64_t)st.st_size - 1) != 1) {
        r = -EIO;
        goto out;
    }
    if (last != '\n')
        buf_char(&lines, '\n');
    for (uint32_t p = 0; p < count; p++)
        for (uint32_t i = 0; i < parts[p]->lent.count; i++)
            dead_line(&lines, stamp, parts[p], i);
    if (st.st_size > 0 && (uint64_t)st.st_size + lines.size > bytes_max) {
        r = UV_EFBIG;
        goto out;
    }
    r = io_write_full(fd, lines.data, lines.size, (uint64_t)st.st_size);
    if (r == 0 && io->fdatasync(fd) < 0)
        r = -errno;
    /* A file that is there may have been made by a process that died before this line: its folder is synced every time. */
    if (r == 0)
        r = io_sync_folder(path);
    if (r < 0 && io->ftruncate(fd, st.st_size) < 0)
        r = -errno;
out:
    buf_free(&lines);
    io->close(fd);
    return r;
}

/* ---- Reading ---- */

struct dead_file {
    int fd;
    struct stat st;
    uint64_t end, at;                /* bytes of the file; read up to here */
    uint64_t line;
    struct buf text;                 /* read and not handed out, from `taken` on */
    size_t taken;
    struct buf head;
    struct json *json;
};

static struct dead_file *dead_file_new(int fd, const struct stat *st)
{
    struct dead_file *file = calloc(1, sizeof(*file));

    if (file == NULL)
        abort();
    *file = (struct dead_file){ .fd = fd, .st = *st, .end = (uint64_t)st->st_size, .json = json_new() };
    return file;
}

int dead_open(struct dead_file **ret, const char *path)
{
    struct stat st;
    int fd = dead_lock(path, O_RDONLY, LOCK_SH, &st);

    if (fd < 0)
        return fd;
    (void)flock(fd, LOCK_UN);                      /* what lies before this end does not change any more */
    *ret = dead_file_new(fd, &st);
    return 0;
}

void dead_close(struct dead_file *file)
{
    if (file == NULL)
        return;
    io->close(file->fd);
    buf_free(&file->text);
    buf_free(&file->head);
    json_free(file->json);
    free(file);
}

/* Bytes read; 0 at the end. */
static ssize_t dead_read_on(struct dead_file *file)
{
    uint64_t left = file->end - file->at;
    size_t size = left < BLOCK_SIZE ? (size_t)left : BLOCK_SIZE;
    ssize_t got;

    if (size == 0)
        return 0;
    buf_reserve(&file->text, size);
    got = io_read_full(file->fd, file->text.data + file->text.size, size, file->at);
    if (got > 0) {
        file->text.size += (size_t)got;
        file->at += (uint64_t)got;
    }
    return got;
}

/* Reads on to the line's end. 1 and the line without its end (data NULL: too long, its bytes are dropped), 0 where the file
 * ends first, or negative. The line is lent until the next call. */
static int dead_find_line(struct dead_file *file, struct pen_span *line)
{
    struct buf *text = &file->text;
    size_t seen = file->taken;
    bool too_long = false;
    ssize_t got;
    char *end;

    for (;;) {
        end = text->size > seen ? memchr(text->data + seen, '\n', text->size - seen) : NULL;
        if (end != NULL) {
            if (!too_long)
                *line = (struct pen_span){ text->data + file->taken, (size_t)(end - text->data) - file->taken };
            file->taken = (size_t)(end - text->data) + 1;
            return 1;
        }
        text->size -= file->taken;
        if (text->size > 0)
            memmove(text->data, text->data + file->taken, text->size);
        file->taken = 0;
        too_long |= text->size > LINE_BYTES_MAX;
        if (too_long)
            text->size = 0;
        seen = text->size;
        got = dead_read_on(file);
        if (got > 0)
            continue;
        if (!too_long)
            *line = (struct pen_span){ text->data, text->size };
        file->taken = text->size;
        return (int)got;
    }
}

static void dead_name(struct dead_letter *letter)
{
    unsigned char hash[EVP_MAX_MD_SIZE];

    if (EVP_Digest(letter->text.data, letter->text.size, hash, NULL, EVP_sha256(), NULL) != 1)
        abort();
    for (size_t i = 0; i < (DEAD_ID_SIZE - 1) / 2; i++)
        snprintf(letter->id + 2 * i, 3, "%02x", hash[i]);
}

/* Takes the line apart; NULL, or what is wrong with it. */
static const char *dead_parse(struct dead_file *file, struct dead_letter *letter)
{
    static const char key[] = ",\"message\":";
    const char *at = memmem(letter->text.data, letter->text.size, key, sizeof(key) - 1), *why;
    const char *end = letter->text.data + letter->text.size;
    struct pen_json root, node;
    int64_t position;

    if (at == NULL || letter->text.data[0] != '{' || end[-1] != '}')
        return "not a dead letter: torn, or not ours";
    letter->message = (struct pen_span){ at + sizeof(key) - 1, (size_t)(end - 1 - at) - (sizeof(key) - 1) };
    letter->head = (struct pen_span){ letter->text.data, (size_t)(at - letter->text.data) };
    file->head.size = 0;
    buf_add(&file->head, letter->head.data, letter->head.size);
    buf_char(&file->head, '}');
    buf_reserve(&file->head, JSON_PADDING);
    if (json_parse(file->json, file->head.data, file->head.size, &root, &why) < 0)
        return why;
    letter->time = pen_json_text(&root, "time");
    letter->sink = pen_json_text(&root, "sink");
    letter->schema = pen_json_text(&root, "schema");
    letter->kind = pen_json_text(&root, "kind");
    letter->status = pen_json_text(&root, "status");
    letter->reason = pen_json_text(&root, "reason");
    letter->stream = pen_json_text(&root, "stream");
    node = pen_json_get(&root, "position");
    if (!pen_json_int(&node, &position))
        return "no position";
    letter->position = (uint64_t)position;
    node = pen_json_get(&root, "ticks");
    if (!pen_json_int(&node, &letter->ticks))
        return "no ticks";
    if (letter->time.size == 0 || letter->stream.size == 0)
        return "no time or no stream";
    return NULL;
}

int dead_next(struct dead_file *file, struct dead_letter *letter)
{
    int r;

    *letter = (struct dead_letter){ .offset = file->at - (file->text.size - file->taken) };
    r = dead_find_line(file, &letter->text);
    letter->end = file->at - (file->text.size - file->taken);
    if (r < 0 || letter->end == letter->offset)
        return r;
    letter->line = ++file->line;
    if (letter->text.data == NULL) {
        letter->damage = "longer than any letter";
        return 1;
    }
    dead_name(letter);
    letter->damage = r == 0 ? "without an end: torn" : dead_parse(file, letter);
    return 1;
}

/* ---- Rewriting ---- */

static int copy_bytes(int from_fd, uint64_t from, uint64_t to, int fd, uint64_t *at)
{
    static const char end = '\n';
    char *block = malloc(BLOCK_SIZE), last = end;
    int r = block == NULL ? UV_ENOMEM : 0;

    while (r == 0 && from < to) {
        size_t size = to - from < BLOCK_SIZE ? (size_t)(to - from) : BLOCK_SIZE;
        ssize_t got = io_read_full(from_fd, block, size, from);

        if (got <= 0) {
            r = got < 0 ? (int)got : UV_EIO;
            break;
        }
        r = io_write_full(fd, block, (size_t)got, *at);
        last = block[got - 1];
        from += (uint64_t)got;
        *at += (uint64_t)got;
    }
    if (r == 0 && last != end)                     /* a torn line must not grow together with the next one */
        r = io_write_full(fd, &end, 1, (*at)++);
    free(block);
    return r;
}

/* The lines that stay, copied in stretches. */
static int copy_kept(struct dead_file *file, bool (*drops)(void *arg, const struct dead_letter *letter), void *arg, int fd,
                     uint64_t *at)
{
    struct dead_letter letter;
    uint64_t kept_from = 0;
    int r, copied;

    while ((r = dead_next(file, &letter)) > 0) {
        if (!drops(arg, &letter))
            continue;
        copied = copy_bytes(file->fd, kept_from, letter.offset, fd, at);
        if (copied < 0)
            return copied;
        kept_from = letter.end;
    }
    return r < 0 ? r : copy_bytes(file->fd, kept_from, file->end, fd, at);
}

static int copy_more(const char *path, int fd, uint64_t *at)
{
    struct stat st;
    int more_fd = io->openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0), r;

    if (more_fd < 0)
        return errno == ENOENT ? 0 : -errno;
    r = io->fstat(more_fd, &st) < 0 ? -errno : copy_bytes(more_fd, 0, (uint64_t)st.st_size, fd, at);
    io->close(more_fd);
    return r;
}

/* The new file belongs to whom the old one belonged to: root may use the commands, the daemon must still be able to append. */
static int dead_own(int fd, const struct stat *st)
{
    if ((st->st_uid != geteuid() || st->st_gid != getegid()) && fchown(fd, st->st_uid, st->st_gid) < 0)
        return -errno;
    return fchmod(fd, st->st_mode & 0777) < 0 ? -errno : 0;
}

static int rewrite_into(struct dead_file *file, int fd, bool (*drops)(void *arg, const struct dead_letter *letter), void *arg,
                        const char *more)
{
    uint64_t at = 0;
    int r = dead_own(fd, &file->st);

    if (r == 0)
        r = copy_kept(file, drops, arg, fd, &at);
    if (r == 0 && more != NULL)
        r = copy_more(more, fd, &at);
    if (r == 0 && io->fsync(fd) < 0)
        r = -errno;
    return r;
}

int dead_rewrite(const char *path, const struct dead_file *read, bool (*drops)(void *arg, const struct dead_letter *letter),
                 void *arg, const char *more)
{
    struct dead_file *file = NULL;
    char *path_new;
    struct stat st;
    int fd = dead_lock(path, O_RDWR, LOCK_EX, &st), fd_new = -1, r = 0;

    if (fd < 0)
        return fd;
    if (asprintf(&path_new, "%s.new", path) < 0)
        abort();
    file = dead_file_new(fd, &st);
    if (read != NULL && !same_file(&read->st, &st))
        r = UV_ECANCELED;
    if (r == 0) {
        fd_new = io->openat(AT_FDCWD, path_new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        r = fd_new < 0 ? -errno : rewrite_into(file, fd_new, drops, arg, more);
    }
    if (fd_new >= 0)
        io->close(fd_new);
    if (r == 0 && io->renameat(AT_FDCWD, path_new, AT_FDCWD, path) < 0)
        r = -errno;
    else if (r == 0)
        r = io_sync_folder(path);
    if (r < 0 && fd_new >= 0)
        io->unlinkat(AT_FDCWD, path_new, 0);
    dead_close(file);                              /* and unlocks */
    free(path_new);
    return r;
}
