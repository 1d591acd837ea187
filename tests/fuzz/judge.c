/*
 * judge.c - JSON read by the letter of RFC 8259, byte by byte: slow, short, and nobody's relative.
 */
#include "tests/fuzz/fuzz.h"

#include <string.h>

/* Names beyond these many are not compared: see judge_names_differ(). */
#define NAMES_MAX 512

struct judge {
    const unsigned char *at, *end;
};

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static int peek(const struct judge *judge)
{
    return judge->at < judge->end ? *judge->at : -1;
}

static bool take(struct judge *judge, int c)
{
    if (peek(judge) != c)
        return false;
    judge->at++;
    return true;
}

static void blanks(struct judge *judge)
{
    while (peek(judge) == ' ' || peek(judge) == '\t' || peek(judge) == '\n' || peek(judge) == '\r')
        judge->at++;
}

static bool digits(struct judge *judge)
{
    const unsigned char *first = judge->at;

    while (is_digit(peek(judge)))
        judge->at++;
    return judge->at > first;
}

static bool number(struct judge *judge)
{
    (void)take(judge, '-');
    if (!take(judge, '0') && !digits(judge))
        return false;
    if (take(judge, '.') && !digits(judge))
        return false;
    if (take(judge, 'e') || take(judge, 'E')) {
        if (!take(judge, '+'))
            (void)take(judge, '-');
        return digits(judge);
    }
    return true;
}

/* Four hex digits, or -1. */
static int hex4(struct judge *judge)
{
    int value = 0;

    for (int i = 0; i < 4; i++) {
        int c = peek(judge), lower = c | 32;

        if (is_digit(c))
            value = value * 16 + c - '0';
        else if (lower >= 'a' && lower <= 'f')
            value = value * 16 + lower - 'a' + 10;
        else
            return -1;
        judge->at++;
    }
    return value;
}

static bool escape(struct judge *judge)
{
    int c = peek(judge), low;

    if (c < 0 || strchr("\"\\/bfnrtu", c) == NULL || c == '\0')
        return false;
    judge->at++;
    if (c != 'u')
        return true;
    c = hex4(judge);
    if (c < 0xd800 || c > 0xdfff)
        return c >= 0;
    if (c > 0xdbff || !take(judge, '\\') || !take(judge, 'u'))
        return false;
    low = hex4(judge);
    return low >= 0xdc00 && low <= 0xdfff;
}

/* One character of UTF-8 beyond ASCII: no overlong form, no surrogate, nothing past U+10FFFF. */
static bool character(struct judge *judge)
{
    unsigned char first = *judge->at++;
    unsigned more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    unsigned long code = first & (0x3f >> more);

    if (first < 0xc2 || first > 0xf4)
        return false;
    for (unsigned i = 0; i < more; i++) {
        int c = peek(judge);

        if (c < 0x80 || c > 0xbf)
            return false;
        code = code << 6 | (unsigned long)(c & 0x3f);
        judge->at++;
    }
    return code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) && (more != 2 || code > 0x7ff) && (more != 3 || code > 0xffff);
}

static bool string(struct judge *judge)
{
    if (!take(judge, '"'))
        return false;
    for (;;) {
        int c = peek(judge);

        if (c < ' ')
            return false;
        if (c >= 0x80) {
            if (!character(judge))
                return false;
            continue;
        }
        judge->at++;
        if (c == '"')
            return true;
        if (c == '\\' && !escape(judge))
            return false;
    }
}

static bool word(struct judge *judge, const char *text)
{
    for (; *text != '\0'; text++)
        if (!take(judge, *text))
            return false;
    return true;
}

static bool value(struct judge *judge, unsigned depth);

static bool members(struct judge *judge, unsigned depth, bool object)
{
    int close = object ? '}' : ']';

    judge->at++;
    blanks(judge);
    if (take(judge, close))
        return true;
    do {
        blanks(judge);
        if (object) {
            if (!string(judge))
                return false;
            blanks(judge);
            if (!take(judge, ':'))
                return false;
        }
        if (!value(judge, depth + 1))
            return false;
        blanks(judge);
    } while (take(judge, ','));
    return take(judge, close);
}

static bool value(struct judge *judge, unsigned depth)
{
    if (depth == JUDGE_DEPTH)
        return false;
    blanks(judge);
    switch (peek(judge)) {
    case '{':
    case '[':
        return members(judge, depth, peek(judge) == '{');
    case '"':
        return string(judge);
    case 't':
        return word(judge, "true");
    case 'f':
        return word(judge, "false");
    case 'n':
        return word(judge, "null");
    default:
        return number(judge);
    }
}

static struct judge judge_of(struct pen_span text)
{
    const unsigned char *data = (const unsigned char *)text.data;

    return (struct judge){ data, data + text.size };
}

bool judge_json(struct pen_span text)
{
    struct judge judge = judge_of(text);

    if (text.data == NULL || !value(&judge, 0))
        return false;
    blanks(&judge);
    return judge.at == judge.end;
}

/* ---- Members of an object that is known to be JSON ---- */

static bool member_next(struct judge *judge, struct pen_span *name, struct pen_span *member)
{
    const unsigned char *first;

    blanks(judge);
    if (!take(judge, '{'))
        (void)take(judge, ',');
    blanks(judge);
    first = judge->at;
    if (!string(judge))
        return false;
    *name = (struct pen_span){ (const char *)first, (size_t)(judge->at - first) };
    blanks(judge);
    (void)take(judge, ':');
    blanks(judge);
    first = judge->at;
    (void)value(judge, 1);
    *member = (struct pen_span){ (const char *)first, (size_t)(judge->at - first) };
    return true;
}

bool judge_names_differ(struct pen_span object)
{
    struct judge judge = judge_of(object);
    struct pen_span names[NAMES_MAX], member;
    size_t count = 0;

    for (; count < NAMES_MAX && member_next(&judge, &names[count], &member); count++)
        for (size_t i = 0; i < count; i++)
            if (names[i].size == names[count].size && memcmp(names[i].data, names[count].data, names[i].size) == 0)
                return false;
    return true;
}

struct pen_span judge_member(struct pen_span object, const char *wanted)
{
    struct judge judge = judge_of(object);
    struct pen_span name, member;

    while (member_next(&judge, &name, &member))
        if (name.size == strlen(wanted) + 2 && memcmp(name.data + 1, wanted, strlen(wanted)) == 0)
            return member;
    return (struct pen_span){ 0 };
}

bool judge_line(struct pen_span text, bool blanks)
{
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.data[i];

        if ((c < ' ' && !(blanks && c == '\t')) || c == 0x7f)
            return false;
    }
    return true;
}
