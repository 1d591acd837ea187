/*
 * conf.c - the configuration file as sections of keys and texts, and the rows that give the texts their meaning.
 *
 * inih splits `key = value`. What it cannot do is done where we hand it the lines, one by one: it knows no line numbers,
 * cuts section names at 50 bytes, joins repeated sections, and takes the rest of a long line for the next one. So we read
 * the section headers ourselves, count the lines, and refuse a line before inih could bend it. A line that we gave it and
 * that came back as no pair is a mistake.
 *
 * A value is the rest of its line. A '#' or ';' behind a blank is refused there: nobody should find out in an incident
 * that his comment became part of a topic's name.
 *
 * Two things are kept of a value: as written, and with ${ENV} put in. Sentences show the first, for what comes from the
 * environment may be a secret.
 */
#include "daemon/config/conf.h"

#include "daemon/base/buf.h"
#include "daemon/config/option.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define NAME_MAX_BYTES 64            /* of a section's name and of a key */

struct entry {
    const char *key, *written, *value;
    unsigned line;
    bool used;                       /* by conf_value(): known to someone */
    struct entry *next;
};

struct pen_conf {
    struct conf *conf;
    enum conf_kind kind;
    const char *name;                /* "" for [daemon] */
    unsigned line;                   /* 0: not in the file */
    struct entry *first, **last;
    struct pen_conf *next;
};

struct conf {
    struct arena arena;
    const char *path;
    conf_report report;
    void *arg;
    unsigned mistakes;
    struct pen_conf *first, **last;
    struct pen_conf absent_daemon;
};

static const char *const kind_names[] = { [CONF_DAEMON] = "daemon", [CONF_SOURCE] = "source", [CONF_SINK] = "sink" };
#define KINDS (sizeof(kind_names) / sizeof(*kind_names))

/* ---- Mistakes ---- */

__attribute__((format(printf, 3, 4)))
static void conf_wrong(struct conf *conf, unsigned line, const char *format, ...)
{
    char sentence[1024];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    conf->mistakes++;
    if (conf->report != NULL)
        conf->report(conf->arg, conf->path, line, sentence);
}

unsigned conf_mistakes(const struct conf *conf)
{
    return conf->mistakes;
}

/* ---- Texts ---- */

static char *conf_copy(struct conf *conf, const char *text, size_t size)
{
    char *copy = arena_alloc(&conf->arena, size + 1);

    memcpy(copy, text, size);
    copy[size] = '\0';
    return copy;
}

/* "[sink siem]", for sentences. */
static const char *section_title(const struct pen_conf *section, char *into, size_t size)
{
    (void)snprintf(into, size, "[%s%s%s]", kind_names[section->kind], section->name[0] != '\0' ? " " : "",
                   section->name);
    return into;
}

#define TITLE(section) section_title((section), (char[NAME_MAX_BYTES + 16]){ 0 }, NAME_MAX_BYTES + 16)

static bool name_valid(const char *name, size_t size)
{
    if (size == 0 || size > NAME_MAX_BYTES)
        return false;
    for (size_t i = 0; i < size; i++) {
        if (!isalnum((unsigned char)name[i]) && strchr("._-", name[i]) == NULL)
            return false;
    }
    return true;
}

/* No control characters: they have no business in a configuration, and the value will be shown on a terminal, which heeds
 * those of C1 (U+0080 to U+009F, in UTF-8 behind a C2) too. */
static bool text_printable(const char *text, size_t size)
{
    unsigned char c, before = 0;

    for (size_t i = 0; i < size; i++, before = c) {
        c = (unsigned char)text[i];
        if ((c < ' ' && c != '\t') || c == 0x7f || (before == 0xc2 && c < 0xa0))
            return false;
    }
    return true;
}

/* Puts the variable that `at` ("${NAME}…") names behind `out`. Returns the text behind it, or NULL: a mistake. */
static const char *value_expand_one(struct conf *conf, unsigned line, const char *at, struct buf *out)
{
    const char *end = strchr(at, '}'), *value;
    char name[NAME_MAX_BYTES + 1];
    size_t size = end != NULL ? (size_t)(end - at - 2) : 0;

    if (!name_valid(at + 2, size) || isdigit((unsigned char)at[2])) {
        conf_wrong(conf, line, "expected ${NAME} with the name of an environment variable; a plain \"${\" is written $${");
        return NULL;
    }
    memcpy(name, at + 2, size);
    name[size] = '\0';
    value = getenv(name);
    if (value == NULL) {
        conf_wrong(conf, line, "the environment variable %s is not set%s", name,
                   strcmp(name, "CREDENTIALS_DIRECTORY") == 0
                       ? "; systemd sets it for the service, set it yourself to check from a shell" : "");
        return NULL;
    }
    if (!text_printable(value, strlen(value))) {
        conf_wrong(conf, line, "the environment variable %s holds control characters", name);
        return NULL;
    }
    buf_add(out, value, strlen(value));
    return end + 1;
}

/* ${NAME} becomes the variable's value, $${ becomes ${, once: what comes out is not looked at again. NULL: a mistake. */
static const char *value_expand(struct conf *conf, unsigned line, const char *written)
{
    struct buf out = { 0 };
    const char *at = written, *ret = NULL;

    while (at != NULL && *at != '\0') {
        if (strncmp(at, "$${", 3) == 0) {
            BUF_LITERAL(&out, "${");
            at += 3;
        } else if (strncmp(at, "${", 2) == 0) {
            at = value_expand_one(conf, line, at, &out);
        } else {
            buf_char(&out, *at++);
        }
    }
    if (at != NULL)
        ret = conf_copy(conf, out.size > 0 ? out.data : "", out.size);
    buf_free(&out);
    return ret;
}

/* ---- Sections ---- */

static struct pen_conf *section_find(struct conf *conf, enum conf_kind kind, const char *name, size_t size)
{
    struct pen_conf *section;

    for (section = conf->first; section != NULL; section = section->next) {
        if (section->kind == kind && strlen(section->name) == size && memcmp(section->name, name, size) == 0)
            return section;
    }
    return NULL;
}

static void section_init(struct pen_conf *section, struct conf *conf, enum conf_kind kind, const char *name,
                         unsigned line)
{
    *section = (struct pen_conf){ .conf = conf, .kind = kind, .name = name, .line = line };
    section->last = &section->first;
}

static struct entry *section_entry(const struct pen_conf *section, const char *key)
{
    struct entry *entry;

    for (entry = section->first; entry != NULL && strcmp(entry->key, key) != 0; entry = entry->next)
        ;
    return entry;
}

/* The words between the brackets. NULL: a mistake, and the section's keys go unread. */
static struct pen_conf *section_begin(struct conf *conf, unsigned line, const char *text, size_t size)
{
    size_t kind_size = 0, kind;
    struct pen_conf *section;
    const char *near, *name;
    char word[NAME_MAX_BYTES + 1];

    while (kind_size < size && text[kind_size] != ' ' && text[kind_size] != '\t')
        kind_size++;
    for (name = text + kind_size; name < text + size && (*name == ' ' || *name == '\t'); name++)
        ;
    size -= (size_t)(name - text);
    (void)snprintf(word, sizeof(word), "%.*s", (int)kind_size, text);
    for (kind = 0; kind < KINDS && strcmp(word, kind_names[kind]) != 0; kind++)
        ;
    if (kind == KINDS) {
        near = option_nearest(word, kind_names, KINDS);
        conf_wrong(conf, line, "expected [daemon], [source NAME] or [sink NAME]%s%s%s",
                   near != NULL ? "; did you mean \"" : "", near != NULL ? near : "", near != NULL ? "\"?" : "");
        return NULL;
    }
    if (kind == CONF_DAEMON && size > 0) {
        conf_wrong(conf, line, "expected [daemon], which has no name");
        return NULL;
    }
    if (kind != CONF_DAEMON && !name_valid(name, size)) {
        conf_wrong(conf, line, "expected [%s NAME], its name made of letters, digits, '.', '_' and '-', at most %d",
                   kind_names[kind], NAME_MAX_BYTES);
        return NULL;
    }
    section = section_find(conf, (enum conf_kind)kind, name, size);
    if (section != NULL) {
        conf_wrong(conf, line, "%s is there already, on line %u", TITLE(section), section->line);
        return NULL;
    }
    section = arena_alloc(&conf->arena, sizeof(*section));
    section_init(section, conf, (enum conf_kind)kind, conf_copy(conf, name, size), line);
    *conf->last = section;
    conf->last = &section->next;
    return section;
}

static void section_add(struct pen_conf *section, unsigned line, const char *key, const char *value)
{
    struct entry *entry = section_entry(section, key);
    struct conf *conf = section->conf;

    if (entry != NULL) {
        conf_wrong(conf, line, "\"%s\" is set already, on line %u", key, entry->line);
        return;
    }
    entry = arena_alloc(&conf->arena, sizeof(*entry));
    *entry = (struct entry){ .key = conf_copy(conf, key, strlen(key)), .line = line,
                             .written = conf_copy(conf, value, strlen(value)) };
    entry->value = value_expand(conf, line, entry->written);
    /* A mistake in ${…} leaves the entry without a value; it stays, so that its key is not reported missing too. */
    *section->last = entry;
    section->last = &entry->next;
}

/* ---- Lines ---- */

struct reader {
    struct conf *conf;
    const char *at, *end;
    unsigned line;                   /* of the text that inih has */
    bool pending;                    /* inih has a line that must come back as a pair */
    bool skipping;                   /* behind a section header that was refused */
    struct pen_conf *section;        /* NULL: none yet, or skipping */
};

static void reader_settle(struct reader *reader)
{
    if (reader->pending)
        conf_wrong(reader->conf, reader->line, "expected a [section], a comment or \"key = value\"");
    reader->pending = false;
}

static void reader_section(struct reader *reader, const char *text, size_t size)
{
    const char *close = memchr(text, ']', size);

    reader->section = NULL;
    reader->skipping = true;
    if (close == NULL) {
        conf_wrong(reader->conf, reader->line, "expected ']' at the end of the section's name");
        return;
    }
    if (close != text + size - 1) {
        conf_wrong(reader->conf, reader->line, "expected nothing behind ']'; a comment needs a line of its own");
        return;
    }
    for (text++; text < close && (*text == ' ' || *text == '\t'); text++)
        ;
    for (; close > text && (close[-1] == ' ' || close[-1] == '\t'); close--)
        ;
    reader->section = section_begin(reader->conf, reader->line, text, (size_t)(close - text));
    reader->skipping = reader->section == NULL;
}

/* Whether inih may have the line: without blanks at its ends, and a pair by the look of it. */
static bool reader_admit(struct reader *reader, const char *text, size_t size)
{
    if (size > CONF_LINE_MAX) {
        conf_wrong(reader->conf, reader->line, "the line is longer than %d bytes", CONF_LINE_MAX);
        return false;
    }
    if (!text_printable(text, size)) {
        conf_wrong(reader->conf, reader->line, "the line holds control characters%s",
                   memchr(text, '\0', size) != NULL ? "; is the file UTF-16? It must be UTF-8" : "");
        return false;
    }
    if (size == 0 || *text == '#' || *text == ';')
        return false;
    if (*text == '[') {
        reader_section(reader, text, size);
        return false;
    }
    for (size_t i = 1; i < size; i++) {
        if ((text[i] == '#' || text[i] == ';') && (text[i - 1] == ' ' || text[i - 1] == '\t')) {
            conf_wrong(reader->conf, reader->line, "expected no '%c' behind a blank; a comment needs a line of its own",
                       text[i]);
            return false;
        }
    }
    return true;
}

/* inih asks for the next line. */
static char *on_line(char *into, int capacity, void *arg)
{
    struct reader *reader = arg;
    const char *text = reader->at, *end;
    size_t size;

    reader_settle(reader);
    if (text == reader->end)
        return NULL;
    end = memchr(text, '\n', (size_t)(reader->end - text));
    reader->at = end != NULL ? end + 1 : reader->end;
    if (end == NULL)
        end = reader->end;
    reader->line++;
    for (; text < end && (*text == ' ' || *text == '\t'); text++)
        ;
    for (; end > text && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'); end--)
        ;
    size = (size_t)(end - text);
    reader->pending = reader_admit(reader, text, size);
    if (!reader->pending)
        size = 0;
    assert(size + 2 <= (size_t)capacity);
    memcpy(into, text, size);
    memcpy(into + size, "\n", 2);
    return into;
}

/* inih found a pair in the line it has. */
static int on_pair(void *arg, const char *none, const char *key, const char *value)
{
    struct reader *reader = arg;
    size_t size = strlen(value);

    (void)none;                      /* inih never sees a section */
    reader->pending = false;
    if (!name_valid(key, strlen(key)))
        conf_wrong(reader->conf, reader->line, "expected a key of letters, digits, '.', '_' and '-', at most %d",
                   NAME_MAX_BYTES);
    else if (size >= 2 && (*value == '"' || *value == '\'') && value[size - 1] == *value)
        conf_wrong(reader->conf, reader->line, "expected the value of \"%s\" without quotes", key);
    else if (*value == '#' || *value == ';')
        conf_wrong(reader->conf, reader->line, "expected a value of \"%s\" that does not begin with '%c'; a comment needs a line "
                   "of its own", key, *value);
    else if (reader->section != NULL)
        section_add(reader->section, reader->line, key, value);
    else if (!reader->skipping)
        conf_wrong(reader->conf, reader->line, "expected a [section] before \"%s\"", key);
    return 1;
}

static int conf_split(struct conf *conf, const char *text, size_t size)
{
    struct reader reader = { .conf = conf, .at = text, .end = text + size };

    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        reader.at += 3;              /* a BOM */
    ini_max_line = CONF_LINE_MAX + 3;
    ini_allow_multiline = false;
    ini_allow_inline_comments = false;
    return ini_parse_stream(on_line, &reader, on_pair, &reader) == -2 ? UV_ENOMEM : 0;
}

/* ---- The file ---- */

static int conf_load_fd(struct buf *text, int fd, const char *path, struct pen_error *err)
{
    struct stat st;
    ssize_t n;

    if (fstat(fd, &st) < 0)
        return pen_error_set(err, -errno, "cannot read %s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) && !S_ISFIFO(st.st_mode))
        return pen_error_set(err, UV_EINVAL, "cannot read %s: it is not a file", path);
    do {
        buf_reserve(text, 4096);
        n = read(fd, text->data + text->size, 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return pen_error_set(err, -errno, "cannot read %s: %s", path, strerror(errno));
        text->size += (size_t)n;
        if (text->size > CONF_FILE_MAX)
            return pen_error_set(err, UV_EFBIG, "%s is longer than %d bytes: is it a configuration?", path, CONF_FILE_MAX);
    } while (n != 0);
    return 0;
}

static int conf_load(struct buf *text, const char *path, struct pen_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), r;

    if (fd < 0)
        return pen_error_set(err, -errno, "cannot open %s: %s", path, strerror(errno));
    r = conf_load_fd(text, fd, path, err);
    (void)close(fd);
    return r;
}

int conf_read(struct conf **ret, const char *path, conf_report report, void *arg, struct pen_error *err)
{
    struct buf text = { 0 };
    struct conf *conf = NULL;
    int r;

    r = conf_load(&text, path, err);
    if (r < 0)
        goto fail;
    conf = calloc(1, sizeof(*conf));
    if (conf == NULL) {
        r = pen_error_set(err, UV_ENOMEM, "out of memory");
        goto fail;
    }
    conf->last = &conf->first;
    conf->path = conf_copy(conf, path, strlen(path));
    conf->report = report;
    conf->arg = arg;
    section_init(&conf->absent_daemon, conf, CONF_DAEMON, "", 0);
    r = conf_split(conf, text.data, text.size);
    if (r < 0) {
        (void)pen_error_set(err, r, "out of memory");
        goto fail;
    }
    buf_free(&text);
    *ret = conf;
    return 0;
fail:
    buf_free(&text);
    conf_free(conf);
    return r;
}

void conf_free(struct conf *conf)
{
    if (conf == NULL)
        return;
    arena_free(&conf->arena);
    free(conf);
}

/* ---- Sections, from outside ---- */

struct pen_conf *conf_section_make(struct conf *conf, enum conf_kind kind, const char *name)
{
    struct pen_conf *section = arena_alloc(&conf->arena, sizeof(*section));

    section_init(section, conf, kind, conf_copy(conf, name, strlen(name)), 0);
    return section;
}

void conf_section_put(struct pen_conf *section, const char *key, const char *value)
{
    struct conf *conf = section->conf;
    struct entry *entry = arena_alloc(&conf->arena, sizeof(*entry));

    assert(section_entry(section, key) == NULL);
    *entry = (struct entry){ .key = conf_copy(conf, key, strlen(key)), .written = conf_copy(conf, value, strlen(value)) };
    entry->value = entry->written;
    *section->last = entry;
    section->last = &entry->next;
}

struct pen_conf *conf_section(struct conf *conf, enum conf_kind kind, unsigned index)
{
    struct pen_conf *section;

    for (section = conf->first; section != NULL; section = section->next) {
        if (section->kind == kind && index-- == 0)
            return section;
    }
    return kind == CONF_DAEMON && section_find(conf, kind, "", 0) == NULL && index == 0 ? &conf->absent_daemon : NULL;
}

const char *pen_conf_name(const struct pen_conf *conf)
{
    return conf->name;
}

const char *conf_section_file(const struct pen_conf *section)
{
    return section->conf->path;
}

unsigned conf_section_line(const struct pen_conf *section)
{
    return section->line;
}

bool conf_section_whole(const struct pen_conf *section)
{
    for (const struct entry *entry = section->first; entry != NULL; entry = entry->next) {
        if (entry->value == NULL)
            return false;
    }
    return true;
}

static bool section_says(const struct pen_conf *section, const struct entry *wanted)
{
    const struct entry *entry = section_entry(section, wanted->key);

    return entry != NULL && strcmp(entry->value, wanted->value) == 0;
}

static bool row_is_among(const char *key, const struct pen_option *rows)
{
    for (; rows != NULL && rows->name != NULL; rows++)
        if (strcmp(rows->name, key) == 0)
            return true;
    return false;
}

bool conf_sections_agree(const struct pen_conf *a, const struct pen_conf *b, const struct pen_option *except)
{
    const struct pen_conf *const sides[2][2] = { { a, b }, { b, a } };

    for (size_t i = 0; i < 2; i++)
        for (const struct entry *entry = sides[i][0]->first; entry != NULL; entry = entry->next)
            if (!row_is_among(entry->key, except) && !section_says(sides[i][1], entry))
                return false;
    return true;
}

const char *conf_value(struct pen_conf *section, const char *key)
{
    struct entry *entry = section_entry(section, key);

    if (entry == NULL)
        return NULL;
    entry->used = true;
    return entry->value;
}

unsigned conf_value_line(const struct pen_conf *section, const char *key)
{
    const struct entry *entry = section_entry(section, key);

    return entry != NULL ? entry->line : section->line;
}

void conf_mistake(struct pen_conf *section, const char *key, const char *format, ...)
{
    char sentence[768];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    conf_wrong(section->conf, conf_value_line(section, key), "%s", sentence);
}

/* ---- Rows ---- */

struct wrong {
    unsigned line;
    struct pen_error err;
};

static bool row_takes(const struct pen_option *row, const char *key)
{
    size_t size = strlen(row->name);

    if (row->type == PEN_PAIRS)
        return strncmp(key, row->name, size) == 0 && key[size] != '\0';
    return strcmp(key, row->name) == 0;
}

static int row_fill_pairs(const struct pen_conf *section, const struct pen_option *row, void *into)
{
    struct pen_pairs *pairs = (struct pen_pairs *)((char *)into + row->offset);
    const struct entry *entry;
    const char **keys, **values;
    size_t count = 0;

    for (entry = section->first; entry != NULL; entry = entry->next)
        count += row_takes(row, entry->key) && entry->value != NULL;
    keys = arena_alloc(&section->conf->arena, count * sizeof(*keys));
    values = arena_alloc(&section->conf->arena, count * sizeof(*values));
    *pairs = (struct pen_pairs){ keys, values, 0 };
    for (entry = section->first; entry != NULL; entry = entry->next) {
        if (!row_takes(row, entry->key) || entry->value == NULL)
            continue;
        keys[pairs->count] = entry->key + strlen(row->name);
        values[pairs->count++] = entry->value;
    }
    return 0;
}

/* "expected …" goes on: the value as the user wrote it, unless it may be a secret, and the nearest choice. */
static int entry_refuse(const struct entry *entry, const struct pen_option *row, const char *expected,
                        struct pen_error *err)
{
    const char *near = row->type == PEN_CHOICE ? conf_nearest(entry->value, row->choices) : NULL;
    struct buf said = { 0 };

    buf_text(&said, "\"%s\": %s", row->name, expected);
    if (entry->written[0] == '\0')
        BUF_LITERAL(&said, ", found nothing");
    else if (row->type != PEN_SECRET_FILE && strchr(entry->written, '@') == NULL)   /* user:password@host stays unsaid */
        buf_text(&said, ", found \"%.80s\"", entry->written);
    if (near != NULL)
        buf_text(&said, "; did you mean \"%s\"?", near);
    (void)pen_error_set(err, UV_EINVAL, "%.*s", (int)said.size, said.data);
    buf_free(&said);
    return UV_EINVAL;
}

/* 0, or negative and *wrong says where and what. */
static int row_fill(const struct pen_conf *section, const struct pen_option *row, void *into, struct wrong *wrong)
{
    const struct entry *entry = section_entry(section, row->name);
    struct arena *arena = &section->conf->arena;
    struct pen_error said = { 0 };
    int r;

    if (row->type == PEN_PAIRS)
        return row_fill_pairs(section, row, into);
    option_clear(row, into);
    if (entry == NULL && row->required) {
        wrong->line = section->line;
        return pen_error_set(&wrong->err, UV_EINVAL, "%s needs \"%s\": %s", TITLE(section), row->name, row->help);
    }
    if (entry == NULL) {
        r = row->fallback != NULL ? option_set(row, row->fallback, into, arena, &said) : 0;
        assert(r == 0);              /* a fallback that does not fit its own row is our bug */
        return r;
    }
    if (entry->value == NULL) {      /* reported when it was read */
        wrong->line = entry->line;
        return pen_error_set(&wrong->err, UV_EINVAL, "\"%s\" has no value", row->name);
    }
    wrong->line = entry->line;
    r = option_set(row, entry->value, into, arena, &said);
    return r < 0 ? entry_refuse(entry, row, said.text, &wrong->err) : 0;
}

int pen_conf_fill(const struct pen_conf *conf, const struct pen_option *options, void *into, struct pen_error *err)
{
    struct wrong wrong = { 0 };
    int r;

    for (; options != NULL && options->name != NULL; options++) {
        r = row_fill(conf, options, into, &wrong);
        if (r < 0)
            return pen_error_set(err, r, "%s:%u: %.400s", conf->conf->path, wrong.line, wrong.err.text);
    }
    return 0;
}

/* All names that a section may hold, for suggestions. */
static size_t tables_names(const struct pen_option *const *tables, size_t count, const char **names, size_t max)
{
    const struct pen_option *row;
    size_t n = 0, i;

    for (i = 0; i < count; i++) {
        for (row = tables[i]; row != NULL && row->name != NULL && n < max; row++)
            names[n++] = row->name;
    }
    return n;
}

static bool tables_take(const struct pen_option *const *tables, size_t count, const char *key)
{
    const struct pen_option *row;

    for (size_t i = 0; i < count; i++) {
        for (row = tables[i]; row != NULL && row->name != NULL; row++) {
            if (row_takes(row, key))
                return true;
        }
    }
    return false;
}

static void section_refuse(struct pen_conf *section, const struct entry *entry, const struct pen_option *const *tables,
                           size_t count)
{
    const char *names[256], *near;
    size_t n = tables_names(tables, count, names, sizeof(names) / sizeof(*names)), i;
    struct buf all = { 0 };

    near = option_nearest(entry->key, names, n);
    if (near != NULL && strcmp(near, entry->key) != 0) {   /* they are equal for a bare "kafka." */
        conf_wrong(section->conf, entry->line, "unknown key \"%s\" in %s; did you mean \"%s\"?", entry->key,
                   TITLE(section), near);
        return;
    }
    for (i = 0; i < n; i++)
        buf_text(&all, "%s%s%s", i == 0 ? "" : ", ", names[i], names[i][strlen(names[i]) - 1] == '.' ? "*" : "");
    conf_wrong(section->conf, entry->line, "unknown key \"%s\" in %s; it takes %.*s", entry->key, TITLE(section),
               (int)all.size, all.size > 0 ? all.data : "");
    buf_free(&all);
}

unsigned conf_fill(struct pen_conf *section, const struct pen_option *const *tables, void *const *intos, size_t count)
{
    unsigned before = section->conf->mistakes;
    const struct pen_option *row;
    const struct entry *entry;
    struct wrong wrong = { 0 };

    for (entry = section->first; entry != NULL; entry = entry->next) {
        if (!entry->used && !tables_take(tables, count, entry->key))
            section_refuse(section, entry, tables, count);
    }
    for (size_t i = 0; i < count; i++) {
        for (row = tables[i]; row != NULL && row->name != NULL; row++) {
            entry = section_entry(section, row->name);
            if (row_fill(section, row, intos[i], &wrong) < 0 && (entry == NULL || entry->value != NULL))
                conf_wrong(section->conf, wrong.line, "%s", wrong.err.text);
        }
    }
    return section->conf->mistakes - before;
}

const char *conf_nearest(const char *word, const char *const *names)
{
    size_t count = 0;

    while (names[count] != NULL)
        count++;
    return option_nearest(word, names, count);
}

/* ---- The effective configuration ---- */

/* A property that we pass through may be a secret that was written in the wrong place. */
static bool key_secret(const char *key)
{
    static const char *const marks[] = {
        "password", "secret", "token", "credential", "key.pem", "sasl.oauthbearer.config",
    };

    for (size_t i = 0; i < sizeof(marks) / sizeof(*marks); i++) {
        if (strcasestr(key, marks[i]) != NULL)
            return true;
    }
    return false;
}

/* So that it reads back as the value it is: "${" must not be taken for a variable. */
static void entry_print(const struct entry *entry, FILE *out)
{
    fprintf(out, "%s = ", entry->key);
    for (const char *at = entry->value; *at != '\0'; at++) {
        if (at[0] == '$' && at[1] == '{')
            putc('$', out);
        putc(*at, out);
    }
    putc('\n', out);
}

static void row_print_pairs(const struct pen_conf *section, const struct pen_option *row, FILE *out)
{
    const struct entry *entry;

    for (entry = section->first; entry != NULL; entry = entry->next) {
        if (!row_takes(row, entry->key) || entry->value == NULL)
            continue;
        if (key_secret(entry->key))
            fprintf(out, "%s = ********\n", entry->key);
        else
            entry_print(entry, out);
    }
}

void conf_print(const struct pen_conf *section, const struct pen_option *const *tables, size_t count, FILE *out)
{
    const struct pen_option *row;
    const struct entry *entry;

    fprintf(out, "%s\n", TITLE(section));
    for (size_t i = 0; i < count; i++) {
        for (row = tables[i]; row != NULL && row->name != NULL; row++) {
            entry = section_entry(section, row->name);
            if (row->type == PEN_PAIRS)
                row_print_pairs(section, row, out);
            else if (entry != NULL && entry->value != NULL)
                entry_print(entry, out);
            else
                fprintf(out, "# %s = %s\n", row->name, row->fallback != NULL ? row->fallback : "");
        }
    }
}
