/*
 * dead_command.c - `penstock dead`: what lies in the dead letters, seen, sent once more, or thrown away; while the daemon
 * runs, too.
 *
 * Letters hold what came from outside. Whatever could steer a terminal is shown escaped, in tables by \xNN, in JSON by
 * \uNNNN, where that means the same.
 */
#include "daemon/base/log.h"
#include "daemon/command/commands.h"
#include "daemon/command/resend.h"
#include "daemon/command/words.h"
#include "daemon/config/settings.h"

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "Usage: penstock dead list [OPTION...] [SINK]\n"
    "       penstock dead show [OPTION...] ID...\n"
    "       penstock dead resend [OPTION...] SINK (ID... | --all)\n"
    "       penstock dead drop [OPTION...] SINK (ID... | --all --yes)\n"
    "Dead letters are messages that a far end has rejected for good, each with the reason, and where its record is.\n"
    "\n"
    "  list     one line each, oldest first\n"
    "  show     one of them whole\n"
    "  resend   send them to their sink once more; what is delivered leaves the dead letters, what is rejected again\n"
    "           stays, with the new reason. Needs the sink's secrets, as the daemon does\n"
    "  drop     throw them away\n"
    "\n"
    "  -c, --config FILE      configuration (default /etc/penstock/penstock.conf)\n"
    "      --state-dir DIR    look here rather than in the configuration's state_dir: for those of a replay\n"
    "      --json             list and show: one JSON object a line\n"
    "      --all              all of that sink\n"
    "      --yes              needed to drop all\n"
    "  -h, --help             this text\n"
    "\n"
    "Exit: 0 done, 1 not all of it (rejected again, no such letter, a damaged line), 2 wrong use or configuration.\n";

struct dead_call {
    const char *config, *state_dir;
    char *state_dir_own;
    bool json, all, yes;
    char **ids;                      /* sorted */
    bool *found;                     /* [id_count] */
    size_t id_count, found_count;
    uint64_t letters;                /* met */
    bool damaged;
};

/* ---- Which letters ---- */

static int compare_ids(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool call_selects(void *arg, const struct dead_letter *letter)
{
    struct dead_call *call = arg;
    const char *id = letter->id;
    char **at;

    if (call->all)
        return true;
    if (call->id_count == 0)
        return false;
    at = bsearch(&id, call->ids, call->id_count, sizeof(*call->ids), compare_ids);
    if (at == NULL)
        return false;
    call->found_count += !call->found[at - call->ids];
    call->found[at - call->ids] = true;
    return true;
}

/* 0, or 2 and it was said why. */
static int call_take_ids(struct dead_call *call, char **words, int count)
{
    for (int i = 0; i < count; i++) {
        if (strlen(words[i]) != DEAD_ID_SIZE - 1 || words[i][strspn(words[i], "0123456789abcdef")] != '\0') {
            fprintf(stderr, "penstock dead: expected ids of %d hex digits, as `penstock dead list` shows them\n", DEAD_ID_SIZE - 1);
            return 2;
        }
    }
    call->ids = words;
    call->id_count = (size_t)count;
    call->found = calloc((size_t)count + 1, sizeof(*call->found));
    if (call->found == NULL)
        abort();
    qsort(call->ids, call->id_count, sizeof(*call->ids), compare_ids);
    return 0;
}

static int call_report_missing(const struct dead_call *call)
{
    for (size_t i = 0; i < call->id_count; i++)
        if (!call->found[i])
            fprintf(stderr, "penstock dead: %s: no such letter\n", call->ids[i]);
    return call->found_count < call->id_count ? 1 : 0;
}

/* ---- Texts from outside ---- */

/* At most `most` bytes of it. */
static void put_text(struct pen_span text, size_t most)
{
    size_t step, shown = 0;

    for (size_t at = 0; at < text.size; at += step) {
        size_t good = log_character(text.data + at, text.size - at);

        step = good > 0 ? good : 1;
        if (shown + (good > 0 ? good : 4) > most) {
            fputs("...", stdout);
            return;
        }
        if (good > 0)
            shown += fwrite(text.data + at, 1, good, stdout);
        else
            shown += (size_t)printf("\\x%02x", (unsigned char)text.data[at]);
    }
}

/* A control of C1, a separator or a mark of direction, as log_character() refuses them; 0: none of these. */
static unsigned steering(const unsigned char *at, size_t size)
{
    if (size >= 2 && at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0)
        return at[1];
    if (size >= 3 && at[0] == 0xe2 && (at[1] == 0x80 || at[1] == 0x81) && at[2] >= 0x80 && at[2] < 0xc0)
        return 0x2000u + (at[1] & 1u) * 64 + (at[2] & 63u);
    return 0;
}

/* Bytes of a JSON text. What steers can only stand inside of strings, where an escape means the same. */
static void put_json(struct pen_span text)
{
    size_t step;

    for (size_t at = 0; at < text.size; at += step) {
        const unsigned char *c = (const unsigned char *)text.data + at;
        size_t good = log_character(text.data + at, text.size - at);
        unsigned code = good > 0 ? 0 : steering(c, text.size - at);

        step = good > 0 ? good : code >= 0x2000 ? 3 : code > 0 ? 2 : 1;
        if (good > 0)
            fwrite(c, 1, good, stdout);
        else if (*c == '\t' || *c == '\r')         /* between tokens */
            putchar(' ');
        else
            printf("\\u%04x", code > 0 ? code : *c < 0x80 ? *c : 0xfffdu);
    }
}

static void put_indent(unsigned depth)
{
    printf("\n%*s", (int)(depth < 40 ? 2 * depth : 80), "");
}

static size_t string_size(struct pen_span json, size_t at)
{
    size_t end = at + 1;

    while (end < json.size && json.data[end] != '"')
        end += json.data[end] == '\\' ? 2 : 1;
    return (end < json.size ? end + 1 : json.size) - at;
}

static void put_pretty(struct pen_span json)
{
    unsigned depth = 0;
    size_t step;

    for (size_t at = 0; at < json.size; at += step) {
        char c = json.data[at];

        step = c == '"' ? string_size(json, at) : 1;
        if (c == '}' || c == ']') {
            depth -= depth > 0;
            if (at > 0 && json.data[at - 1] != '{' && json.data[at - 1] != '[')
                put_indent(depth);
        }
        if (strchr(" \t\r", c) == NULL || c == '\0')
            put_json((struct pen_span){ json.data + at, step });
        if (c == ':')
            putchar(' ');
        depth += c == '{' || c == '[';
        if (c == ',' || ((c == '{' || c == '[') && at + 1 < json.size && json.data[at + 1] != '}' && json.data[at + 1] != ']'))
            put_indent(depth);
    }
    putchar('\n');
}

/* ---- Files ---- */

typedef void (*each_letter)(struct dead_call *call, const struct dead_letter *letter);

static char *dead_path(const struct dead_call *call, const char *sink)
{
    char *path;

    if (asprintf(&path, "%s/dead/%s.jsonl", call->state_dir, sink) < 0)
        abort();
    return path;
}

static int file_each(struct dead_call *call, const char *path, each_letter each)
{
    struct dead_file *file;
    struct dead_letter letter;
    int r = dead_open(&file, path);

    if (r < 0) {
        if (r != UV_ENOENT)
            fprintf(stderr, "penstock dead: %s: %s\n", path, strerror(-r));
        return r;
    }
    while (!ferror(stdout) && (r = dead_next(file, &letter)) > 0) {    /* a pipe may be closed after the first lines */
        if (letter.damage != NULL) {
            fprintf(stderr, "%s:%" PRIu64 ": %s; kept (%s)\n", path, letter.line, letter.damage,
                    letter.id[0] != '\0' ? letter.id : "no id");
            call->damaged = true;
            continue;
        }
        call->letters++;
        each(call, &letter);
    }
    if (r < 0)
        fprintf(stderr, "penstock dead: %s: %s\n", path, strerror(-r));
    dead_close(file);
    return r;
}

static int is_letters(const struct dirent *entry)
{
    size_t size = strlen(entry->d_name);

    return size > 6 && strcmp(entry->d_name + size - 6, ".jsonl") == 0;
}

static int files_each(struct dead_call *call, each_letter each)
{
    struct dirent **names;
    char *folder, *path;
    int count, r = 0;

    if (asprintf(&folder, "%s/dead", call->state_dir) < 0)
        abort();
    count = scandir(folder, &names, is_letters, alphasort);
    if (count < 0 && errno != ENOENT) {
        r = -errno;
        fprintf(stderr, "penstock dead: %s: %s\n", folder, strerror(errno));
    }
    for (int i = 0; i < count; i++) {
        if (asprintf(&path, "%s/%s", folder, names[i]->d_name) < 0)
            abort();
        if (r == 0)
            r = file_each(call, path, each);
        free(path);
        free(names[i]);
    }
    if (count >= 0)
        free(names);
    free(folder);
    return r;
}

/* ---- list ---- */

/* The sentence without the status before it, which has a column of its own. */
static struct pen_span reason_short(const struct dead_letter *letter)
{
    struct pen_span reason = letter->reason;
    size_t skip = letter->status.size > 0 ? strlen("status ") + letter->status.size + 2 : 0;

    return skip < reason.size ? (struct pen_span){ reason.data + skip, reason.size - skip } : reason;
}

static void list_row(struct dead_call *call, const struct dead_letter *letter)
{
    static const struct pen_span none = { "-", 1 };

    if (call->letters == 1)
        printf("%-16s  %-20s  %-12s  %-14s  %s\n", "ID", "TIME", "SINK", "STATUS", "STREAM:POSITION  REASON");
    printf("%s  ", letter->id);
    put_text((struct pen_span){ letter->time.data, letter->time.size < 19 ? letter->time.size : 19 }, 19);
    printf("Z  ");
    put_text(letter->sink, 32);
    printf("%*s  ", letter->sink.size < 12 ? (int)(12 - letter->sink.size) : 0, "");
    put_text(letter->status.size > 0 ? letter->status : none, 32);
    printf("%*s  ", letter->status.size < 14 ? (int)(14 - (letter->status.size > 0 ? letter->status.size : 1)) : 0, "");
    put_text(letter->stream, 256);
    printf(":%" PRIu64 "  ", letter->position);
    put_text(reason_short(letter), 120);
    putchar('\n');
}

static void list_json(struct dead_call *call, const struct dead_letter *letter)
{
    (void)call;
    printf("{\"id\":\"%s\",", letter->id);
    put_json((struct pen_span){ letter->head.data + 1, letter->head.size - 1 });
    puts("}");
}

static int dead_list(struct dead_call *call, char **words, int count)
{
    each_letter each = call->json ? list_json : list_row;
    char *path;
    int r;

    if (count > 1 || call->all || call->yes) {
        fputs(usage, stderr);
        return 2;
    }
    if (count == 1) {
        path = dead_path(call, words[0]);
        r = file_each(call, path, each);
        free(path);
    } else {
        r = files_each(call, each);
    }
    if (!call->json && (r == 0 || r == UV_ENOENT))
        printf("%" PRIu64 " dead letter%s\n", call->letters, call->letters == 1 ? "" : "s");
    return (r < 0 && r != UV_ENOENT) || call->damaged ? 1 : 0;
}

/* ---- show ---- */

static void show_field(const char *name, struct pen_span text)
{
    printf("%-9s ", name);
    put_text(text, SIZE_MAX);
    putchar('\n');
}

static void show_letter(struct dead_call *call, const struct dead_letter *letter)
{
    if (!call_selects(call, letter))
        return;
    if (call->json) {
        printf("{\"id\":\"%s\",", letter->id);
        put_json((struct pen_span){ letter->text.data + 1, letter->text.size - 1 });
        putchar('\n');
        return;
    }
    printf("%-9s %s\n", "id", letter->id);
    show_field("time", letter->time);
    show_field("sink", letter->sink);
    show_field("schema", letter->schema);
    show_field("kind", letter->kind);
    show_field("status", letter->status);
    show_field("reason", letter->reason);
    show_field("stream", letter->stream);
    printf("%-9s %" PRIu64 "\n", "position", letter->position);
    put_pretty(letter->message);
}

static int dead_show(struct dead_call *call, char **words, int count)
{
    int status = count == 0 || call->all || call->yes ? 2 : call_take_ids(call, words, count);

    if (count == 0 || call->all || call->yes)
        fputs(usage, stderr);
    if (status != 0)
        return status;
    status = files_each(call, show_letter) < 0 ? 1 : 0;
    return call_report_missing(call) != 0 ? 1 : status;
}

/* ---- resend and drop ---- */

/* SINK (ID… | --all). 0, or 2 and it was said why. */
static int call_take_choice(struct dead_call *call, char **words, int count)
{
    if (count == 0 || (count == 1) != call->all || call->json || words[0][0] == '\0' || strchr(words[0], '/') != NULL) {
        fputs(usage, stderr);
        return 2;
    }
    return call_take_ids(call, words + 1, count - 1);
}

static int dead_resend(struct dead_call *call, char **words, int count)
{
    struct resend_conf conf = { .config = call->config, .state_dir = call->state_dir, .selects = call_selects, .arg = call };
    int status = call_take_choice(call, words, count);

    if (status != 0)
        return status;
    conf.sink = words[0];
    status = resend_run(&conf);
    return status != 0 ? status : call_report_missing(call);
}

static bool drops(void *arg, const struct dead_letter *letter)
{
    struct dead_call *call = arg;
    bool selected = call_selects(call, letter);

    call->letters += selected;
    return selected;
}

static int dead_drop(struct dead_call *call, char **words, int count)
{
    int status = call_take_choice(call, words, count), r;
    char *path;

    if (status != 0)
        return status;
    if (call->all && !call->yes) {
        fputs("penstock dead: --all throws away every dead letter of that sink; with --yes it does\n", stderr);
        return 2;
    }
    if (resend_is_running(call->state_dir, words[0])) {
        fprintf(stderr, "penstock dead: letters of %s are being resent; wait for that\n", words[0]);
        return 1;
    }
    path = dead_path(call, words[0]);
    r = dead_rewrite(path, NULL, drops, call, NULL);
    if (r < 0 && r != UV_ENOENT)
        fprintf(stderr, "penstock dead: %s: %s\n", path, strerror(-r));
    else
        printf("%" PRIu64 " dropped\n", call->letters);
    free(path);
    return r < 0 && r != UV_ENOENT ? 1 : call_report_missing(call);
}

/* ---- The command ---- */

static const struct {
    const char *name;
    int (*run)(struct dead_call *call, char **words, int count);
    bool settings;                   /* it reads the whole configuration by itself */
} actions[] = {
    { "list", dead_list, false }, { "show", dead_show, false }, { "resend", dead_resend, true }, { "drop", dead_drop, false },
};
#define ACTIONS (sizeof(actions) / sizeof(*actions))

static int call_options(struct dead_call *call, int argc, char **argv)
{
    const struct word words[] = {
        { "config", 'c', &call->config, NULL }, { "state-dir", '\0', &call->state_dir, NULL },
        { "json", '\0', NULL, &call->json }, { "yes", '\0', NULL, &call->yes },
        { "all", '\0', NULL, &call->all }, { 0 },
    };

    return words_read(argc, argv, words, usage);
}

static int call_run(struct dead_call *call, int argc, char **argv)
{
    struct pen_error err = { 0 };
    size_t i;

    for (i = 0; argc > 0 && i < ACTIONS && strcmp(actions[i].name, argv[0]) != 0; i++)
        ;
    if (argc == 0 || i == ACTIONS) {
        fputs(usage, stderr);
        return 2;
    }
    if (call->state_dir == NULL && !actions[i].settings) {
        if (settings_state_dir(&call->state_dir_own, call->config, &err) < 0) {
            fprintf(stderr, "penstock dead: %s\n", err.text);
            return 2;
        }
        call->state_dir = call->state_dir_own;
    }
    return actions[i].run(call, argv + 1, argc - 1);
}

int command_dead(int argc, char **argv)
{
    struct dead_call call = { .config = "/etc/penstock/penstock.conf" };
    int status = call_options(&call, argc, argv);

    if (status >= 0)
        return status;
    status = call_run(&call, argc - optind, argv + optind);
    free(call.found);
    free(call.state_dir_own);
    return status;
}
