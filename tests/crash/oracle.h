/*
 * oracle.h - what happened, and what must hold of it after any cut.
 *
 * The world of these tests has one stream of numbered records, each of which becomes one message, and one sink. What happens
 * to a record is noted in the disk's log (disk_note), at the latest before the next call that may come from it; the facts at
 * a cut are the notes before it.
 */
#ifndef CRASH_ORACLE_H
#define CRASH_ORACLE_H

#include "crash/disk_io.h"
#include "daemon/disk/spool.h"

#define RECORDS_MAX 4096u
#define SOURCE "source"
#define SINK "sink"
#define STREAM "source/stream"       /* as messages name it; its key in state.db is "stream" */

enum note {
    NOTE_SAFE,                       /* records [from, to) were told to be safe: the source may forget them */
    NOTE_DELIVERED,                  /* the far end has taken record `from` over */
    NOTE_DROPPED,                    /* [from, to) may go, by the user's rule … */
    NOTE_KEPT,                       /* … but these did not */
    NOTE_SAVED,                      /* the cursor stands at `from`, and its save came back */
};

struct facts {
    bool safe[RECORDS_MAX], delivered[RECORDS_MAX], dropped[RECORDS_MAX];
    bool again[RECORDS_MAX];         /* was neither safe nor delivered at a cut */
    uint32_t order[RECORDS_MAX], order_count;      /* records in the order of their first delivery */
    uint64_t saved;
};
/* Adds the notes in steps [from, to) of the disk's log. */
void facts_add(struct facts *facts, const struct disk *disk, size_t from, size_t to);
/* And then the power went. */
void facts_cut(struct facts *facts);

/* The text of a record's message, of varying size; its length. */
#define MESSAGE_MAX 1024u
size_t message_write(char out[MESSAGE_MAX], uint32_t record);
/* The record of this message; -1 where it is not, byte by byte, what message_write() wrote. */
int64_t message_read(const char *data, size_t size);

/* The far end of loop.c refuses these for ever: they are never delivered, and have no order. */
static inline bool record_is_refused(uint32_t record)
{
    return record % 41 == 17;
}

/* The parts of a spool's conf that these tests may vary. */
struct variant {
    const char *name;
    bool compress, encrypted, drop_oldest;
    uint64_t bytes_max;
};
extern const struct variant variants[];
extern const size_t variant_count;
struct spool_conf variant_conf(const struct variant *variant, const char *dir, struct spool_place place);

/*
 * Opens what a cut has left in the folder, as a start does, and compares. Returns the number of violations, each said on
 * stderr with `where`. In the state folder: state.db, spool/, dead/. `ordered`: one batch in flight, so that first
 * deliveries come in order.
 */
unsigned oracle(const char *dir, const struct variant *variant, const struct facts *facts, bool ordered, const char *where);
/* At the end of all: every record in [0, count) was delivered, or lies in the dead letters, or was dropped. */
unsigned oracle_end(const char *dir, const struct facts *facts, uint32_t count, const char *where);

#endif
