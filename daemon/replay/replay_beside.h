/*
 * replay_beside.h - what the daemon does meanwhile: a replay gives way to it.
 *
 * Every few seconds the daemon is asked how its sinks are, those that share a far end with the replay: of the same name, or of
 * the same DCR. What they send goes into struct pen_beside, by which the DCR's quota gives way. Where one of them waits for
 * its far end, or does not keep up, the replay stands still. No daemon that answers, and nobody has to be given way.
 */
#ifndef DAEMON_REPLAY_BESIDE_H
#define DAEMON_REPLAY_BESIDE_H

#include "daemon/pipeline/pace.h"
#include "sinks/sink.h"

#define REPLAY_SHARED_MAX 32

struct replay_beside;

struct replay_beside_conf {
    uv_loop_t *loop;
    const char *state_dir;           /* the daemon's */
    const char *shared[REPLAY_SHARED_MAX];         /* names of its sinks */
    size_t shared_count;
    struct pace *pace;
    struct pen_beside *beside;
};

/* conf is copied, what it points to is borrowed. */
struct replay_beside *replay_beside_open(const struct replay_beside_conf *conf);
/* The daemon's sink that is given way to; NULL: none is. */
const char *replay_beside_waits(const struct replay_beside *beside);
/* Handles and memory go on later turns. Copes with NULL. */
void replay_beside_close(struct replay_beside *beside);

#endif
