/*
 * segment.h - one file of the spool: its format, and writing, walking and reading it. What a queue of segments is, spool.h
 * tells. The format stands at the head of segment.c.
 *
 * Nothing here knows a spool or its state: the daemon's jobs on the pool use it, and so do the commands, beside a running
 * daemon.
 */
#ifndef DAEMON_SEGMENT_H
#define DAEMON_SEGMENT_H

#include "daemon/disk/keys.h"
#include "daemon/outlet/batch.h"

#define SEGMENT_HEADER_SIZE 128u
#define SEGMENT_COPY_AT 4096u        /* of the header: in a sector of its own */
#define SEGMENT_BEGIN (SEGMENT_COPY_AT + SEGMENT_HEADER_SIZE)      /* of the first frame */
#define SEGMENT_HEAD_SIZE 48u
#define SEGMENT_TAIL_MAX 64u          /* frames that one append may have */
#define SEGMENT_WORD_MAX 15u         /* of a schema's and a sink type's name */
#define SEGMENT_PATH_SIZE 40u

struct segment_header {
    bool encrypted;
    unsigned char key_id[KEY_ID_SIZE];
    unsigned char salt[KEY_SALT_SIZE];             /* random; its first 8 bytes tag the segment's frames */
    uint64_t life;                                 /* the process that wrote it */
    int64_t made_ticks;
    char schema[SEGMENT_WORD_MAX + 1], type[SEGMENT_WORD_MAX + 1];
};

struct segment_frame {
    uint64_t offset, end;            /* bytes [offset, end) of the segment */
    uint32_t before;                 /* messages in the segment before this frame */
    uint32_t messages;
    uint32_t stored, plain, crc;     /* bytes of the payload as it lies there, and unpacked */
    uint16_t flags;
    enum pen_kind kind;
    uint64_t order, tag;
};

/* ---- Names ---- */

void segment_path(char out[SEGMENT_PATH_SIZE], uint64_t number);
/* Is this a segment's name? */
bool segment_number(uint64_t *number, const char *name);

/* What lies in a spool's folder. */
struct segment_names {
    struct segment_name {
        uint64_t number, bytes;      /* in blocks */
    } *at;                           /* oldest first */
    size_t count;
    unsigned aside;                  /* files that were set aside, with their bytes among the others' */
    uint64_t other_bytes;
};
int segment_names_read(struct segment_names *names, int dir_fd);
void segment_names_free(struct segment_names *names);
/* The file of this number is not one that we can read: renamed, so that it is in nobody's way. 0, or negative. */
int segment_set_aside(int dir_fd, uint64_t number);

/* ---- Writing ---- */

/* A new file with its header; negative: trouble, and no file. */
int segment_make(int *fd, int dir_fd, uint64_t number, const struct segment_header *header);
/* No more bytes than this will the part take. */
size_t segment_frame_bound(const struct part *part);
/* Writes the part as the frame that begins at frame->offset, with frame->before messages before it; sets its end. Not
 * synced. `zstd` compresses; NULL: it is stored as it is. `key` is the header's, if that says encrypted. */
struct ZSTD_CCtx_s;
int segment_append(int fd, const struct segment_header *header, const struct key *key, struct ZSTD_CCtx_s *zstd,
                   const struct part *part, struct segment_frame *frame);

/* ---- Reading ---- */

struct segment_file {
    int fd;
    uint64_t size, bytes;            /* as its owner sees it, and as the disk does, in blocks */
    int64_t modified_ticks;
    bool has_header;                 /* else both copies are damaged; plain frames can be read all the same */
    struct segment_header header;
    uint32_t alien;                  /* no header of ours, but one of another version: this one */
};

/* Negative: trouble of the disk or the process; nothing was learned. */
int segment_open(struct segment_file *file, int dir_fd, uint64_t number);
void segment_close(struct segment_file *file);

/* The next whole head at or behind `at`, of a frame that ends by `end`: 0, and frame->offset is `end` where there is none.
 * What lies between was damaged. Negative: the disk could not be read there; with `over` such places are passed over. */
int segment_next(const struct segment_file *file, uint64_t at, uint64_t end, bool over, struct segment_frame *frame);

/* Are the frame's bytes those that were written? 1 or 0, and no key is needed; negative: the disk could not be read. */
int segment_verify(const struct segment_file *file, const struct segment_frame *frame);

/* How many messages the last segment holds, which no name tells. */
uint64_t segment_measure(const struct segment_file *file);
/* What an append that nobody was told of leaves in a segment without a whole frame: the beginning of one, or nothing. */
bool segment_is_torn(const struct segment_file *file);

struct segment_payload {             /* a frame's messages, as a batch wants them; all owned */
    char *data;
    size_t size, capacity;
    struct pen_message *messages;
    char *names;
    const char **streams;
    uint32_t stream_count;
};

enum segment_loaded {
    SEGMENT_LOADED,
    SEGMENT_DAMAGED,                 /* it is not what was written */
    SEGMENT_LOCKED,                  /* its key is not in the ring */
    SEGMENT_TROUBLE,                 /* the disk could not be read */
};
enum segment_loaded segment_load(const struct segment_file *file, const struct segment_frame *frame,
                                 const struct keys *keys, struct segment_payload *payload);
void segment_payload_free(struct segment_payload *payload);

#endif
