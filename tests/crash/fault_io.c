/* fault_io.c - see fault_io.h. */
#include "crash/fault_io.h"

#include "crash/disk_io.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>

const char *const fault_words[FAULTS] = {
    [FAULT_NO_SPACE] = "no space", [FAULT_IO] = "i/o error", [FAULT_INTERRUPTED] = "interrupted", [FAULT_SHORT] = "short",
};

/* Which calls a fault can hit. */
enum call { READS = 1, WRITES = 2, SYNCS = 4, GROWS = 8, OTHER = 16 };
static const unsigned hits_what[FAULTS] = {
    [FAULT_NO_SPACE] = WRITES | SYNCS | GROWS, [FAULT_IO] = READS | WRITES | SYNCS | GROWS | OTHER,
    [FAULT_INTERRUPTED] = READS | WRITES | SYNCS | GROWS, [FAULT_SHORT] = READS | WRITES,
};
static const int errnos[FAULTS] = { [FAULT_NO_SPACE] = ENOSPC, [FAULT_IO] = EIO, [FAULT_INTERRUPTED] = EINTR };

static struct {
    enum fault fault;
    unsigned long nth, lasts, calls, hits;
    pthread_mutex_t lock;
} state = { .lock = PTHREAD_MUTEX_INITIALIZER };

void fault_set(enum fault fault, unsigned long nth, unsigned long lasts)
{
    pthread_mutex_lock(&state.lock);
    state.fault = fault;
    state.nth = nth;
    state.lasts = lasts;
    state.calls = state.hits = 0;
    pthread_mutex_unlock(&state.lock);
}

unsigned long fault_calls(void)
{
    return state.calls;
}

unsigned long fault_hits(void)
{
    return state.hits;
}

static bool hit(enum call call)
{
    bool yes;

    pthread_mutex_lock(&state.lock);
    state.calls += (hits_what[state.fault] & call) != 0;
    yes = (hits_what[state.fault] & call) != 0 && state.nth > 0 && state.calls >= state.nth &&
        state.calls - state.nth < state.lasts;
    state.hits += yes;
    pthread_mutex_unlock(&state.lock);
    if (yes)
        errno = errnos[state.fault];
    return yes;
}

static int fault_openat(int dir_fd, const char *path, int flags, mode_t mode)
{
    return hit((flags & O_CREAT) != 0 ? GROWS : OTHER) ? -1 : disk_io.openat(dir_fd, path, flags, mode);
}

static ssize_t fault_pread(int fd, void *into, size_t size, off_t offset)
{
    if (!hit(READS))
        return disk_io.pread(fd, into, size, offset);
    return state.fault == FAULT_SHORT ? disk_io.pread(fd, into, size - size / 2, offset) : -1;
}

static ssize_t fault_pwrite(int fd, const void *from, size_t size, off_t offset)
{
    if (!hit(WRITES))
        return disk_io.pwrite(fd, from, size, offset);
    if (state.fault == FAULT_SHORT)
        return disk_io.pwrite(fd, from, size - size / 2, offset);
    if (state.fault == FAULT_NO_SPACE && size > 1 && disk_io.pwrite(fd, from, size / 2, offset) > 0)
        return (ssize_t)(size / 2);                /* what still had room; the next call has none, if the fault lasts */
    errno = errnos[state.fault];
    return -1;
}

static int fault_fstat(int fd, struct stat *st)
{
    return hit(OTHER) ? -1 : disk_io.fstat(fd, st);
}

static int fault_fstatat(int dir_fd, const char *path, struct stat *st, int flags)
{
    return hit(OTHER) ? -1 : disk_io.fstatat(dir_fd, path, st, flags);
}

static int fault_fstatvfs(int fd, struct statvfs *st)
{
    return hit(OTHER) ? -1 : disk_io.fstatvfs(fd, st);
}

static int fault_ftruncate(int fd, off_t size)
{
    return hit(OTHER) ? -1 : disk_io.ftruncate(fd, size);
}

static int fault_fallocate(int fd, int mode, off_t offset, off_t size)
{
    return hit(GROWS) ? -1 : disk_io.fallocate(fd, mode, offset, size);
}

static int fault_sync(int fd)
{
    if (!hit(SYNCS))
        return disk_io.fsync(fd);
    if (state.fault == FAULT_IO)
        disk_sync_failed(fd);
    errno = errnos[state.fault];
    return -1;
}

static int fault_mkdirat(int dir_fd, const char *path, mode_t mode)
{
    return hit(GROWS) ? -1 : disk_io.mkdirat(dir_fd, path, mode);
}

static int fault_unlinkat(int dir_fd, const char *path, int flags)
{
    return hit(OTHER) ? -1 : disk_io.unlinkat(dir_fd, path, flags);
}

static int fault_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    return hit(GROWS) ? -1 : disk_io.renameat(from_fd, from, to_fd, to);
}

static int fault_list(int dir_fd, int (*each)(void *arg, const char *name), void *arg)
{
    return hit(OTHER) ? -1 : disk_io.list(dir_fd, each, arg);
}

static int fault_random(void *into, size_t size)
{
    return hit(OTHER) ? -1 : disk_io.random(into, size);
}

static int fault_close(int fd)
{
    return disk_io.close(fd);
}

static int fault_clock(clockid_t clock, struct timespec *now)
{
    return disk_io.clock(clock, now);
}

const struct io fault_io = {
    .openat = fault_openat, .close = fault_close, .pread = fault_pread, .pwrite = fault_pwrite, .fstat = fault_fstat,
    .fstatat = fault_fstatat, .fstatvfs = fault_fstatvfs, .ftruncate = fault_ftruncate, .fallocate = fault_fallocate, .fdatasync = fault_sync,
    .fsync = fault_sync, .mkdirat = fault_mkdirat, .unlinkat = fault_unlinkat, .renameat = fault_renameat,
    .list = fault_list, .clock = fault_clock, .random = fault_random,
};
