/*
 * kill_io.c - a daemon that dies where it is told to: the daemon's table of disk calls (daemon/disk/io.h), with the point of death
 * laid over it before main() begins. Linked with daemon/main.c into penstock-kill; penstock itself has none of this.
 *
 *   PENSTOCK_KILL=CALL@PATTERN:NTH:WHEN   SIGKILL at the nth call of that name on a file whose path fits the pattern,
 *                                         `before` it, `after` it, or, of a pwrite, when `half` of its bytes are written
 *   PENSTOCK_CALLS=FILE                   every call's name and path go to the file, one a line: what there is to die at
 *
 * For example: PENSTOCK_KILL='fdatasync@*.seg:17:after'. Whoever is killed at the nth of something that never comes so often
 * lives on: the test has to look.
 */
#include "daemon/disk/io.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum when { NEVER, BEFORE, HALF, AFTER };

static struct {
    char call[32], pattern[PATH_MAX];
    long nth;
    enum when when;
    atomic_long seen;
    int calls_fd;
} point = { .calls_fd = -1 };

static _Noreturn void die(void)
{
    for (;;)
        kill(getpid(), SIGKILL);
}

/* A descriptor's path, or that of a name in a folder. Deleted files end in " (deleted)", and fit no pattern by their end. */
static void path_of(char into[PATH_MAX], int fd, const char *name)
{
    char link[64];
    ssize_t size = 0;

    if (fd >= 0) {
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        size = readlink(link, into, PATH_MAX - 1);
    }
    if (size < 0)
        size = 0;
    if (name != NULL)
        snprintf(into + size, (size_t)(PATH_MAX - size), "%s%s", size > 0 ? "/" : "", name);
    else
        into[size] = '\0';
}

/* What shall happen at this call. Leaves errno alone. */
static enum when point_reached(const char *call, int fd, const char *name)
{
    char path[PATH_MAX], line[PATH_MAX + 64];
    int saved = errno;
    bool here = false;

    path_of(path, name != NULL && name[0] == '/' ? -1 : fd, name);
    if (point.calls_fd >= 0) {
        int size = snprintf(line, sizeof(line), "%s %s\n", call, path);
        if (write(point.calls_fd, line, (size_t)size) != size)
            abort();
    }
    if (point.when != NEVER && strcmp(call, point.call) == 0 && fnmatch(point.pattern, path, 0) == 0)
        here = atomic_fetch_add(&point.seen, 1) + 1 == point.nth;
    if (here && point.when == BEFORE)
        die();
    errno = saved;
    return here ? point.when : NEVER;
}

/* One row of the table: as io_posix has it, with a place to die before and after. */
#define LAID_OVER(type, call, fd, name, parameters, ...) \
    static type kill_##call parameters                   \
    {                                                    \
        enum when when = point_reached(#call, fd, name); \
        type r = io_posix.call(__VA_ARGS__);             \
        if (when == AFTER)                               \
            die();                                       \
        return r;                                        \
    }

LAID_OVER(int, openat, dir_fd, path, (int dir_fd, const char *path, int flags, mode_t mode), dir_fd, path, flags, mode)
LAID_OVER(int, close, fd, NULL, (int fd), fd)
LAID_OVER(ssize_t, pread, fd, NULL, (int fd, void *into, size_t size, off_t offset), fd, into, size, offset)
LAID_OVER(int, fstat, fd, NULL, (int fd, struct stat *st), fd, st)
LAID_OVER(int, fstatvfs, fd, NULL, (int fd, struct statvfs *st), fd, st)
LAID_OVER(int, ftruncate, fd, NULL, (int fd, off_t size), fd, size)
LAID_OVER(int, fallocate, fd, NULL, (int fd, int mode, off_t offset, off_t size), fd, mode, offset, size)
LAID_OVER(int, fdatasync, fd, NULL, (int fd), fd)
LAID_OVER(int, fsync, fd, NULL, (int fd), fd)
LAID_OVER(int, mkdirat, dir_fd, path, (int dir_fd, const char *path, mode_t mode), dir_fd, path, mode)
LAID_OVER(int, unlinkat, dir_fd, path, (int dir_fd, const char *path, int flags), dir_fd, path, flags)
LAID_OVER(int, renameat, from_fd, from, (int from_fd, const char *from, int to_fd, const char *to), from_fd, from, to_fd, to)
LAID_OVER(int, list, dir_fd, NULL, (int dir_fd, int (*each)(void *arg, const char *name), void *arg), dir_fd, each, arg)

static ssize_t kill_pwrite(int fd, const void *from, size_t size, off_t offset)
{
    enum when when = point_reached("pwrite", fd, NULL);
    ssize_t r = io_posix.pwrite(fd, from, when == HALF ? size / 2 : size, offset);

    if (when != NEVER)
        die();
    return r;
}

static void usage(const char *text)
{
    fprintf(stderr, "penstock-kill: PENSTOCK_KILL=%s is not CALL@PATTERN:NTH:WHEN\n", text);
    exit(2);
}

static void point_parse(const char *text)
{
    static const char *const whens[] = { [BEFORE] = "before", [HALF] = "half", [AFTER] = "after" };
    char when[16], end;

    if (sscanf(text, "%31[^@]@%4095[^:]:%ld:%15s%c", point.call, point.pattern, &point.nth, when, &end) != 4 || point.nth < 1)
        usage(text);
    for (int i = BEFORE; i <= AFTER; i++)
        if (strcmp(when, whens[i]) == 0)
            point.when = i;
    if (point.when == NEVER || (point.when == HALF && strcmp(point.call, "pwrite") != 0))
        usage(text);
}

__attribute__((constructor)) static void lay_over(void)
{
    static struct io laid;
    const char *text = getenv("PENSTOCK_KILL"), *calls = getenv("PENSTOCK_CALLS");

    if (text != NULL)
        point_parse(text);
    if (calls != NULL && (point.calls_fd = open(calls, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0) {
        perror(calls);
        exit(2);
    }
    laid = io_posix;                               /* clock and chance stay as they are */
    laid.openat = kill_openat;
    laid.close = kill_close;
    laid.pread = kill_pread;
    laid.pwrite = kill_pwrite;
    laid.fstat = kill_fstat;
    laid.fstatvfs = kill_fstatvfs;
    laid.ftruncate = kill_ftruncate;
    laid.fallocate = kill_fallocate;
    laid.fdatasync = kill_fdatasync;
    laid.fsync = kill_fsync;
    laid.mkdirat = kill_mkdirat;
    laid.unlinkat = kill_unlinkat;
    laid.renameat = kill_renameat;
    laid.list = kill_list;
    io = &laid;
}
