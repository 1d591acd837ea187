/*
 * window.h - a stretch of event time, and what may hold something of it: for `penstock replay --from --to`.
 *
 * Events are judged one by one in their job (work.h). What lies in Azure's folders, …/y=2026/m=03/d=01/h=10/…, is judged by
 * its path before it is opened, or even listed. Such an hour is that of *arrival* (Azure Monitor's page on resource logs in a
 * storage account): an event may come up to 48 hours late, and at the turn of the hour the old blob goes on growing for a
 * while. So an hour is left out only if it ends more than WINDOW_EARLY_S before `from`, or begins `late_ticks` after `to`.
 */
#ifndef DAEMON_WINDOW_H
#define DAEMON_WINDOW_H

#include "parsers/parser.h"

#define WINDOW_EARLY_S 3600
#define WINDOW_LATE_S (48 * 3600)    /* the default: Application Insights is the latest that is documented */
#define WINDOW_TICKS_A_SECOND INT64_C(10000000)

struct window {
    int64_t from_ticks, to_ticks;    /* the first one in it, and the first one behind it; INT64_MIN, INT64_MAX: no bound */
    int64_t late_ticks;
};
#define WINDOW_ALL (struct window){ INT64_MIN, INT64_MAX, WINDOW_LATE_S * WINDOW_TICKS_A_SECOND }

/* Events without a readable time are in every window: whoever leaves a log line out must know that it lies outside. */
static inline bool window_has(const struct window *window, int64_t ticks)
{
    return ticks >= window->from_ticks && ticks < window->to_ticks;
}

/* Could something below this path lie in it? True where the path tells no hours. A folder ends with a slash. */
bool window_may_hold(const struct window *window, const char *path);

/* All of a folder's hours lie before the window's end: it may be listed as a whole. */
bool window_ends_after(const struct window *window, const char *folder);

/* "2026-03-01", "2026-03-01T10:00Z", "2026-03-01T10:00:30+01:00", "-36h" (before now; d, h, m), "now". UTC where no offset is
 * said. UV_EINVAL with a sentence that names the forms. */
int window_time_read(const char *text, int64_t now_ticks, int64_t *ticks, struct pen_error *err);
/* "48h", "2d", "90m". UV_EINVAL as above. */
int window_span_read(const char *text, int64_t *ticks, struct pen_error *err);

#endif
