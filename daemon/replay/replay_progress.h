/*
 * replay_progress.h - how far a replay is, how fast, how long yet: for the terminal, the log, and `penstock status`.
 */
#ifndef DAEMON_REPLAY_PROGRESS_H
#define DAEMON_REPLAY_PROGRESS_H

#include "daemon/pipeline/pace.h"
#include "daemon/replay/replay_job.h"

#define PROGRESS_SAMPLES 61

/* The last minute, a sample a second: what was read long ago tells nothing of what is to come. */
struct progress {
    struct {
        uint64_t ms, done, bytes;
    } samples[PROGRESS_SAMPLES];
    unsigned count;                  /* taken so far */
    struct pace_rate rate;           /* it will not go faster, whatever it did at first */
};

void progress_take(struct progress *progress, uint64_t now_ms, const struct replay_figures *figures);
/* Unpacked bytes a second, and of what is done. 0 before there are two samples. */
double progress_rate(const struct progress *progress);
double progress_pace(const struct progress *progress);
/* Negative: not known yet. */
int64_t progress_left_s(const struct progress *progress, const struct replay_figures *figures);

/* "37 %  1.25M records  512 MB  5.0 MB/s  3 min left  newest 2026-03-12 14:05Z". rate and left_s: negative, left out. What does
 * not fit goes, from the end. */
void progress_line(char *line, size_t size, const struct replay_figures *figures, double rate, int64_t left_s, const char *waits);
/* "5.0 MB", of 10^6 bytes. */
void progress_bytes(char *text, size_t size, double bytes);

#endif
