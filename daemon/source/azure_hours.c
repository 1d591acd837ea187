/* azure_hours.c - see azure_hours.h. */
#include "daemon/source/azure_hours.h"

#include <string.h>
#include <time.h>

int32_t hours_at(int64_t seconds)
{
    return (int32_t)(seconds / 3600);
}

/* "y=2026/": the key, so many digits, a slash or the end. */
static const char *part_take(const char *text, char key, unsigned digits, unsigned least, unsigned most, unsigned *value)
{
    unsigned number = 0;

    if (text == NULL || text[0] != key || text[1] != '=')
        return NULL;
    text += 2;
    for (unsigned i = 0; i < digits; i++, text++) {
        if (*text < '0' || *text > '9')
            return NULL;
        number = number * 10 + (unsigned)(*text - '0');
    }
    if (*text != '/' || number < least || number > most)
        return NULL;
    *value = number;
    return text + 1;
}

/* The first hour below this name, and how many of its four parts it tells. */
static unsigned parts_read(const char *text, int64_t *hour)
{
    unsigned year, month = 1, day = 1, of_day = 0, parts = 0;

    text = part_take(text, 'y', 4, 1970, 9999, &year);
    if (text == NULL)
        return 0;
    parts = 1;
    parts += (text = part_take(text, 'm', 2, 1, 12, &month)) != NULL;
    parts += (text = part_take(text, 'd', 2, 1, 31, &day)) != NULL;
    parts += part_take(text, 'h', 2, 0, 23, &of_day) != NULL;
    *hour = timegm(&(struct tm){ .tm_year = (int)year - 1900, .tm_mon = (int)month - 1, .tm_mday = (int)day }) / 3600 + of_day;
    return parts;
}

static const char *year_find(const char *name)
{
    int64_t hour;

    while (parts_read(name, &hour) == 0) {
        name = strchr(name, '/');
        if (name == NULL)
            return NULL;
        name++;
    }
    return name;
}

bool hours_place(const char *name, size_t *place_size)
{
    const char *year = year_find(name);

    if (year != NULL)
        *place_size = (size_t)(year - name);
    return year != NULL;
}

int32_t hours_of(const char *name, size_t *place_size)
{
    int64_t hour;

    if (!hours_place(name, place_size) || parts_read(name + *place_size, &hour) < 4)
        return HOURS_NONE;
    return (int32_t)hour;
}

void hours_prefix(struct buf *out, const char *place, size_t size, int32_t hour)
{
    time_t t = (time_t)hour * 3600;
    struct tm tm;

    gmtime_r(&t, &tm);
    buf_add(out, place, size);
    buf_text(out, "y=%04d/m=%02d/d=%02d/h=%02d/", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour);
}

/* Hours of a year, a month, a day, an hour: by how many parts of the four a name tells. */
static const int64_t longest[] = { 0, 366 * 24, 31 * 24, 24, 1 };

bool hours_span(const char *name, int64_t *begin_s, int64_t *end_s)
{
    size_t place_size;
    unsigned parts;
    int64_t hour;

    if (!hours_place(name, &place_size))
        return false;
    parts = parts_read(name + place_size, &hour);
    *begin_s = hour * 3600;
    *end_s = (hour + longest[parts]) * 3600;
    return true;
}

enum hours_part hours_part(const char *folder, size_t place_size, int32_t from)
{
    int64_t begin;
    unsigned parts = parts_read(folder + place_size, &begin);

    if (parts == 0)
        return HOURS_BEFORE;         /* no time at all: another place, perhaps, but not this one */
    if (begin >= from)
        return HOURS_WHOLE;
    return begin + longest[parts] <= from ? HOURS_BEFORE : HOURS_STRADDLES;
}

bool hours_miss(uint32_t *past, bool had)
{
    bool missed = !had && __builtin_popcount(*past & 0xffffff) >= HOURS_EXPECTED;

    *past = *past << 1 | had;
    return missed;
}
