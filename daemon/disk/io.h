/*
 * io.h - every call by which the spool, the dead letters and the cursors reach the disk, the clock and chance: one small
 * table of functions. The daemon's own is the C library's; tests lay another over it that fails at the nth call, loses what
 * was not synced, or ends the process at a named point.
 *
 * The members mean what POSIX says of the functions of the same name: -1 and errno on trouble, short counts and EINTR are
 * the caller's to cope with; io_read_full() and io_write_full() do.
 */
#ifndef DAEMON_IO_H
#define DAEMON_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <time.h>

struct io {
    int (*openat)(int dir_fd, const char *path, int flags, mode_t mode);
    int (*close)(int fd);
    ssize_t (*pread)(int fd, void *into, size_t size, off_t offset);
    ssize_t (*pwrite)(int fd, const void *from, size_t size, off_t offset);
    int (*fstat)(int fd, struct stat *st);
    int (*fstatat)(int dir_fd, const char *path, struct stat *st, int flags);
    int (*fstatvfs)(int fd, struct statvfs *st);
    int (*ftruncate)(int fd, off_t size);
    int (*fallocate)(int fd, int mode, off_t offset, off_t size);
    int (*fdatasync)(int fd);
    int (*fsync)(int fd);            /* folders too: what was made, renamed or removed in them */
    int (*mkdirat)(int dir_fd, const char *path, mode_t mode);
    int (*unlinkat)(int dir_fd, const char *path, int flags);
    int (*renameat)(int from_fd, const char *from, int to_fd, const char *to);
    /* Calls back for every name in the folder but "." and "..", in no order, until each() says otherwise than 0. */
    int (*list)(int dir_fd, int (*each)(void *arg, const char *name), void *arg);
    int (*clock)(clockid_t clock, struct timespec *now);
    int (*random)(void *into, size_t size);       /* unpredictable bytes, all of them */
};

/* Set before threads start, by tests only. */
extern const struct io *io;
extern const struct io io_posix;

/* A disk that changes its path, or finds a good copy, gives an error and then the bytes. True: ask again; counts in *tries,
 * which begins at 0, and pauses for some milliseconds. */
bool io_again(int error, unsigned *tries);
/* Bytes read, fewer only at the end of the file; negative libuv code on trouble. */
ssize_t io_read_full(int fd, void *into, size_t size, uint64_t offset);
int io_write_full(int fd, const void *from, size_t size, uint64_t offset);
/* Syncs the folder that `path` lies in: what was made or removed there stays so. */
int io_sync_folder(const char *path);
/* Makes the folder, for its owner alone, if it is not there, and sees to it that it stays. */
int io_make_folder(const char *path);
/* The wall clock, 100 ns since 1970. */
int64_t io_now_ticks(void);

#endif
