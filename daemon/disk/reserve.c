/* reserve.c - see reserve.h. */
#include "daemon/disk/reserve.h"

#include "daemon/base/log.h"
#include "daemon/disk/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static const char name[] = "reserve";

struct reserve {
    int dir_fd;
    bool held;
};

/* 0, or negative. Where a file system cannot allocate, there is none, and nothing is missed. */
static int reserve_make(struct reserve *reserve)
{
    int fd, r;

    fd = io->openat(reserve->dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    do
        r = io->fallocate(fd, 0, 0, (off_t)RESERVE_BYTES) < 0 ? -errno : 0;
    while (r == -EINTR);
    if (r < 0)
        (void)!io->unlinkat(reserve->dir_fd, name, 0);
    io->close(fd);
    return r == -EOPNOTSUPP || r == -ENOSYS ? 0 : r;
}

static bool reserve_has_room(const struct reserve *reserve)
{
    struct statvfs disk;

    return io->fstatvfs(reserve->dir_fd, &disk) == 0 && (uint64_t)disk.f_bavail * disk.f_frsize >= 2 * RESERVE_BYTES;
}

struct reserve *reserve_open(const char *state_dir)
{
    struct reserve *reserve = calloc(1, sizeof(*reserve));
    int r;

    if (reserve == NULL)
        abort();
    reserve->dir_fd = io->openat(AT_FDCWD, state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    r = reserve->dir_fd < 0 ? -errno : reserve_make(reserve);
    reserve->held = r == 0;
    if (r < 0)
        log_line(LOG_WARN, "there is no room for the reserve: the spool takes nothing until there is", "dir", state_dir,
                 "error", strerror(-r), NULL);
    return reserve;
}

void reserve_close(struct reserve *reserve)
{
    if (reserve == NULL)
        return;
    if (reserve->dir_fd >= 0)
        io->close(reserve->dir_fd);
    free(reserve);
}

void reserve_release(struct reserve *reserve)
{
    if (reserve == NULL || !reserve->held)
        return;
    if (io->unlinkat(reserve->dir_fd, name, 0) < 0 && errno != ENOENT)
        return;
    reserve->held = false;
    log_line(LOG_ERROR, "the disk is full: the reserve is given to cursors and dead letters, and the spool takes nothing until "
             "there is room again", "bytes", log_number(RESERVE_BYTES), NULL);
}

bool reserve_held(struct reserve *reserve)
{
    if (reserve == NULL || reserve->held)
        return true;
    reserve->held = reserve_has_room(reserve) && reserve_make(reserve) == 0;
    if (reserve->held)
        log_line(LOG_NOTE, "there is room on the disk again, and the reserve is made anew", NULL);
    return reserve->held;
}
