/*
 * dead.c - see dead.h.
 *
 * If we die while appending, the last line may be torn, and its message was not settled: it is sent, refused and written
 * again. So a file that does not end in a line break gets one before the next line.
 */
#include "daemon/dead.h"

#include "daemon/buf.h"
#include "daemon/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static void dead_line(struct buf *out, const char *sink, const struct part *part, uint32_t i, int64_t now_ticks)
{
    const struct pen_message *message = &part->lent.messages[i];
    const char *stream = part->lent.streams[message->stream], *why = part->why != NULL ? part->why : "";

    BUF_LITERAL(out, "{\"time\":\"");
    buf_time(out, now_ticks);
    BUF_LITERAL(out, "\",\"sink\":");
    buf_json_string(out, sink, strlen(sink));
    BUF_LITERAL(out, ",\"reason\":");
    buf_json_string(out, why, strlen(why));
    BUF_LITERAL(out, ",\"stream\":");
    buf_json_string(out, stream, strlen(stream));
    BUF_LITERAL(out, ",\"position\":");
    buf_int(out, (int64_t)message->position);
    BUF_LITERAL(out, ",\"kind\":");
    buf_int(out, part->lent.kind);
    BUF_LITERAL(out, ",\"message\":");
    buf_add(out, part->lent.data + message->offset, message->size);
    BUF_LITERAL(out, "}\n");
}

/* A new file is safe when its folder knows it. */
static int dead_sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash != NULL ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    int fd, r = 0;

    if (folder == NULL)
        abort();
    fd = io->openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0 || io->fsync(fd) < 0)
        r = -errno;
    if (fd >= 0)
        io->close(fd);
    free(folder);
    return r;
}

int dead_append(const char *path, const char *sink, struct part *const *parts, uint32_t count, int64_t now_ticks)
{
    struct buf lines = { 0 };
    char last = '\n';
    struct stat st;
    int fd, r = 0;

    fd = io->openat(AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    if (io->fstat(fd, &st) < 0) {
        r = -errno;
        goto out;
    }
    if (st.st_size > 0 && io_read_full(fd, &last, 1, (uint64_t)st.st_size - 1) != 1) {
        r = -EIO;
        goto out;
    }
    if (last != '\n')
        buf_char(&lines, '\n');
    for (uint32_t p = 0; p < count; p++)
        for (uint32_t i = 0; i < parts[p]->lent.count; i++)
            dead_line(&lines, sink, parts[p], i, now_ticks);
    r = io_write_full(fd, lines.data, lines.size, (uint64_t)st.st_size);
    if (r == 0 && io->fdatasync(fd) < 0)
        r = -errno;
    /* A file that is there may have been made by a process that died before this line: its folder is synced every time. */
    if (r == 0)
        r = dead_sync_folder(path);
    if (r < 0 && io->ftruncate(fd, st.st_size) < 0)
        r = -errno;
out:
    buf_free(&lines);
    io->close(fd);
    return r;
}
