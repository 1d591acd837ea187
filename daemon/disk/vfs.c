/*
 * vfs.c - see vfs.h.
 *
 * A shim over SQLite's own "unix" VFS. What must survive a power cut goes through the io table on a descriptor of our own:
 * reads, writes, truncations, syncs, deletions, and the sync of the folder behind a new file. What is only between processes
 * stays with "unix": POSIX locks and the shared memory of the -shm file, so that the sqlite3 command may look while we run.
 * (SQLite's own hook for system calls, xSetSystemCall, would do for all but the one call that counts most: it has no fsync.)
 *
 * Closing any descriptor of a file drops the process's POSIX locks on it. So ours lives exactly as long as the file is open,
 * and a process has one connection to a state.db, as the lock on the state folder has it anyway.
 *
 * Unlike "unix" we do not shrug when the folder of a new write-ahead log cannot be synced: then the save has failed.
 */
#include "daemon/disk/vfs.h"

#include "daemon/disk/io.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct vfs_file {
    sqlite3_file base;
    int fd;
    bool folder_unsynced;            /* it may be new, and its folder not know it yet */
    const char *path;                /* SQLite's, alive while the file is open */
    sqlite3_file *unix_file;         /* lies behind this struct */
};

static sqlite3_vfs *unix_vfs;
static _Thread_local int last_errno;

static int trouble(int code)
{
    last_errno = errno;
    return code;
}

static int trouble_writing(int negative, int code)
{
    last_errno = -negative;
    return negative == -ENOSPC || negative == -EDQUOT ? SQLITE_FULL : code;
}

/* ---- What goes through the table ---- */

static int file_close(sqlite3_file *base)
{
    struct vfs_file *file = (struct vfs_file *)base;

    file->unix_file->pMethods->xClose(file->unix_file);
    return io->close(file->fd) < 0 ? trouble(SQLITE_IOERR_CLOSE) : SQLITE_OK;
}

static int file_read(sqlite3_file *base, void *into, int size, sqlite3_int64 offset)
{
    struct vfs_file *file = (struct vfs_file *)base;
    ssize_t got = io_read_full(file->fd, into, (size_t)size, (uint64_t)offset);

    if (got < 0) {
        last_errno = (int)-got;
        return SQLITE_IOERR_READ;
    }
    memset((char *)into + got, 0, (size_t)(size - got));           /* so SQLite wants it */
    return got == size ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static int file_write(sqlite3_file *base, const void *from, int size, sqlite3_int64 offset)
{
    struct vfs_file *file = (struct vfs_file *)base;
    int r = io_write_full(file->fd, from, (size_t)size, (uint64_t)offset);

    return r < 0 ? trouble_writing(r, SQLITE_IOERR_WRITE) : SQLITE_OK;
}

static int file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    struct vfs_file *file = (struct vfs_file *)base;

    return io->ftruncate(file->fd, size) < 0 ? trouble(SQLITE_IOERR_TRUNCATE) : SQLITE_OK;
}

static int file_sync(sqlite3_file *base, int flags)
{
    struct vfs_file *file = (struct vfs_file *)base;
    int r;

    (void)flags;
    if (io->fdatasync(file->fd) < 0)
        return trouble_writing(-errno, SQLITE_IOERR_FSYNC);
    if (!file->folder_unsynced)
        return SQLITE_OK;
    r = io_sync_folder(file->path);
    if (r < 0)
        return trouble_writing(r, SQLITE_IOERR_DIR_FSYNC);
    file->folder_unsynced = false;
    return SQLITE_OK;
}

static int file_size(sqlite3_file *base, sqlite3_int64 *size)
{
    struct vfs_file *file = (struct vfs_file *)base;
    struct stat st;

    if (io->fstat(file->fd, &st) < 0)
        return trouble(SQLITE_IOERR_FSTAT);
    *size = st.st_size;
    return SQLITE_OK;
}

/* ---- What "unix" does for us ---- */

#define UNIX(base) (((struct vfs_file *)(base))->unix_file)

static int file_lock(sqlite3_file *base, int level)
{
    return UNIX(base)->pMethods->xLock(UNIX(base), level);
}

static int file_unlock(sqlite3_file *base, int level)
{
    return UNIX(base)->pMethods->xUnlock(UNIX(base), level);
}

static int file_check_lock(sqlite3_file *base, int *reserved)
{
    return UNIX(base)->pMethods->xCheckReservedLock(UNIX(base), reserved);
}

static int file_control(sqlite3_file *base, int op, void *arg)
{
    return UNIX(base)->pMethods->xFileControl(UNIX(base), op, arg);
}

static int file_sector_size(sqlite3_file *base)
{
    return UNIX(base)->pMethods->xSectorSize(UNIX(base));
}

static int file_device(sqlite3_file *base)
{
    return UNIX(base)->pMethods->xDeviceCharacteristics(UNIX(base));
}

static int file_shm_map(sqlite3_file *base, int page, int page_size, int extend, void volatile **map)
{
    return UNIX(base)->pMethods->xShmMap(UNIX(base), page, page_size, extend, map);
}

static int file_shm_lock(sqlite3_file *base, int offset, int n, int flags)
{
    return UNIX(base)->pMethods->xShmLock(UNIX(base), offset, n, flags);
}

static void file_shm_barrier(sqlite3_file *base)
{
    UNIX(base)->pMethods->xShmBarrier(UNIX(base));
}

static int file_shm_unmap(sqlite3_file *base, int delete)
{
    return UNIX(base)->pMethods->xShmUnmap(UNIX(base), delete);
}

static const sqlite3_io_methods file_methods = {
    .iVersion = 2,                                 /* shared memory, but no mapping of the database: that would read past us */
    .xClose = file_close, .xRead = file_read, .xWrite = file_write, .xTruncate = file_truncate, .xSync = file_sync,
    .xFileSize = file_size, .xLock = file_lock, .xUnlock = file_unlock, .xCheckReservedLock = file_check_lock,
    .xFileControl = file_control, .xSectorSize = file_sector_size, .xDeviceCharacteristics = file_device,
    .xShmMap = file_shm_map, .xShmLock = file_shm_lock, .xShmBarrier = file_shm_barrier, .xShmUnmap = file_shm_unmap,
};

/* ---- The file system ---- */

static int vfs_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *base, int flags, int *flags_out)
{
    struct vfs_file *file = (struct vfs_file *)base;
    int open_flags = O_CLOEXEC | O_NOFOLLOW, r;

    (void)vfs;
    if ((flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL)) == 0)
        return unix_vfs->xOpen(unix_vfs, path, base, flags, flags_out);      /* temporary: no crash asks for it */

    *file = (struct vfs_file){ .path = path, .unix_file = (sqlite3_file *)(file + 1),
                               .folder_unsynced = (flags & SQLITE_OPEN_CREATE) != 0 };
    open_flags |= (flags & SQLITE_OPEN_READWRITE) != 0 ? O_RDWR : O_RDONLY;
    open_flags |= (flags & SQLITE_OPEN_CREATE) != 0 ? O_CREAT : 0;
    open_flags |= (flags & SQLITE_OPEN_EXCLUSIVE) != 0 ? O_EXCL : 0;
    file->fd = io->openat(AT_FDCWD, path, open_flags, 0600);
    if (file->fd < 0)
        return trouble(SQLITE_CANTOPEN);
    r = unix_vfs->xOpen(unix_vfs, path, file->unix_file, flags & ~SQLITE_OPEN_EXCLUSIVE, flags_out);
    if (r != SQLITE_OK) {
        io->close(file->fd);
        return r;
    }
    base->pMethods = &file_methods;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *path, int sync_folder)
{
    int r;

    (void)vfs;
    if (io->unlinkat(AT_FDCWD, path, 0) < 0)
        return trouble(errno == ENOENT ? SQLITE_IOERR_DELETE_NOENT : SQLITE_IOERR_DELETE);
    if (sync_folder == 0)
        return SQLITE_OK;
    r = io_sync_folder(path);
    return r < 0 ? trouble_writing(r, SQLITE_IOERR_DIR_FSYNC) : SQLITE_OK;
}

static int vfs_randomness(sqlite3_vfs *vfs, int size, char *into)
{
    (void)vfs;
    return io->random(into, (size_t)size) < 0 ? 0 : size;
}

static int vfs_now_ms(sqlite3_vfs *vfs, sqlite3_int64 *now)
{
    (void)vfs;
    *now = io_now_ticks() / 10000 + 210866760000000;               /* from noon of 24 November 4714 BC */
    return SQLITE_OK;
}

static int vfs_last_error(sqlite3_vfs *vfs, int size, char *text)
{
    (void)vfs;
    (void)size;
    (void)text;
    return last_errno;
}

const char *vfs_name(void)
{
    static sqlite3_vfs vfs;

    if (vfs.zName != NULL)
        return vfs.zName;
    unix_vfs = sqlite3_vfs_find("unix");
    if (unix_vfs == NULL)
        abort();
    vfs = *unix_vfs;                               /* names, sleeping, whether a file is there */
    vfs.zName = "penstock";
    vfs.szOsFile = (int)sizeof(struct vfs_file) + unix_vfs->szOsFile;
    vfs.xOpen = vfs_open;
    vfs.xDelete = vfs_delete;
    vfs.xRandomness = vfs_randomness;
    vfs.xCurrentTimeInt64 = vfs_now_ms;
    vfs.xGetLastError = vfs_last_error;
    if (sqlite3_vfs_register(&vfs, 0) != SQLITE_OK)
        abort();
    return vfs.zName;
}
