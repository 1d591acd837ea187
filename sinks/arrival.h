/*
 * arrival.h - did it arrive? What one DCR accepted of us, against what it says itself that it received of the same minutes.
 *
 * A 2xx means that rows were taken over, and no more: a transformation that fails or filters, or a column that nobody declared,
 * loses them behind it without a word. The DCR counts such losses in metrics of its own, minute by minute, which whoever has the
 * role Monitoring Reader on it may read. So every few minutes they are asked for, beside the data and never in its way, and
 * compared with the tally of what was accepted. Shared by all sinks of the process that name the DCR; a job beside the daemon
 * keeps none.
 *
 * What the comparison proves, and what not:
 *
 *     fewer rows received than accepted    rows are lost: alarm
 *     rows or values dropped, errors       the same, whoever's they are: alarm
 *     more received than accepted          well: others send there, and so did our earlier life
 *     it cannot be asked                   unknown, which is no alarm
 *
 * The minutes of the DCR's clock and ours do not meet exactly, and a row may be counted a minute after its answer: so it is asked
 * for ARRIVAL_EDGE more minutes on both ends, and what comes in those may hide as much that is lost. Over two hours of a steady
 * flow that is one row in twenty-five; the other three numbers hide nothing. And a clock of ours that is wrong by more than the edge
 * makes alarms of its own.
 */
#ifndef SINKS_ARRIVAL_H
#define SINKS_ARRIVAL_H

#include "sinks/sentinel.h"

/* Minutes. Azure names no bound for when its metrics are whole: these are chosen, with room. */
#define ARRIVAL_SETTLED 10
#define ARRIVAL_EDGE 2

struct arrival;

/* The DCR's, made by the first who names it. */
struct arrival *arrival_open(uv_loop_t *loop, const char *dcr);
/* Begins to ask, until `who` closes it: so long the target's texts must live. Of several wishes the first holds. */
void arrival_watch(struct arrival *arrival, const void *who, struct http *http, const struct sentinel_target *target, uint32_t every_ms);
/* So many rows were accepted just now. Copes with NULL. */
void arrival_add(struct arrival *arrival, uint32_t rows);
/* What is known by now. Copes with NULL. */
struct pen_arrival arrival_see(const struct arrival *arrival);
/* Who watched ends the question under way, and leaves it to the next who does. The memory goes with the last one, on a later turn.
 * Copes with NULL. */
void arrival_close(struct arrival *arrival, const void *who);

#endif
