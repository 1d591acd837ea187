/*
 * log.c - one line, one write.
 *
 * A line is built in a buffer of fixed size and leaves in a single write(2), so that lines of several threads never mix
 * and logging takes no memory. Where it does not fit it is cut, and shows where; the message always finds room. Values
 * come from outside (paths, names of streams, words of the far end): what could steer a terminal or fake a second line is
 * escaped.
 *
 * The journal gets that line as its MESSAGE, and beside it each key as a field of its own. Values are not escaped there: the
 * protocol counts bytes, so that nothing inside a value can end it.
 */
#define SD_JOURNAL_SUPPRESS_LOCATION /* every line would be from here */
#include "daemon/base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048
#define LINE_MESSAGE_BYTES 768       /* kept for the message, whatever the values take */
#define LINE_CUT "…"
#define MESSAGE "MESSAGE="            /* what a line for the journal begins with */
#define FIELDS_MAX 40

struct line {
    char text[LINE_MAX_BYTES];
    size_t size, limit;
    bool quoted;                     /* a quote is open */
    bool cut;                        /* something did not fit: nothing more until line_mend() */
};

struct fields {
    char bytes[LINE_MAX_BYTES];
    size_t size;
    struct iovec list[FIELDS_MAX];
    int count;
};

static atomic_int level_max = LOG_NOTE;
static atomic_bool with_fields, over_progress;

/* All of it or nothing: an escape or a character is never split. */
static void line_add(struct line *line, const char *data, size_t size)
{
    if (line->cut || size > line->limit - line->size) {
        line->cut = true;
        return;
    }
    memcpy(line->text + line->size, data, size);
    line->size += size;
}

/* Shows where the line was cut, closes the quote, and goes on with a new limit, which leaves room for just this. */
static void line_mend(struct line *line, size_t limit)
{
    line->limit = limit + sizeof(LINE_CUT) + 1;
    if (line->cut) {
        line->cut = false;
        line_add(line, LINE_CUT, sizeof(LINE_CUT) - 1);
        if (line->quoted)
            line_add(line, "\"", 1);
    }
    line->quoted = false;
    line->limit = limit;
}

static void line_text(struct line *line, const char *text)
{
    line_add(line, text, strlen(text));
}

size_t log_character(const char *text, size_t size)
{
    const unsigned char *at = (const unsigned char *)text;
    static const unsigned char least[] = { 0, 0, 0, 0xa0, 0x90 };   /* of the byte behind E0 and F0, by size */
    size_t want = at[0] < 0x20 || at[0] == 0x7f ? 0 : at[0] < 0x80 ? 1 : at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : at[0] < 0xf5 ? 4 : 0;

    if (want == 0 || want > size)
        return 0;
    for (size_t i = 1; i < want; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((at[0] == 0xe0 || at[0] == 0xf0) && at[1] < least[want])
        return 0;
    if ((at[0] == 0xed && at[1] >= 0xa0) || (at[0] == 0xf4 && at[1] >= 0x90))
        return 0;                    /* surrogates, past U+10FFFF */
    if (at[0] == 0xc2 && at[1] < 0xa0)
        return 0;                    /* C1 */
    if (at[0] == 0xe2 && ((at[1] == 0x80 && at[2] >= 0xa8 && at[2] <= 0xae) ||
                          (at[1] == 0x81 && at[2] >= 0xa6 && at[2] <= 0xa9)))
        return 0;                    /* U+2028 to 202E, U+2066 to 2069 */
    return want;
}

static void line_escaped(struct line *line, const char *text)
{
    size_t size = strlen(text), step;
    char hex[8];

    for (; size > 0; text += step, size -= step) {
        unsigned char c = (unsigned char)*text;

        step = 1;
        if (c == '"' || c == '\\') {
            line_add(line, (char[]){ '\\', (char)c }, 2);
        } else if (c == '\n') {
            line_add(line, "\\n", 2);
        } else if (log_character(text, size) > 0) {
            step = log_character(text, size);
            line_add(line, text, step);
        } else {
            (void)snprintf(hex, sizeof(hex), "\\x%02x", c);
            line_add(line, hex, 4);
        }
    }
}

static bool value_bare(const char *text)
{
    static const char bare[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/@+-,%*";

    return *text != '\0' && text[strspn(text, bare)] == '\0';
}

static void line_quoted(struct line *line, const char *text)
{
    line_add(line, "\"", 1);
    line->quoted = !line->cut;
    line_escaped(line, text);
    line_add(line, "\"", 1);
    line->quoted = line->quoted && line->cut;
}

static void line_value(struct line *line, const char *text)
{
    if (value_bare(text))
        line_text(line, text);
    else
        line_quoted(line, text);
}

static void line_time(struct line *line)
{
    struct timespec now;
    struct tm tm;
    char text[64];

    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &tm);
    (void)snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ ", tm.tm_year + 1900, tm.tm_mon + 1,
                   tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, now.tv_nsec / 1000000);
    line_text(line, text);
}

/* systemd sets JOURNAL_STREAM to stderr's device and inode; a child whose stderr went elsewhere inherits the words too. */
static bool stderr_is_journal(void)
{
    const char *words = getenv("JOURNAL_STREAM");
    unsigned long long dev, inode;
    struct stat st;

    return words != NULL && sscanf(words, "%llu:%llu", &dev, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
           st.st_dev == dev && st.st_ino == inode;
}

static void line_begin(struct line *line, enum log_level level, bool journal)
{
    static const char *const names[] = {
        [LOG_ERROR] = "error ", [LOG_WARN] = "warning ", [LOG_NOTE] = "info ", [LOG_TRACE] = "debug ",
    };

    if (journal) {
        line_text(line, MESSAGE);
        return;
    }
    if (atomic_load_explicit(&over_progress, memory_order_relaxed))
        line_text(line, "\r\033[K");
    line_time(line);
    line_text(line, names[level]);
}

/* PREFIX_KEY=value. One that finds no room is left out: it is in the line, whole or cut. */
static void field_add(struct fields *fields, const char *prefix, const char *key, const char *value)
{
    size_t room = sizeof(fields->bytes) - fields->size;
    char *at = fields->bytes + fields->size;
    int size = snprintf(at, room, "%s%s=%s", prefix, key, value);

    if (fields->count == FIELDS_MAX || size < 0 || (size_t)size >= room)
        return;
    for (char *c = at; *c != '='; c++) {
        if (*c >= 'a' && *c <= 'z')
            *c = (char)(*c - 'a' + 'A');
        else if ((*c < '0' || *c > '9') && (*c < 'A' || *c > 'Z'))
            *c = '_';
    }
    fields->list[fields->count++] = (struct iovec){ at, (size_t)size };
    fields->size += (size_t)size;
}

static void fields_begin(struct fields *fields, enum log_level level, const char *msg)
{
    fields->size = 0;
    fields->count = 1;               /* the first will be the line itself */
    field_add(fields, "", "PRIORITY", (char[]){ (char)('0' + level), '\0' });
    field_add(fields, "PENSTOCK_", "MSG", msg);
}

/* With its fields; or, where there are to be none yet, or journald's socket is out of reach, as text with its priority, which
 * then stands where MESSAGE= ends. Nobody is left to tell when stderr is gone. */
static void journal_write(struct line *line, enum log_level level, struct fields *fields)
{
    char *text = line->text + sizeof(MESSAGE) - 1 - 3;

    fields->list[0] = (struct iovec){ line->text, line->size };
    if (atomic_load_explicit(&with_fields, memory_order_relaxed) && sd_journal_sendv(fields->list, fields->count) >= 0)
        return;
    memcpy(text, (char[]){ '<', (char)('0' + level), '>' }, 3);
    line->text[line->size++] = '\n';
    if (write(STDERR_FILENO, text, (size_t)(line->text + line->size - text)) < 0)
        return;
}

/* A line on its way, and the same as fields. */
struct entry {
    struct line line;
    struct fields fields;
    enum log_level level;
    bool journal;
    size_t start;                    /* of the line's first key */
};

static bool level_is_shown(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&level_max, memory_order_relaxed);
}

static void entry_begin(struct entry *entry, enum log_level level, const char *msg)
{
    entry->line = (struct line){ .limit = LINE_MAX_BYTES - LINE_MESSAGE_BYTES };
    entry->level = level;
    entry->journal = stderr_is_journal();
    line_begin(&entry->line, level, entry->journal);
    fields_begin(&entry->fields, level, msg);
    entry->start = entry->line.size;
}

static void entry_key(struct entry *entry, const char *key)
{
    line_text(&entry->line, entry->line.size > entry->start ? " " : "");
    line_text(&entry->line, key);
    line_add(&entry->line, "=", 1);
}

static void entry_pair(struct entry *entry, const char *key, const char *value)
{
    if (value == NULL)
        value = "";
    entry_key(entry, key);
    line_value(&entry->line, value);
    field_add(&entry->fields, "PENSTOCK_", key, value);
}

static void entry_end(struct entry *entry, const char *msg)
{
    struct line *line = &entry->line;

    line_mend(line, LINE_MAX_BYTES - 16);
    entry_key(entry, "msg");
    line_quoted(line, msg);
    line_mend(line, LINE_MAX_BYTES - 8);
    if (entry->journal) {
        journal_write(line, entry->level, &entry->fields);
        return;
    }
    line->text[line->size++] = '\n';
    /* Nobody is left to tell when stderr is gone. */
    if (write(STDERR_FILENO, line->text, line->size) < 0)
        return;
}

void log_line(enum log_level level, const char *msg, ...)
{
    struct entry entry;
    const char *key;
    va_list args;

    if (!level_is_shown(level))
        return;
    entry_begin(&entry, level, msg);
    va_start(args, msg);
    while (!entry.line.cut && (key = va_arg(args, const char *)) != NULL)
        entry_pair(&entry, key, va_arg(args, const char *));
    va_end(args);
    entry_end(&entry, msg);
}

void log_pairs(enum log_level level, const char *msg, const char *const *pairs)
{
    struct entry entry;

    if (!level_is_shown(level))
        return;
    entry_begin(&entry, level, msg);
    for (; !entry.line.cut && *pairs != NULL; pairs += 2)
        entry_pair(&entry, pairs[0], pairs[1]);
    entry_end(&entry, msg);
}

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&level_max, (int)level, memory_order_relaxed);
}

void log_over_progress(bool over)
{
    atomic_store_explicit(&over_progress, over, memory_order_relaxed);
}

void log_to_journal(void)
{
    atomic_store_explicit(&with_fields, true, memory_order_relaxed);
}

const char *log_number(unsigned long long value)
{
    static _Thread_local char slots[8][24];
    static _Thread_local unsigned turn;
    char *slot = slots[turn++ % 8];

    (void)snprintf(slot, sizeof(slots[0]), "%llu", value);
    return slot;
}
