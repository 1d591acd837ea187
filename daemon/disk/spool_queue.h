/*
 * spool_queue.h - a spool from the inside: the queue of segments, for the three files it is made of.
 *
 * spool.c opens the queue, settles what was taken and retires what is done; spool_append.c writes at its end; spool_read.c
 * takes from its front. The structs belong to the loop: on the pool, a job touches nothing but itself.
 */
#ifndef DAEMON_SPOOL_QUEUE_H
#define DAEMON_SPOOL_QUEUE_H

#include "daemon/disk/segment.h"
#include "daemon/disk/spool.h"

/* What an append may cost beside its bytes: the file's map of extents, the folder growing by a name. */
#define SPOOL_SLACK_BYTES ((uint64_t)16 * 1024)

struct segment {
    TAILQ_ENTRY(segment) entry;
    uint64_t number;                 /* of its first message */
    uint64_t count;                  /* of its messages */
    uint64_t passed;                 /* of them: taken, or lost */
    uint64_t bytes;                  /* of the disk */
    uint64_t size;                   /* of the file, where it is of this life; else 0: as it is */
    uint64_t read_at;                /* next untaken frame */
    uint64_t room;                   /* fallocated up to here, while it is appended to */
    uint32_t *rows;                  /* [conf.rows] untaken messages; NULL: of an earlier life, all are the last row's */
    uint32_t taken;                  /* frames in the spool's list of taken ones */
    int64_t trouble_since_s;         /* the disk gives errors at read_at; 0: it does not */
    bool sealed;                     /* nothing is appended any more */
    bool read;                       /* some frame of it was whole */
    bool unreadable;                 /* the disk did not give back some place of it */
    bool alien;                      /* another version's */
    bool damaged, locked;            /* said already */
};

struct spool_frame {
    TAILQ_ENTRY(spool_frame) entry;
    struct segment *segment;
    uint64_t offset;
    uint32_t unsettled;              /* messages */
};

struct spool {
    struct spool_conf conf;
    char *dir;
    int dir_fd;
    TAILQ_HEAD(segments, segment) segments;  /* oldest first */
    TAILQ_HEAD(frames, spool_frame) taken; /* in order of place */
    uint64_t bytes;                  /* of segments and other files */
    uint64_t dir_bytes;              /* of the folder itself */
    uint64_t untaken;                /* messages, in all segments */
    uint64_t damaged, next_number;
    uint64_t *rows;                  /* unsettled messages, taken ones too */
    uint64_t *lost;                  /* by rows: messages of frames that could not be read back */
    bool has_lost;                   /* one of them is not 0 */
    bool turn;                       /* the last segment's head no longer says what is appended: the next one begins */
    int write_fd;                    /* of the last segment, while it is not sealed; else -1 */
    struct segment_header write_header;    /* of the same */
    bool appending, reading;
};

static inline uint32_t spool_last_row(const struct spool *spool)
{
    return spool->conf.rows - 1;
}

static inline uint64_t segment_untaken(const struct segment *segment)
{
    return segment->count - segment->passed;
}

uint64_t spool_fd_bytes(int fd);                  /* of the disk; 0 where it cannot be said */
struct segment *spool_segment_add(struct spool *spool, uint64_t number);      /* the newest */
void spool_segment_set_bytes(struct spool *spool, struct segment *segment, uint64_t bytes);
/* Puts the frame with those that are taken; it goes by spool_settle(). */
struct spool_frame *spool_frame_take(struct spool *spool, struct segment *segment, const struct segment_frame *found);
void spool_close_write(struct spool *spool);      /* nothing more will be appended to the last segment */
void spool_turn(struct spool *spool);             /* the same where a new one is due; no append may be out */
/* Segments go once they are sealed, read to their end, and settled; the oldest first. */
void spool_retire(struct spool *spool);
/* Where nothing unsettled is left the open segment goes too, so that an empty spool is an empty folder. */
void spool_seal_empty(struct spool *spool);

#endif
