/* vfs.h - SQLite's calls by way of daemon/disk/io.h: state.db and its write-ahead log reach the disk as the spool does. */
#ifndef DAEMON_VFS_H
#define DAEMON_VFS_H

/* The name to open databases with; registered at the first call, which is no thread's race: before others start. */
const char *vfs_name(void);

#endif
