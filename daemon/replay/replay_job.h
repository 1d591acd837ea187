/*
 * replay_job.h - a replay's place on disk: STATE_DIR/replay/HASH, named after what is replayed, so that the same command goes on
 * where a stopped or killed one was, beside the daemon.
 *
 *   state.db, lock, spool/, dead/   as the daemon's own state folder
 *   job                             one JSON object: the command, its window, how far it is; replaced about every second
 *
 * The folder goes when everything is delivered. It stays while something is left to do: files that could not be read, or dead
 * letters, or damage in the spool, of which nothing but --anew makes up.
 */
#ifndef DAEMON_REPLAY_JOB_H
#define DAEMON_REPLAY_JOB_H

#include "daemon/record/window.h"

#include "daemon/base/buf.h"

struct replay_figures {
    uint64_t records, events, outside, bytes;      /* read, and of these those that the window left out; unpacked bytes */
    uint64_t delivered, dead, dropped, waiting;    /* messages; waiting: held or spooled */
    uint64_t done, total;            /* bytes, as source.h has them */
    uint64_t troubles;               /* things that could not be read */
    uint64_t dead_bytes;             /* of dead letters that are still there */
    uint64_t damaged;                /* places of the job's own spool that could not be read */
    int64_t newest_ms;               /* newest event time; negative: none yet */
    bool whole;                      /* all there is to read is known */
};

struct replay_job {
    char *dir;
    char *command;                   /* what to type to go on */
    struct window window;            /* as the first start understood it: -36h means the same when it goes on */
    int64_t started_ms;
    struct replay_figures before;    /* what earlier starts have done */
    bool resumed;
};

/* Makes the folder, or takes up the one of an earlier start. `words` name it; with `anew` an earlier place is forgotten. UV_EBUSY
 * is for whoever opens its state to say. */
int replay_job_open(struct replay_job *job, const char *state_dir, const char *const *words, size_t count, const char *command,
                    const struct window *window, bool anew, struct pen_error *err);
/* rate: unpacked bytes a second; left_s negative: not known. `state` is one word: running, stopped, failed. */
void replay_job_save(const struct replay_job *job, const char *state, const struct replay_figures *figures, double rate,
                     int64_t left_s, const char *waits);
/* All is delivered: the folder goes. */
void replay_job_forget(const struct replay_job *job);
void replay_job_free(struct replay_job *job);

/* The jobs below a daemon's state folder, for people (nothing where there are none) and as a JSON array. */
void replay_jobs_view(const char *state_dir, struct buf *out);
void replay_jobs_json(const char *state_dir, struct buf *out);

/* Removes a folder and all in it. */
void folder_remove(const char *path);

#endif
