/*
 * disk_io.h - a disk whose power can be cut.
 *
 * An io table over real files in a folder, which writes down every change, every sync, and what else the test notes, in one
 * order: the log. From the log it can tell, for any step of it, what a disk may hold if the power went just there: what was
 * synced, and of everything else any part. So a workload runs once, and is cut afterwards, at every step and in many ways,
 * without stopping a process.
 *
 * The disk is as unkind as POSIX lets it be. A file's sync keeps its bytes and size, not its name; a folder's sync keeps the
 * names in it. Of what is not synced each sector of 512 bytes, each size and each name is there or not by itself, and a size
 * may be there without the bytes, which are then zero or anything.
 */
#ifndef CRASH_DISK_IO_H
#define CRASH_DISK_IO_H

#include "daemon/disk/io.h"

#include <stdbool.h>
#include <stddef.h>

struct disk;

/* The folder must be there; what lies in it now counts as synced. One disk is in use at a time: disk_use(). */
struct disk *disk_new(const char *dir);
void disk_free(struct disk *disk);                /* copes with NULL; the folder stays */
void disk_use(struct disk *disk);
/* The table: over the disk in use. */
extern const struct io disk_io;

/* The test's own steps in the log. */
struct disk_note {
    unsigned what;
    uint64_t from, to;
};
void disk_note(unsigned what, uint64_t from, uint64_t to);
const struct disk_note *disk_note_at(const struct disk *disk, size_t step);  /* NULL: the step is a call */

/* Steps [first, end) are of this life; those before were inherited by CUT_KILL. */
size_t disk_first_step(const struct disk *disk);
size_t disk_end_step(const struct disk *disk);

enum disk_cut {
    CUT_NOTHING,                     /* nothing but what was synced */
    CUT_ALL,                         /* everything was on its way, and arrived */
    CUT_PREFIX,                      /* it arrived in order up to some point */
    CUT_TORN,                        /* the same, and the next write only in part */
    CUT_ANY,                         /* any part of it */
    CUT_KILL,                        /* no cut: the process died; all is there, but not safer than it was */
    CUTS
};
/* What the disk may hold before `step` (so disk_end_step() is the end), written into `dir`, as a disk of its own. The seed
 * chooses where the kind of cut leaves a choice. */
struct disk *disk_cut(const struct disk *disk, size_t step, enum disk_cut how, unsigned seed, const char *dir);

/* For the fault table: a file's sync that failed has forgotten what it should have kept, as Linux does it. (Names do not go
 * that way: they are the journal's, and a file system that cannot write that one stops.) */
void disk_sync_failed(int fd);

#endif
