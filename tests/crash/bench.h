/* bench.h - folders for the disks of these tests, and the one line of results that the reliability page quotes. */
#ifndef CRASH_BENCH_H
#define CRASH_BENCH_H

#include <stdbool.h>
#include <stddef.h>

/* Sanitizers make these tests ten times as slow: their samples are as much smaller. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BENCH_SAMPLE 8u
#else
#define BENCH_SAMPLE 1u
#endif

/* A new empty folder below one of the test's own; lent until the next bench_drop(). With `state`, as a state folder is
 * before the first start. */
const char *bench_folder(bool state);
/* All of them, and what lies in them. */
void bench_drop(void);
/* Says the line; writes it to NAME.json in the folder $PENSTOCK_RELIABILITY, if that is set and this is no small sample. */
void bench_report(const char *name, const char *json);

#endif
