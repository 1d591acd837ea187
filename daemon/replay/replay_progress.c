/* replay_progress.c - see replay_progress.h. */
#include "daemon/replay/replay_progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#define PROGRESS_LEAST 5             /* samples, before a guess is made of what is to come … */
#define PROGRESS_START 2             /* … which leaves out those in which all workers took their first chunk at once */

/* ---- How fast ---- */

void progress_take(struct progress *progress, uint64_t now_ms, const struct replay_figures *figures)
{
    unsigned at = progress->count++ % PROGRESS_SAMPLES;

    progress->samples[at].ms = now_ms;
    progress->samples[at].done = figures->done;
    progress->samples[at].bytes = figures->bytes;
}

static double per_second(const struct progress *progress, bool unpacked)
{
    unsigned count = progress->count, last, first = 0;
    uint64_t ms, before, after;

    if (count < 2)
        return 0;
    last = (count - 1) % PROGRESS_SAMPLES;
    if (count > PROGRESS_SAMPLES)
        first = count % PROGRESS_SAMPLES;
    else if (count >= PROGRESS_LEAST)
        first = PROGRESS_START;
    ms = progress->samples[last].ms - progress->samples[first].ms;
    before = unpacked ? progress->samples[first].bytes : progress->samples[first].done;
    after = unpacked ? progress->samples[last].bytes : progress->samples[last].done;
    return ms == 0 || after < before ? 0 : (double)(after - before) * 1000 / (double)ms;
}

double progress_rate(const struct progress *progress)
{
    return per_second(progress, true);
}

double progress_pace(const struct progress *progress)
{
    return per_second(progress, false);
}

/* The bytes a second that the rate allows; 0: it allows any. */
static double pace_most(const struct progress *progress, const struct replay_figures *figures)
{
    double most = (double)progress->rate.a_second;

    if (progress->rate.unit == PACE_RECORDS)
        most = figures->records > 0 ? most * (double)figures->bytes / (double)figures->records : 0;
    return most;
}

/* Every worker's first chunk goes before it is paid for: over the first seconds a replay is faster than its rate. */
int64_t progress_left_s(const struct progress *progress, const struct replay_figures *figures)
{
    double pace = progress_pace(progress), most = pace_most(progress, figures);

    if (most > 0 && pace > most)
        pace = most;
    if (!figures->whole || progress->count < PROGRESS_LEAST || pace <= 0 || figures->total < figures->done)
        return -1;
    return (int64_t)((double)(figures->total - figures->done) / pace + 0.5);
}

/* ---- In words ---- */

static void scaled(char *text, size_t size, double value, const char *units[static 5])
{
    unsigned unit = 0;

    for (; value >= 999.5 && unit < 4; unit++)
        value /= 1000;
    (void)snprintf(text, size, unit == 0 ? "%.0f%s" : value < 10 ? "%.2f%s" : value < 100 ? "%.1f%s" : "%.0f%s", value, units[unit]);
}

void progress_bytes(char *text, size_t size, double bytes)
{
    scaled(text, size, bytes, (const char *[]){ " B", " kB", " MB", " GB", " TB" });
}

static void span_write(char *text, size_t size, int64_t seconds)
{
    if (seconds < 90)
        (void)snprintf(text, size, "%d s", (int)seconds);
    else if (seconds < 5400)
        (void)snprintf(text, size, "%d min", (int)((seconds + 30) / 60));
    else if (seconds < 172800)
        (void)snprintf(text, size, "%.1f h", (double)seconds / 3600);
    else
        (void)snprintf(text, size, "%.1f days", (double)seconds / 86400);
}

/* Whole parts only: half a number is a wrong one. */
__attribute__((format(printf, 3, 4)))
static void part_add(char *line, size_t size, const char *format, ...)
{
    size_t at = strlen(line), room = at < size ? size - at : 0;
    const char *gap = at > 0 ? "  " : "";
    char part[160];
    va_list args;
    int length;

    va_start(args, format);
    length = vsnprintf(part, sizeof(part), format, args);
    va_end(args);
    if (length > 0 && strlen(gap) + (size_t)length < room)
        (void)snprintf(line + at, room, "%s%s", gap, part);
}

void progress_line(char *line, size_t size, const struct replay_figures *figures, double rate, int64_t left_s, const char *waits)
{
    char word[40], newest[40];
    time_t seconds = (time_t)(figures->newest_ms / 1000);
    struct tm tm;

    line[0] = '\0';
    if (figures->whole)
        part_add(line, size, "%3.0f %%", figures->total > 0 ? (double)figures->done * 100 / (double)figures->total : 100.0);
    scaled(word, sizeof(word), (double)figures->records, (const char *[]){ "", "k", "M", "G", "T" });
    part_add(line, size, "%s records", word);
    progress_bytes(word, sizeof(word), (double)figures->bytes);
    part_add(line, size, "%s", word);
    if (waits != NULL)
        part_add(line, size, "gives way to %.40s", waits);
    if (rate >= 0) {
        progress_bytes(word, sizeof(word), rate);
        part_add(line, size, "%s/s", word);
    }
    if (left_s >= 0) {
        span_write(word, sizeof(word), left_s);
        part_add(line, size, "%s left", word);
    }
    if (figures->newest_ms >= 0 && gmtime_r(&seconds, &tm) != NULL && strftime(newest, sizeof(newest), "%Y-%m-%d %H:%MZ", &tm) > 0)
        part_add(line, size, "newest %s", newest);
}
