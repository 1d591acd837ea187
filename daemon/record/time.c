/*
 * time.c - the dates people and machines write into Azure's logs, read into 100 ns ticks since 1970.
 *
 *   2026-11-22T09:00:01.2345670Z      the ordinary form; any number of digits, cut behind the seventh; offsets
 *   2026-11-22 09:00:01.234           rewritten by stores; "/" instead of "-" occurs
 *   2026-11-22T9:00:01Z               one-digit hour (Entra)
 *   11/22/2026 9:00:01 AM             US order (Entra), with or without zeros, AM/PM and an offset
 *   Sun, 22 Nov 2026 09:00:01 GMT     RFC 1123, inside properties
 *
 * Without a zone it is UTC. Everything else is no time, days that no calendar has included: a guess would be worse than
 * the arrival time. Numbers are no times here: only a parser knows whether one counts seconds or milliseconds.
 */
#include "parsers/parser.h"

#include <string.h>
#include <strings.h>

#define TICKS_A_SECOND INT64_C(10000000)

/* What is left to read. */
struct cursor_text {
    const char *at, *end;
};

struct clock {
    int64_t year, month, day, hour, minute, second, fraction /* ticks */, offset /* minutes east */;
};

static bool take_char(struct cursor_text *text, char c)
{
    if (text->at == text->end || *text->at != c)
        return false;
    text->at++;
    return true;
}

static void take_blanks(struct cursor_text *text)
{
    while (take_char(text, ' '))
        ;
}

static bool take_word(struct cursor_text *text, const char *word)
{
    size_t size = strlen(word);

    if ((size_t)(text->end - text->at) < size || strncasecmp(text->at, word, size) != 0)
        return false;
    text->at += size;
    return true;
}

static bool take_digits(struct cursor_text *text, int least, int most, int64_t *value)
{
    int64_t number = 0;
    int count = 0;

    while (count < most && text->at < text->end && *text->at >= '0' && *text->at <= '9') {
        number = number * 10 + (*text->at++ - '0');
        count++;
    }
    *value = number;
    return count >= least;
}

/* ".1234567", maybe longer; also the comma that ISO 8601 allows. None is fine. */
static bool take_fraction(struct cursor_text *text, struct clock *clock)
{
    int64_t unit = TICKS_A_SECOND / 10;
    const char *first;

    if (!take_char(text, '.') && !take_char(text, ','))
        return true;
    for (first = text->at; text->at < text->end && *text->at >= '0' && *text->at <= '9'; text->at++) {
        clock->fraction += unit * (*text->at - '0');
        unit /= 10;
    }
    return text->at > first;
}

static bool take_clock(struct cursor_text *text, struct clock *clock)
{
    return take_digits(text, 1, 2, &clock->hour) && take_char(text, ':') &&
           take_digits(text, 2, 2, &clock->minute) && take_char(text, ':') &&
           take_digits(text, 2, 2, &clock->second) && take_fraction(text, clock);
}

/* Twelve-hour clocks: 12 AM is midnight. None is fine. */
static bool take_half_day(struct cursor_text *text, struct clock *clock)
{
    bool morning;

    take_blanks(text);
    morning = take_word(text, "AM");
    if (!morning && !take_word(text, "PM"))
        return true;
    if (clock->hour < 1 || clock->hour > 12)
        return false;
    clock->hour = clock->hour % 12 + (morning ? 0 : 12);
    return true;
}

/* "Z", "GMT", "UTC", "+01:00", "+0100", "+01", or nothing. */
static bool take_zone(struct cursor_text *text, struct clock *clock)
{
    int64_t hours, minutes = 0;
    bool east;

    take_blanks(text);
    if (text->at == text->end || take_word(text, "Z") || take_word(text, "GMT") || take_word(text, "UTC"))
        return true;
    east = take_char(text, '+');
    if ((!east && !take_char(text, '-')) || !take_digits(text, 2, 2, &hours))
        return false;
    if (text->at < text->end && *text->at != ' ') {
        take_char(text, ':');
        if (!take_digits(text, 2, 2, &minutes))
            return false;
    }
    if (hours > 14 || minutes > 59)  /* zones end at +14:00 */
        return false;
    clock->offset = (east ? 1 : -1) * (hours * 60 + minutes);
    return true;
}

static bool take_iso(struct cursor_text *text, struct clock *clock)
{
    char separator;

    if (!take_digits(text, 4, 4, &clock->year) || text->at == text->end)
        return false;
    separator = *text->at;
    if ((separator != '-' && separator != '/') || !take_char(text, separator) ||
        !take_digits(text, 1, 2, &clock->month) || !take_char(text, separator) ||
        !take_digits(text, 1, 2, &clock->day))
        return false;
    if (!take_char(text, 'T') && !take_char(text, 't') && !take_char(text, ' '))
        return false;
    return take_clock(text, clock) && take_zone(text, clock);
}

static bool take_us(struct cursor_text *text, struct clock *clock)
{
    return take_digits(text, 1, 2, &clock->month) && take_char(text, '/') &&
           take_digits(text, 1, 2, &clock->day) && take_char(text, '/') &&
           take_digits(text, 4, 4, &clock->year) && take_char(text, ' ') &&
           take_clock(text, clock) && take_half_day(text, clock) && take_zone(text, clock);
}

static bool take_month_name(struct cursor_text *text, int64_t *month)
{
    static const char *const names[] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov",
                                         "Dec" };

    for (*month = 1; *month <= 12; ++*month)
        if (take_word(text, names[*month - 1]))
            return true;
    return false;
}

static bool take_rfc1123(struct cursor_text *text, struct clock *clock)
{
    const char *comma = memchr(text->at, ',', (size_t)(text->end - text->at));

    if (comma == NULL)
        return false;
    text->at = comma + 1;            /* the name of the day says nothing new */
    take_blanks(text);
    return take_digits(text, 1, 2, &clock->day) && take_char(text, ' ') && take_month_name(text, &clock->month) &&
           take_char(text, ' ') && take_digits(text, 4, 4, &clock->year) && take_char(text, ' ') &&
           take_clock(text, clock) && take_zone(text, clock);
}

static bool clock_valid(const struct clock *clock)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = clock->year % 4 == 0 && (clock->year % 100 != 0 || clock->year % 400 == 0);

    return clock->year >= 1 && clock->month >= 1 && clock->month <= 12 && clock->day >= 1 &&
           clock->day <= days[clock->month - 1] + (leap && clock->month == 2) &&
           clock->hour <= 23 && clock->minute <= 59 && clock->second <= 59;
}

/* Days from 1970-01-01 in the Gregorian calendar: years counted from March, so that leap days come last. */
static int64_t clock_day(const struct clock *clock)
{
    int64_t year = clock->month <= 2 ? clock->year - 1 : clock->year;
    int64_t month = (clock->month + 9) % 12;

    return 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + clock->day - 1 - 719468;
}

bool pen_time_read(struct pen_span span, int64_t *ticks)
{
    struct cursor_text text;
    struct clock clock = { 0 };
    bool read;

    span = pen_span_trim(span);
    if (span.size < 16 || span.size > 64)
        return false;
    text = (struct cursor_text){ span.data, span.data + span.size };
    if (span.data[1] == '/' || span.data[2] == '/')   /* asked first: 10/3/2026 has a slash in the fifth place, too */
        read = take_us(&text, &clock);
    else if (span.data[4] == '-' || span.data[4] == '/')
        read = take_iso(&text, &clock);
    else
        read = take_rfc1123(&text, &clock);
    if (!read || text.at != text.end || !clock_valid(&clock))
        return false;
    *ticks = (((clock_day(&clock) * 24 + clock.hour) * 60 + clock.minute - clock.offset) * 60 + clock.second) *
             TICKS_A_SECOND + clock.fraction;
    return true;
}
