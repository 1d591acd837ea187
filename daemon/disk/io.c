/* io.c - see io.h. */
#include "daemon/disk/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* So often, and with such pauses, a place that gives an error is read again. */
#define IO_TRIES 5u
#define IO_PAUSE_US 10000

static int posix_openat(int dir_fd, const char *path, int flags, mode_t mode)
{
    return openat(dir_fd, path, flags, mode);
}

static int posix_list(int dir_fd, int (*each)(void *arg, const char *name), void *arg)
{
    struct dirent *entry;
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), saved;
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

    if (dir == NULL) {
        saved = errno;
        if (fd >= 0)
            close(fd);
        errno = saved;
        return -1;
    }
    for (errno = 0; (entry = readdir(dir)) != NULL; errno = 0)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && each(arg, entry->d_name) != 0)
            break;
    saved = entry == NULL ? errno : 0;             /* readdir tells its end from its trouble by errno alone */
    closedir(dir);
    errno = saved;
    return saved == 0 ? 0 : -1;
}

static int posix_random(void *into, size_t size)
{
    ssize_t got;

    for (size_t done = 0; done < size; done += (size_t)got) {
        got = getrandom((char *)into + done, size - done, 0);
        if (got < 0 && errno != EINTR)
            return -1;
        got = got < 0 ? 0 : got;
    }
    return 0;
}

const struct io io_posix = {
    .openat = posix_openat, .close = close, .pread = pread, .pwrite = pwrite, .fstat = fstat, .fstatat = fstatat,
    .fstatvfs = fstatvfs, .ftruncate = ftruncate, .fallocate = fallocate, .fdatasync = fdatasync, .fsync = fsync, .mkdirat = mkdirat,
    .unlinkat = unlinkat, .renameat = renameat, .list = posix_list, .clock = clock_gettime, .random = posix_random,
};
const struct io *io = &io_posix;

bool io_again(int error, unsigned *tries)
{
    if (error != EIO || ++*tries >= IO_TRIES)
        return false;
    usleep(IO_PAUSE_US);
    return true;
}

ssize_t io_read_full(int fd, void *into, size_t size, uint64_t offset)
{
    unsigned tries = 0;
    size_t done = 0;
    ssize_t r;

    while (done < size) {
        r = io->pread(fd, (char *)into + done, size - done, (off_t)(offset + done));
        if (r < 0 && (errno == EINTR || io_again(errno, &tries)))
            continue;
        if (r < 0)
            return -errno;
        if (r == 0)
            break;
        done += (size_t)r;
    }
    return (ssize_t)done;
}

int io_write_full(int fd, const void *from, size_t size, uint64_t offset)
{
    size_t done = 0;
    ssize_t r;

    while (done < size) {
        r = io->pwrite(fd, (const char *)from + done, size - done, (off_t)(offset + done));
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return r < 0 ? -errno : -EIO;
        done += (size_t)r;
    }
    return 0;
}

int io_sync_folder(const char *path)
{
    size_t length = strlen(path);
    const char *slash;
    char *folder;
    int fd, r = 0;

    while (length > 1 && path[length - 1] == '/')
        length--;
    slash = memrchr(path, '/', length);
    folder = slash != NULL ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
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

int io_make_folder(const char *path)
{
    bool made = io->mkdirat(AT_FDCWD, path, 0700) == 0;
    int r;

    if (!made && errno != EEXIST)
        return -errno;
    /* One that is there may have been made by a process that died before this line. Where the folder above may not even be
     * opened, it was somebody else, long ago. */
    r = io_sync_folder(path);
    return !made && r == -EACCES ? 0 : r;
}

int64_t io_now_ticks(void)
{
    struct timespec now;

    io->clock(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 10000000 + now.tv_nsec / 100;
}
