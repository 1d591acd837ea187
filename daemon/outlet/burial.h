/*
 * burial.h - an outlet's way into the dead letters: parts that wait for it, and the one job that writes them.
 *
 * Where they cannot be written (the disk, or dead_max) they wait in memory and are tried again and again; it is said once.
 * Meanwhile the outlet may go on until a few have gathered: a spool that fills the disk must be able to drain although one
 * message of it dies. Then it must submit nothing, or memory would fill with what dies: burial_blocks().
 */
#ifndef DAEMON_BURIAL_H
#define DAEMON_BURIAL_H

#include "daemon/disk/dead.h"
#include "daemon/outlet/batch.h"

#define BURIAL_PARTS_MAX 64          /* of one job */
#define BURIAL_TROUBLED_MAX 8        /* that wait while nothing can be written; each may hold a whole batch in memory */

struct burial_conf {
    uv_loop_t *loop;
    const char *state_dir;
    struct dead_stamp stamp;         /* its texts live as long as the burial */
    uint64_t bytes_max;
    void (*on_buried)(struct part *part);          /* its messages are in the dead letters, synced; the part is the outlet's */
    void (*on_done)(void *arg);      /* after each attempt */
    void *arg;
};

struct burial {
    struct burial_conf conf;
    char *path;
    struct parts waiting;
    uint32_t waiting_count;
    struct part *parts[BURIAL_PARTS_MAX];          /* the job's */
    uint32_t count;
    struct dead_stamp stamp;                       /* the job's, as the settings were when it began */
    uint64_t bytes_max;
    uv_work_t work;
    int result;
    uint64_t since_ms;               /* a job runs since; 0: none does */
    uint64_t hold_until_ms;
    bool trouble;                    /* the last attempt failed */
    bool alarmed;
    uint64_t busy_until_ms;          /* a command that has the file for longer than this is worth an alarm */
    uint64_t unsaid, said_ms;        /* deaths that no line has told of yet */
};

void burial_init(struct burial *burial, const struct burial_conf *conf);
void burial_free(struct burial *burial);          /* no job may run; what waits has been abandoned */
/* The part's messages are at their end, for this reason. */
void burial_add(struct burial *burial, struct part *part, const char *why);
/* Bytes of the file of letters as it lies there: `penstock dead` may have changed it. Looks at the disk's inode, no more. */
uint64_t burial_bytes(const struct burial *burial);
/* Starts what may start. */
void burial_pump(struct burial *burial);

/* More has died than can be written now. */
static inline bool burial_blocks(const struct burial *burial)
{
    return burial->waiting_count > (burial->trouble ? BURIAL_TROUBLED_MAX : BURIAL_PARTS_MAX);
}

#endif
