/*
 * reader.c - finding a file again, and reading on in it.
 *
 * What may have happened to a file since we last looked, and how it is told:
 *
 *   at its path                                      same device and inode
 *   renamed (log -> log.1)                           its inode under the name the walk saw, or under any in its folder
 *   replaced by a longer copy (azcopy, blobfuse)     other inode at the path, none of ours left, prints hold
 *   replaced by another file, inode reused           prints do not hold
 *   truncated and written anew (copytruncate)        same inode; shorter, or prints do not hold
 *   deleted                                          nothing of the above; an open one can still be read
 *
 * An inode number alone proves nothing (azcopy over a folder of files passes each freed inode to the next file), so a
 * file is accepted under another name only when its prints hold there.
 */
#include "daemon/source/reader.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

/* ---- Prints ---------------------------------------------------------------------------------------------------- */

static uint64_t print_hash(const char *data, size_t size)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    uint64_t hash;
    int ok = EVP_Digest(data, size, digest, NULL, EVP_sha256(), NULL);

    assert(ok == 1);
    memcpy(&hash, digest, sizeof hash);
    return hash;
}

void reader_note(struct reader *reader, const char *data, size_t size, uint64_t offset, struct prints *prints)
{
    size_t keep = size < PRINT_TAIL ? PRINT_TAIL - size : 0;

    if (reader->head_size < PRINT_HEAD && offset == reader->head_size) {
        size_t take = size < (size_t)(PRINT_HEAD - reader->head_size) ? size : (size_t)(PRINT_HEAD - reader->head_size);

        memcpy(reader->head + reader->head_size, data, take);
        reader->head_size += (uint16_t)take;
    }
    if (keep > reader->tail_size)
        keep = reader->tail_size;
    memmove(reader->tail, reader->tail + reader->tail_size - keep, keep);
    if (size > PRINT_TAIL)
        data += size - PRINT_TAIL;
    memcpy(reader->tail + keep, data, size < PRINT_TAIL ? size : PRINT_TAIL);
    reader->tail_size = (uint16_t)(keep + (size < PRINT_TAIL ? size : PRINT_TAIL));

    *prints = (struct prints){
        .head = print_hash(reader->head, reader->head_size), .head_size = reader->head_size,
        .tail = print_hash(reader->tail, reader->tail_size), .tail_size = reader->tail_size,
        .tail_at = offset + size,
    };
}

/* ---- Opening --------------------------------------------------------------------------------------------------- */

void reader_close(struct reader *reader)
{
    if (reader == NULL)
        return;
    unpack_free(reader->unpack);
    if (reader->fd >= 0)
        close(reader->fd);
    free(reader);
}

bool reader_is_packed(const struct reader *reader)
{
    return unpack_format(reader->unpack) != UNPACK_PLAIN;
}

/* An fd of a regular file, or negative. Not blocking: a fifo under a log's name must not hold a worker. */
static int open_regular(int folder, const char *name, struct stat *st)
{
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), r;

    if (fd < 0)
        return -errno;
    r = fstat(fd, st) < 0 ? -errno : S_ISREG(st->st_mode) ? 0 : UV_EINVAL;
    if (r < 0) {
        close(fd);
        return r;
    }
    return fd;
}

static int reader_new(struct reader **ret, int fd, struct pen_error *err)
{
    struct reader *reader = calloc(1, sizeof *reader);
    int r;

    if (reader == NULL) {
        close(fd);
        return UV_ENOMEM;
    }
    reader->fd = fd;
    r = unpack_new(&reader->unpack, fd, err);
    if (r < 0) {
        reader_close(reader);
        return r;
    }
    *ret = reader;
    return 0;
}

/* ---- Verifying ------------------------------------------------------------------------------------------------- */

/* All `size` bytes at `at`: 1, or 0 where the file does not reach that far, or negative. */
static int reader_window(struct reader *reader, uint64_t at, char *data, size_t size, struct pen_error *err)
{
    int r = unpack_seek(reader->unpack, at, err);

    if (r == UV_EOF)
        return 0;
    for (size_t done = 0; r >= 0 && done < size; done += (size_t)r) {
        ssize_t n = unpack_read(reader->unpack, data + done, size - done, err);

        if (n == 0)
            return 0;
        r = (int)n;
    }
    return r < 0 ? r : 1;
}

/* Do the prints hold in this file? Negative: trouble. A damaged archive is only short: what is there can be compared. */
static int reader_holds(struct reader *reader, const struct prints *prints, struct pen_error *err)
{
    char data[PRINT_HEAD];
    int r;

    if (prints->head_size == 0)
        return CONTENT_SAME;
    r = reader_window(reader, 0, data, prints->head_size, err);
    if (r == 1 && print_hash(data, prints->head_size) != prints->head)
        return CONTENT_OTHER;
    if (r == 1) {
        r = reader_window(reader, prints->tail_at - prints->tail_size, data, prints->tail_size, err);
        if (r == 1)
            return print_hash(data, prints->tail_size) == prints->tail ? CONTENT_SAME : CONTENT_OTHER;
    }
    return r == 0 || r == UV_EINVAL ? CONTENT_SHORT : r;
}

/* Gets ready to read on at the position: its head and tail bytes are known again. */
static int reader_prime(struct reader *reader, uint64_t position, struct pen_error *err)
{
    int r;

    reader->head_size = (uint16_t)(position < PRINT_HEAD ? position : PRINT_HEAD);
    reader->tail_size = (uint16_t)(position < PRINT_TAIL ? position : PRINT_TAIL);
    r = reader_window(reader, 0, reader->head, reader->head_size, err);
    if (r == 1)
        r = reader_window(reader, position - reader->tail_size, reader->tail, reader->tail_size, err);
    if (r == 1)
        r = unpack_seek(reader->unpack, position, err) < 0 ? err->code : 1;
    reader->next = position;
    return r;
}

/* What the reader noted while it read is what the prints were made of. */
static bool reader_is_primed(const struct reading *reading)
{
    const struct reader *reader = reading->reader;
    const struct prints *prints = &reading->prints;

    return reader->next > 0 && prints->head_size > 0 && prints->tail_at == reading->position &&
           reader->head_size == prints->head_size && reader->tail_size == prints->tail_size;
}

/* A packed file in the middle of its reading cannot look back without starting over, and needs not: its archive's own
 * checks tell when it was changed under our hands. */
static int reader_verify(struct reading *reading)
{
    struct reader *reader = reading->reader;
    bool under_way = reader->next == reading->position + reading->have && reader->next > 0;
    int r;

    if (under_way && reader_is_packed(reader)) {
        reading->content = CONTENT_SAME;
        return 0;
    }
    reading->size = reading->have = 0;         /* a rest kept from elsewhere: it is read again here */
    r = reader_holds(reader, &reading->prints, &reading->err);
    if (r < 0)
        return r;
    reading->content = (enum content)r;
    if (reading->content != CONTENT_SAME)
        return 0;
    if (reader_is_primed(reading)) {
        reader->next = reading->position;
        r = unpack_seek(reader->unpack, reading->position, &reading->err);
        return r < 0 ? r : 0;
    }
    r = reader_prime(reader, reading->position, &reading->err);
    if (r == 0)
        reading->content = CONTENT_SHORT;
    return r < 0 ? r : 0;
}

/* ---- Locating -------------------------------------------------------------------------------------------------- */

static bool is_ours(const struct reading *reading, const struct stat *st)
{
    return st->st_dev == reading->dev && st->st_ino == reading->ino;
}

/* Takes the fd, as our file's new place, if our bytes are in it. */
static bool locate_adopt(struct reading *reading, int fd, bool trust_empty)
{
    struct reader *reader = NULL;
    struct pen_error err = { 0 };

    if (reading->prints.head_size == 0 && !trust_empty) {
        close(fd);
        return false;
    }
    if (reader_new(&reader, fd, &err) < 0)
        return false;
    if (reader_holds(reader, &reading->prints, &err) != CONTENT_SAME) {
        reader_close(reader);
        return false;
    }
    /* One that is open already is better kept: it may be in the middle of an archive. */
    if (reading->reader != NULL && reading->place != PLACE_REPLACED) {
        reader_close(reader);
    } else {
        reader_close(reading->reader);
        reading->reader = reader;
    }
    return true;
}

static bool locate_at(struct reading *reading, int folder, const char *name, const char *path)
{
    struct stat st;
    int fd = open_regular(folder, name, &st);

    if (fd < 0)
        return false;
    if (!is_ours(reading, &st)) {
        close(fd);
        return false;
    }
    /* Nothing read of it yet: the inode is all we have, and is believed where nobody else sits at our path. */
    if (!locate_adopt(reading, fd, reading->reader != NULL || !reading->path_taken))
        return false;
    reading->place = PLACE_MOVED;
    reading->new_path = strdup(path);
    return true;
}

/* Renamed inside its folder, perhaps to a name that no pattern matches: its end is still ours to read. */
static bool locate_in_folder(struct reading *reading)
{
    const char *slash = strrchr(reading->path, '/');
    char path[PATH_MAX];
    struct dirent *entry;
    bool found = false;
    DIR *dir;

    if (slash == NULL || strlen(reading->path) >= sizeof path ||
        (reading->prints.head_size == 0 && reading->reader == NULL))
        return false;
    memcpy(path, reading->path, (size_t)(slash - reading->path) + 1);
    path[slash - reading->path + 1] = '\0';
    dir = opendir(path);
    if (dir == NULL)
        return false;
    while (!found && (entry = readdir(dir)) != NULL) {
        size_t prefix = (size_t)(slash - reading->path) + 1;

        if (entry->d_ino != reading->ino || prefix + strlen(entry->d_name) >= sizeof path)
            continue;
        strcpy(path + prefix, entry->d_name);
        found = locate_at(reading, dirfd(dir), entry->d_name, path);
    }
    closedir(dir);
    return found;
}

/* The path leads to another file, fd: is it ours, written anew? Not while the old one lives on or holds more. */
static bool locate_replaced(struct reading *reading, int fd)
{
    bool had = reading->reader != NULL;
    struct stat old;

    if (had && (fstat(reading->reader->fd, &old) < 0 || old.st_nlink > 0 || old.st_size > reading->path_st.st_size ||
                (reading->prints.head_size == 0 && old.st_size > 0))) {
        close(fd);
        return false;
    }
    reading->place = PLACE_REPLACED;
    return locate_adopt(reading, fd, true);
}

static int reader_locate(struct reading *reading)
{
    int fd = open_regular(AT_FDCWD, reading->path, &reading->path_st);

    reading->place = PLACE_SAME;
    if (fd >= 0 && is_ours(reading, &reading->path_st)) {
        if (reading->reader != NULL) {
            close(fd);
            return 0;
        }
        return reader_new(&reading->reader, fd, &reading->err);
    }
    if (fd < 0 && fd != UV_ENOENT && fd != UV_ENOTDIR && fd != UV_EINVAL)
        return reading->reader != NULL ? 0 : fd;
    reading->path_taken = fd >= 0;

    if ((reading->hint != NULL && locate_at(reading, AT_FDCWD, reading->hint, reading->hint)) ||
        locate_in_folder(reading)) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    if (fd >= 0 && locate_replaced(reading, fd)) {
        reading->path_taken = false;
        return 0;
    }
    reading->place = reading->reader != NULL ? PLACE_LOST : PLACE_GONE;
    return 0;
}

/* ---- Reading --------------------------------------------------------------------------------------------------- */

/* A plain file is read as far as it reached at `st`, never on into what was written meanwhile: the old `]}` of a PT1H.json
 * with new bytes behind it was never in the file. For the same reason the last two bytes do not count where the file was
 * written while we read: the one may be the old, the other the new. */
static int reader_fill(struct reading *reading)
{
    struct reader *reader = reading->reader;
    bool packed = reader_is_packed(reader);
    struct stat now;

    while (reading->size < reading->capacity) {
        uint64_t left = packed ? UINT64_MAX
            : (uint64_t)reading->st.st_size > reader->next ? (uint64_t)reading->st.st_size - reader->next : 0;
        size_t room = reading->capacity - reading->size;
        ssize_t n = left == 0 ? 0 : unpack_read(reader->unpack, reading->data + reading->size, room < left ? room : left,
                                                &reading->err);

        if (n < 0)
            return (int)n;
        if (n == 0) {
            reading->end = true;
            break;
        }
        reading->size += (size_t)n;
        reader->next += (uint64_t)n;
    }
    if (packed || !reading->end)
        return 0;
    if (fstat(reader->fd, &now) < 0)
        return -errno;
    if (now.st_size != reading->st.st_size || now.st_mtim.tv_sec != reading->st.st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != reading->st.st_mtim.tv_nsec) {
        reading->changed = true;
        reading->size -= reading->size < 2 ? reading->size : 2;
    }
    return 0;
}

/* Where to begin when what is there already is not wanted: behind the last line, or before the `]}` of a PT1H.json, so
 * that the record after it is whole. */
static int reader_skip(struct reading *reading)
{
    struct reader *reader = reading->reader;
    uint64_t at = 0, line = 0, brace = 0;
    char data[16 * 1024];
    char last = 0, before_last = 0;
    uint64_t last_at = 0, before_last_at = 0;
    bool closed = false;             /* the last line is whole */
    ssize_t n;

    if (!reader_is_packed(reader) && reading->st.st_size > 64 * 1024)
        at = (uint64_t)reading->st.st_size - 64 * 1024;
    if (unpack_seek(reader->unpack, at, &reading->err) < 0)
        return reading->err.code;
    while ((n = unpack_read(reader->unpack, data, sizeof data, &reading->err)) > 0)
        for (ssize_t i = 0; i < n; i++, at++) {
            closed = data[i] == '\n';
            if (closed)
                line = at + 1;
            if (data[i] == '\n' || data[i] == '\r' || data[i] == ' ' || data[i] == '\t')
                continue;
            before_last = last;
            before_last_at = last_at;
            last = data[i];
            last_at = at;
        }
    if (n < 0)
        return (int)n;
    if (last == '}' && before_last == ']' && !closed)
        brace = before_last_at;
    reading->skipped_to = brace > 0 ? brace : line > 0 ? line : at;
    n = reader_prime(reader, reading->skipped_to, &reading->err);
    return n < 0 ? (int)n : 0;
}

void reader_run(struct reading *reading)
{
    int r = 0;

    reading->size = reading->have;
    reading->content = CONTENT_SAME;
    if (reading->reader == NULL || reading->check)
        r = reader_locate(reading);
    if (r < 0 || reading->place == PLACE_GONE)
        goto out;
    if (fstat(reading->reader->fd, &reading->st) < 0) {
        r = -errno;
        goto out;
    }
    if ((uint64_t)reading->st.st_size == reading->known_size) {
        reading->end = true;
        goto out;
    }
    r = reader_verify(reading);
    if (r < 0 || reading->content != CONTENT_SAME)
        goto out;
    r = reading->skip ? reader_skip(reading) : reader_fill(reading);
out:
    reading->trouble = r < 0 ? r : 0;
}
