/*
 * option.c - values: what a user may write for each type of row.
 *
 * One table says per type how its text is read and what to call it. Nothing here quotes the text it was given: it may be a
 * secret that was put into the wrong line, and the sentences reach logs.
 */
#include "daemon/config/option.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <strings.h>
#include <uv.h>

struct unit {
    const char *name;
    uint64_t factor;
};

/* The largest first, for writing; the empty name is a number without a unit. */
static const struct unit byte_units[] = {
    { "T", UINT64_C(1) << 40 }, { "G", UINT64_C(1) << 30 }, { "M", UINT64_C(1) << 20 }, { "K", UINT64_C(1) << 10 },
    { "", 1 }, { NULL, 0 },
};
static const struct unit time_units[] = {
    { "d", 86400000 }, { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 }, { "", 1 }, { NULL, 0 },
};

static const char *const yes_words[] = { "yes", "true", "on", "1", NULL };
static const char *const no_words[] = { "no", "false", "off", "0", NULL };

static bool word_in(const char *word, const char *const *words)
{
    for (; *words != NULL; words++) {
        if (strcasecmp(word, *words) == 0)
            return true;
    }
    return false;
}

/* Digits and one of the units; false where it is neither, or more than INT64_MAX. */
static bool amount_read(const char *text, const struct unit *units, uint64_t *ret)
{
    uint64_t number = 0;
    const char *at = text;

    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(number, 10, &number) || __builtin_add_overflow(number, *at - '0', &number))
            return false;
    }
    if (at == text)
        return false;
    while (*at == ' ')
        at++;
    for (; units->name != NULL && strcasecmp(at, units->name) != 0; units++)
        ;
    if (units->name == NULL || __builtin_mul_overflow(number, units->factor, &number) || number > INT64_MAX)
        return false;
    *ret = number;
    return true;
}

/* In the largest unit that writes it exactly. */
static void amount_write(uint64_t amount, const struct unit *units, struct buf *out)
{
    while (units->factor > 1 && (amount == 0 || amount % units->factor != 0))
        units++;
    buf_text(out, "%llu%s", (unsigned long long)(amount / units->factor), amount == 0 ? "" : units->name);
}

static void number_write(const struct pen_option *row, int64_t number, struct buf *out)
{
    if (row->type == PEN_BYTES)
        amount_write((uint64_t)number, byte_units, out);
    else if (row->type == PEN_MS)
        amount_write((uint64_t)number, time_units, out);
    else
        buf_int(out, number);
}

static void range_write(const struct pen_option *row, const char *before, struct buf *out)
{
    if (row->min == 0 && row->max == 0)
        return;
    buf_text(out, "%s", before);
    number_write(row, row->min, out);
    BUF_LITERAL(out, " to ");
    number_write(row, row->max, out);
}

static bool range_holds(const struct pen_option *row, int64_t value)
{
    return (row->min == 0 && row->max == 0) || (value >= row->min && value <= row->max);
}

/* ---- One function per type: true and the value set, or false and nothing touched ---- */

static bool text_set(const struct pen_option *row, const char *text, void *field, struct arena *arena)
{
    (void)arena;
    if (row->required && *text == '\0')
        return false;
    *(const char **)field = text;
    return true;
}

/* http or https, a host, no name and password in front of it, and no blank anywhere. */
static bool url_set(const struct pen_option *row, const char *text, void *field, struct arena *arena)
{
    const char *host, *end, *at;

    (void)row;
    (void)arena;
    if (strncasecmp(text, "https://", 8) == 0)
        host = text + 8;
    else if (strncasecmp(text, "http://", 7) == 0)
        host = text + 7;
    else
        return false;
    end = host + strcspn(host, "/?#");
    if (end == host || *host == ':' || memchr(host, '@', (size_t)(end - host)) != NULL)
        return false;
    for (at = text; *at != '\0'; at++) {
        if ((unsigned char)*at <= ' ' || *at == '\\' || *at == '"' || *at == '<' || *at == '>')
            return false;
    }
    *(const char **)field = text;
    return true;
}

static bool path_set(const struct pen_option *row, const char *text, void *field, struct arena *arena)
{
    (void)row;
    (void)arena;
    if (*text != '/')
        return false;
    *(const char **)field = text;
    return true;
}

static bool bool_set(const struct pen_option *row, const char *text, void *field, struct arena *arena)
{
    bool yes = word_in(text, yes_words);

    (void)row;
    (void)arena;
    if (!yes && !word_in(text, no_words))
        return false;
    *(bool *)field = yes;
    return true;
}

static bool int_set(const struct pen_option *row, const char *text, void *field, struct arena *arena)
{
    bool negative = *text == '-';
    static const struct unit none[] = { { "", 1 }, { NULL, 0 } };
    uint64_t amount;
    int64_t value;

    (void)arena;
    if (!amount_read(text + negative, none, &amount))
        return false;
    value = negative ? -(int64_t)amount : (int64_t)amount;
    if (!range_holds(row, value))
        return false;
    *(int64_t *)field = value;
    return true;
}

static bool bytes_set(const struct pen_option *row, const char *text, void *field, struct arena *arena)
{
    uint64_t amount;

    (void)arena;
    if (!amount_read(text, byte_units, &amount) || !range_holds(row, (int64_t)amount))
        return false;
    *(uint64_t *)field = amount;
    return true;
}

static bool ms_set(const struct pen_option *row, const char *text, void *field, struct arena *arena)
{
    uint64_t amount;

    (void)arena;
    if (!amount_read(text, time_units, &amount) || amount > UINT32_MAX || !range_holds(row, (int64_t)amount))
        return false;
    *(uint32_t *)field = (uint32_t)amount;
    return true;
}

static bool choice_set(const struct pen_option *row, const char *text, void *field, struct arena *arena)
{
    int i;

    (void)arena;
    for (i = 0; row->choices[i] != NULL; i++) {
        if (strcmp(row->choices[i], text) == 0) {
            *(int *)field = i;
            return true;
        }
    }
    return false;
}

/* Texts parted by commas, blanks around them taken off. "a,,b" is a slip, not an empty text. */
static bool list_set(const struct pen_option *row, const char *text, void *field, struct arena *arena)
{
    size_t count = 1, size = strlen(text) + 1, i = 0;
    const char **items;
    char *copy, *item, *end;

    if (*text == '\0' && row->required)
        return false;
    for (const char *at = text; *at != '\0'; at++)
        count += *at == ',';
    items = arena_alloc(arena, count * sizeof(*items));
    copy = arena_alloc(arena, size);
    memcpy(copy, text, size);
    for (item = copy; item != NULL && *text != '\0'; item = end) {
        end = strchr(item, ',');
        if (end != NULL)
            *end++ = '\0';
        item += strspn(item, " \t");
        for (size = strlen(item); size > 0 && (item[size - 1] == ' ' || item[size - 1] == '\t'); size--)
            item[size - 1] = '\0';
        if (size == 0)
            return false;
        items[i++] = item;
    }
    *(struct pen_list *)field = (struct pen_list){ items, i };
    return true;
}

static const struct {
    const char *what;                /* "expected …" */
    const char *example;             /* ", such as …" */
    bool (*set)(const struct pen_option *row, const char *text, void *field, struct arena *arena);
    size_t size;
} types[] = {
    [PEN_TEXT] = { "a text", NULL, text_set, sizeof(char *) },
    [PEN_URL] = { "an http or https address", "https://host.example", url_set, sizeof(char *) },
    [PEN_PATH] = { "an absolute path", "/var/lib/penstock", path_set, sizeof(char *) },
    [PEN_BOOL] = { "yes or no", NULL, bool_set, sizeof(bool) },
    [PEN_INT] = { "a whole number", NULL, int_set, sizeof(int64_t) },
    [PEN_BYTES] = { "a size", "64M", bytes_set, sizeof(uint64_t) },
    [PEN_MS] = { "a time", "30s", ms_set, sizeof(uint32_t) },
    [PEN_CHOICE] = { "one of", NULL, choice_set, sizeof(int) },
    [PEN_LIST] = { "texts parted by commas", NULL, list_set, sizeof(struct pen_list) },
    [PEN_PAIRS] = { "any text", NULL, NULL, sizeof(struct pen_pairs) },
    [PEN_SECRET_FILE] = { "the absolute path of a file that holds the secret", NULL, path_set, sizeof(char *) },
};

static void choices_write(const struct pen_option *row, struct buf *out)
{
    for (size_t i = 0; row->choices[i] != NULL; i++)
        buf_text(out, "%s%s", i == 0 ? " " : ", ", row->choices[i]);
}

static int option_expected(const struct pen_option *row, struct pen_error *err)
{
    struct buf said = { 0 };

    buf_text(&said, "expected %s", types[row->type].what);
    range_write(row, " from ", &said);
    if (types[row->type].example != NULL)
        buf_text(&said, ", such as %s", types[row->type].example);
    if (row->type == PEN_CHOICE)
        choices_write(row, &said);
    (void)pen_error_set(err, UV_EINVAL, "%.*s", (int)said.size, said.data);
    buf_free(&said);
    return UV_EINVAL;
}

int option_set(const struct pen_option *row, const char *text, void *into, struct arena *arena, struct pen_error *err)
{
    assert(row->type >= PEN_TEXT && row->type <= PEN_SECRET_FILE && row->type != PEN_PAIRS);
    if (!types[row->type].set(row, text, (char *)into + row->offset, arena))
        return option_expected(row, err);
    return 0;
}

void option_clear(const struct pen_option *row, void *into)
{
    memset((char *)into + row->offset, 0, types[row->type].size);
}

size_t option_extent(const struct pen_option *rows)
{
    size_t extent = 0;

    for (; rows != NULL && rows->name != NULL; rows++) {
        if (rows->offset + types[rows->type].size > extent)
            extent = rows->offset + types[rows->type].size;
    }
    return extent;
}

void option_describe(const struct pen_option *row, struct buf *out)
{
    static const char *const names[] = {
        [PEN_TEXT] = "text", [PEN_URL] = "URL", [PEN_PATH] = "path", [PEN_BOOL] = "yes or no", [PEN_INT] = "number",
        [PEN_BYTES] = "size", [PEN_MS] = "time", [PEN_CHOICE] = "one of", [PEN_LIST] = "list", [PEN_PAIRS] = "texts",
        [PEN_SECRET_FILE] = "path of a secret",
    };

    buf_text(out, "%s", names[row->type]);
    if (row->type == PEN_CHOICE)
        choices_write(row, out);
    range_write(row, ", ", out);
}

/* ---- The nearest word ---- */

#define WORD_MAX 64

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Edits that make one word of the other: a letter more, less, changed, or two neighbours swapped. Case is no edit. */
static unsigned word_distance(const char *a, const char *b)
{
    unsigned rows[3][WORD_MAX + 1];                /* before the last, last, current */
    unsigned *oldest = rows[0], *last = rows[1], *now = rows[2], *turn;
    size_t a_size = strlen(a), b_size = strlen(b), i, j;
    bool same;

    if (a_size > WORD_MAX || b_size > WORD_MAX)
        return UINT32_MAX;
    for (j = 0; j <= b_size; j++)
        last[j] = (unsigned)j;
    for (i = 1; i <= a_size; i++) {
        now[0] = (unsigned)i;
        for (j = 1; j <= b_size; j++) {
            same = tolower((unsigned char)a[i - 1]) == tolower((unsigned char)b[j - 1]);
            now[j] = least(least(last[j], now[j - 1]) + 1, last[j - 1] + !same);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], oldest[j - 2] + 1);
        }
        turn = oldest;
        oldest = last;
        last = now;
        now = turn;
    }
    return last[b_size];
}

/* A third of the word may be wrong; a word that only lacks its end, or has one too many ("flush_ms"), is near too. */
static unsigned word_far(const char *word, const char *other)
{
    size_t size = strlen(word), shared = least((unsigned)size, (unsigned)strlen(other));
    unsigned distance = word_distance(word, other), allowed = least((unsigned)(size < 4 ? size / 2 : size / 3), 3);

    if (distance <= allowed)
        return distance;
    return shared >= 4 && strncasecmp(word, other, shared) == 0 ? allowed + 1 : UINT32_MAX;
}

const char *option_nearest(const char *word, const char *const *words, size_t count)
{
    const char *best = NULL;
    unsigned best_far = UINT32_MAX, far;

    for (size_t i = 0; i < count; i++) {
        far = word_far(word, words[i]);
        if (far < best_far) {
            best_far = far;
            best = words[i];
        }
    }
    return best;
}
