/*
 * reserve.h - a piece of the disk that is ours, for the day when nothing is left of it: the file `reserve` in the state folder.
 *
 * To empty the spool on a full disk, something must be written: cursors, and the dead letters of what the far end rejects.
 * So when one of these meets a full disk, the reserve is released: the file goes, and its blocks are theirs. The spool
 * appends nothing until there is room to make it anew, or it would take those blocks for what still comes in. Removing
 * segments needs no room.
 *
 *      HELD ──a cursor or a dead letter finds no room──▶ RELEASED ──twice its size is free again──▶ HELD
 *
 * If we die when it is released, the next start makes it, or, while the disk is full, begins without.
 */
#ifndef DAEMON_RESERVE_H
#define DAEMON_RESERVE_H

#include <stdbool.h>
#include <stdint.h>

#define RESERVE_BYTES ((uint64_t)4 * 1024 * 1024)

struct reserve;

/* For the folder, which must be there. Trouble is logged: without a reserve all goes on as long as there is room. */
struct reserve *reserve_open(const char *state_dir);
void reserve_close(struct reserve *reserve);      /* copes with NULL; the file stays */
/* The disk is full, and what must be written must be written. Copes with NULL. */
void reserve_release(struct reserve *reserve);
/* Is the reserve there? If not, makes it if there is room. True without one (NULL). */
bool reserve_held(struct reserve *reserve);

#endif
