/*
 * spool.h - one sink's messages on disk: sealed parts waiting, a queue of segments.
 *
 * The spool holds an unbroken run of its outlet's sequence. Frames are appended and synced in order, read back in order,
 * settled in any order; segments go oldest first, each when its last frame is settled. What opening costs, and memory, stands
 * at the head of spool.c, the format at the head of segment.c.
 *
 * The struct belongs to the loop. What blocks (append, read) is a job: prepared on the loop, run on the pool where it
 * touches nothing but itself, finished on the loop. One append and one read may be out at a time.
 */
#ifndef DAEMON_SPOOL_H
#define DAEMON_SPOOL_H

#include "daemon/disk/keys.h"
#include "daemon/disk/reserve.h"
#include "daemon/outlet/batch.h"

#define SPOOL_SEGMENT_BYTES ((uint64_t)64 * 1024 * 1024)

struct spool;

struct spool_place {                 /* everything before it is settled */
    uint64_t segment, offset;
};

/* A frame that is in memory as well, or was: taken from the spool, or written while its part flew. */
struct spool_frame;

struct spool_conf {
    const char *dir;                 /* made if missing; this spool's own */
    uint64_t bytes_max;              /* of the folder and all in it, as the disk counts */
    bool compress;
    struct reserve *reserve;         /* nothing is appended while it is released; NULL: none */
    const struct keys *keys;         /* to encrypt with the newest of, and to read with any; NULL: none */
    const char *schema, *type;       /* of the sink: what the messages are; written into segments. NULL: nothing said */
    uint32_t rows;                   /* ledger rows: one per source, and one more for frames of earlier lives */
    uint64_t life;                   /* of this process: frames of another life count in the last row */
    struct spool_place place;        /* as saved; zero where nothing was */
};

int spool_open(struct spool **ret, const struct spool_conf *conf, struct pen_error *err);
void spool_close(struct spool *spool);            /* copes with NULL; no job may be out */

/* What a reload may change: the cap, the compression, the keys, and what the messages are. Takes effect with the next append; what
 * is told in a segment's head, with a new segment. */
void spool_change(struct spool *spool, const struct spool_conf *conf);

uint64_t spool_bytes(const struct spool *spool);                          /* on disk, in whole blocks; 0 when empty */
uint64_t spool_messages(const struct spool *spool, uint32_t row);         /* not settled */
uint64_t spool_untaken(const struct spool *spool);                        /* messages still to be read back */
bool spool_is_empty(const struct spool *spool);                           /* nothing unsettled */
uint64_t spool_damaged(const struct spool *spool);                        /* stretches passed over since the start */
bool spool_has_lost(const struct spool *spool);                           /* some row has what the next tells */
/* Messages of this row that turned out to be unreadable since the last call. */
uint64_t spool_lost(struct spool *spool, uint32_t row);
struct spool_place spool_place(const struct spool *spool);                /* to be saved */

/* ---- Append: all parts in one go, one sync ---- */
struct spool_append;
#define SPOOL_APPEND_MAX 64
/* Takes the parts of the array (at most SPOOL_APPEND_MAX) as far as the cap allows; *taken says how many. NULL: none.
 * Those with part->keep come first, and only while no frame is untaken. */
struct spool_append *spool_append_new(struct spool *spool, struct part *const *parts, uint32_t count, uint32_t *taken);
void spool_append_run(struct spool_append *append);                       /* on the pool */
/* 0: every part is synced; for those with part->keep, part->frame is set. Negative: none is on disk. Frees the job. */
int spool_append_done(struct spool_append *append);

/* ---- Read: the oldest untaken frame ---- */
struct spool_read;
struct spool_read *spool_read_new(struct spool *spool);                   /* NULL: nothing untaken */
void spool_read_run(struct spool_read *read);                             /* on the pool */
/* Negative: the disk or the process is in trouble (no descriptor left, say). Nothing is lost: done() gives NULL, try later. */
int spool_read_trouble(const struct spool_read *read);
/* A batch with its frame, or NULL: nothing could be read from there (damage was passed over; try again). Frees the job.
 * In a frame of an earlier life every message's source is UINT32_MAX. */
struct batch *spool_read_done(struct spool_read *read, struct budget *budget, struct spool_frame **frame,
                              uint64_t *order, bool *own_life);

/* n messages of the frame, counted in ledger row `row`, came to their end. The frame goes with its last one. */
void spool_settle(struct spool *spool, struct spool_frame *frame, uint32_t row, uint32_t n);
/* Forgets the oldest segment that no taken frame lies in, and adds what was lost to lost[rows]; false: there is none. */
bool spool_drop_oldest(struct spool *spool, uint64_t *lost);

#endif
