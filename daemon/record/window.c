/* window.c - see window.h. */
#include "daemon/record/window.h"

#include "daemon/source/azure_hours.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

#define SPAN_DAYS_MAX 36500

bool window_may_hold(const struct window *window, const char *path)
{
    int64_t begin_s, end_s;
    const int64_t second = WINDOW_TICKS_A_SECOND;

    if (!hours_span(path, &begin_s, &end_s))
        return true;
    return (end_s + WINDOW_EARLY_S) * second > window->from_ticks &&
        (window->to_ticks == INT64_MAX || begin_s * second - window->late_ticks < window->to_ticks);
}

bool window_ends_after(const struct window *window, const char *folder)
{
    int64_t begin_s, end_s;

    if (window->to_ticks == INT64_MAX || !hours_span(folder, &begin_s, &end_s) || end_s - begin_s <= 3600)
        return true;
    return (end_s - 3600) * WINDOW_TICKS_A_SECOND - window->late_ticks < window->to_ticks;
}

static bool span_read(const char *text, int64_t *ticks)
{
    static const struct { char unit; int64_t seconds; } units[] = { { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 } };
    char *end;
    long number = strtol(text, &end, 10);

    if (*text < '0' || *text > '9' || number < 0 || *end == '\0' || end[1] != '\0')
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
        if (*end == units[i].unit && number <= SPAN_DAYS_MAX * 86400L / units[i].seconds) {
            *ticks = number * units[i].seconds * WINDOW_TICKS_A_SECOND;
            return true;
        }
    return false;
}

int window_span_read(const char *text, int64_t *ticks, struct pen_error *err)
{
    if (span_read(text, ticks))
        return 0;
    return pen_error_set(err, UV_EINVAL, "expected a number with m, h or d behind it, such as 48h, found \"%.64s\"", text);
}

/* strptime() takes a 30th of February for a day in March: whoever wrote it meant something else. */
static bool date_read(const char *text, int64_t *ticks)
{
    static const char *const forms[] = { "%Y-%m-%d", "%Y-%m-%dT%H:%M%z", "%Y-%m-%dT%H:%M:%S%z" };

    for (size_t i = 0; i < sizeof(forms) / sizeof(*forms); i++) {
        struct tm read = { 0 }, whole;
        const char *end = strptime(text, forms[i], &read);
        long offset = read.tm_gmtoff;
        time_t seconds;

        if (end == NULL || *end != '\0' || strspn(text, "0123456789") != 4)
            continue;
        whole = read;
        seconds = timegm(&whole);
        if (whole.tm_mday != read.tm_mday || seconds < 0)
            return false;
        *ticks = ((int64_t)seconds - offset) * WINDOW_TICKS_A_SECOND;
        return true;
    }
    return false;
}

int window_time_read(const char *text, int64_t now_ticks, int64_t *ticks, struct pen_error *err)
{
    int64_t span;

    if (strcmp(text, "now") == 0) {
        *ticks = now_ticks;
        return 0;
    }
    if (*text == '-' && span_read(text + 1, &span)) {
        *ticks = now_ticks - span;
        return 0;
    }
    if (date_read(text, ticks))
        return 0;
    return pen_error_set(err, UV_EINVAL, "expected a day (2026-03-01), a time (2026-03-01T10:00Z, or with +01:00), -36h (before now; "
                         "d, h or m) or now, found \"%.64s\"", text);
}
