/*
 * spool_command.c - `penstock spool`: what waits on disk, listed, verified, taken out, thrown away, or given to another sink.
 *
 * list, check and export only look, and may run beside the daemon. drop and adopt change a spool, so they need it for
 * themselves: whoever has a spool open holds a lock on its folder.
 *
 * adopt moves segments by renaming them, oldest first, to the numbers that follow the other spool's end. If we die between
 * two of them, each segment lies in one spool or the other, and the same command goes on with the rest.
 */
#include "daemon/base/buf.h"
#include "daemon/base/log.h"
#include "daemon/command/commands.h"
#include "daemon/command/words.h"
#include "daemon/disk/cursor.h"
#include "daemon/disk/io.h"
#include "daemon/disk/spools.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "Usage: penstock spool list [OPTION...]\n"
    "       penstock spool check [OPTION...] [SINK]\n"
    "       penstock spool export [OPTION...] SINK\n"
    "       penstock spool drop [OPTION...] SINK\n"
    "       penstock spool adopt [OPTION...] FROM TO\n"
    "Spools hold on disk what a sink could not be given yet; each is a folder in the state folder.\n"
    "\n"
    "  list     one line for each, also for sinks that left the configuration\n"
    "  check    reads every message of one or all, and tells what is damaged and where; changes nothing\n"
    "  export   all that is not delivered yet as JSON lines, decrypted; changes nothing\n"
    "  drop     throws away all that waits for a sink; the daemon must not be using it\n"
    "  adopt    gives what waits for FROM, which left the configuration, to the sink TO of the same type and schema,\n"
    "           behind what TO has; the daemon must be stopped\n"
    "\n"
    "  -c, --config FILE      configuration (default /etc/penstock/penstock.conf)\n"
    "      --state-dir DIR    look here rather than in the configuration's state_dir: for the spools of a replay\n"
    "      --json             one JSON object a line\n"
    "      --output FILE      export to this new file\n"
    "      --yes              needed to drop\n"
    "  -h, --help             this text\n"
    "\n"
    "Exit: 0 done, 1 damage, or it could not be done, 2 wrong use or configuration.\n";

struct spool_call {
    const char *config, *state_dir, *output;
    bool json, yes;
    struct settings *settings;
    struct keys *keys;
    int status;
};

/* ---- Helpers ---- */

static void complain(struct spool_call *call, const char *sink, const char *what)
{
    fprintf(stderr, "penstock spool: %s: %s\n", sink, what);
    call->status = 1;
}

static const struct sink_settings *sink_settings(const struct spool_call *call, const char *sink)
{
    for (unsigned i = 0; i < call->settings->sink_count; i++)
        if (strcmp(call->settings->sinks[i].name, sink) == 0)
            return &call->settings->sinks[i];
    return NULL;
}

/* Folders may have any name. */
static bool name_is_plain(const char *name)
{
    for (const char *at = name; *at != '\0'; at++)
        if ((unsigned char)*at < 0x21 || (unsigned char)*at > 0x7e || *at == '/' || *at == '"' || *at == '\\')
            return false;
    return *name != '\0' && *name != '.';
}

/* The sink's spool, where it is settled up to, and what it holds; false, and it was said why not. */
static bool spool_find(struct spool_call *call, const char *sink, char **dir, struct spool_place *place, struct spool_look *look)
{
    struct pen_error err = { 0 };
    int r;

    *dir = NULL;
    if (!name_is_plain(sink)) {
        complain(call, "that", "this is no sink's name");
        return false;
    }
    *dir = spools_dir(call->state_dir, sink);
    if (spools_place(place, call->state_dir, sink, &err) < 0)
        complain(call, sink, err.text);            /* from its beginning, then */
    r = spool_look(look, *dir, *place);
    if (r == 0)
        return true;
    complain(call, sink, r == UV_ENOENT ? "there is no such spool" : uv_strerror(r));
    free(*dir);
    *dir = NULL;
    return false;
}

static void time_text(char out[32], int64_t ticks)
{
    struct buf text = { 0 };

    if (ticks > 0)
        buf_time(&text, ticks / 10000000 * 10000000);
    snprintf(out, 32, "%.*s", (int)text.size, text.size > 0 ? text.data : "");
    buf_free(&text);
}

static const char *schema_of(const struct spool_look *look)
{
    return look->has_header && look->newest.schema[0] != '\0' ? look->newest.schema : "-";
}

static const char *type_of(const struct spool_look *look)
{
    return look->has_header && look->newest.type[0] != '\0' ? look->newest.type : "-";
}

static void key_of(char out[2 * KEY_ID_SIZE + 1], const struct spool_look *look)
{
    strcpy(out, "-");
    if (look->has_header && look->newest.encrypted)
        key_id_text(out, look->newest.key_id);
}

/* ---- list ---- */

static int list_one(void *arg, const char *sink)
{
    struct spool_call *call = arg;
    char oldest[32], newest[32], key[2 * KEY_ID_SIZE + 1], *dir;
    bool configured = spools_is_configured(call->settings, sink);
    struct spool_place place;
    struct spool_look look;

    if (!spool_find(call, sink, &dir, &place, &look))
        return 0;
    free(dir);
    time_text(oldest, look.oldest_ticks);
    time_text(newest, look.newest_ticks);
    key_of(key, &look);
    if (call->json)
        printf("{\"sink\":\"%s\",\"state\":\"%s\",\"segments\":%" PRIu64 ",\"messages\":%" PRIu64 ",\"bytes\":%" PRIu64
               ",\"oldest\":\"%s\",\"newest\":\"%s\",\"type\":\"%s\",\"schema\":\"%s\",\"key\":\"%s\",\"aside\":%u}\n", sink,
               configured ? "configured" : "orphan", look.segments, look.messages, look.bytes, oldest, newest,
               type_of(&look), schema_of(&look), key, look.aside);
    else
        printf("%-16s %-10s %8" PRIu64 " %12" PRIu64 " %14" PRIu64 " %-20s %-20s %-9s %-6s %s\n", sink,
               configured ? "configured" : "orphan", look.segments, look.messages, look.bytes, oldest, newest,
               type_of(&look), schema_of(&look), key);
    if (!call->json && look.aside > 0)
        printf("%-16s %u file%s set aside, which could not be read\n", "", look.aside, look.aside == 1 ? "" : "s");
    return 0;
}

static void spool_list(struct spool_call *call, char **words)
{
    int r;

    (void)words;
    if (!call->json)
        printf("%-16s %-10s %8s %12s %14s %-20s %-20s %-9s %-6s %s\n", "SINK", "STATE", "SEGMENTS", "MESSAGES", "BYTES",
               "OLDEST", "NEWEST", "TYPE", "SCHEMA", "KEY");
    r = spools_each(call->state_dir, list_one, call);
    if (r < 0)
        complain(call, call->state_dir, uv_strerror(r));
}

/* ---- check ---- */

struct checking {
    struct spool_call *call;
    const char *sink;
    uint64_t whole, locked, lost, places;
};

static void on_checked(void *arg, const struct segment_file *file, const struct segment_frame *frame,
                       const struct segment_payload *payload)
{
    struct checking *checking = arg;

    (void)file;
    if (payload != NULL)
        checking->whole += frame->messages;
    else
        checking->locked += frame->messages;
}

static void on_damage(void *arg, uint64_t segment, uint64_t offset, uint64_t messages)
{
    struct checking *checking = arg;
    char path[SEGMENT_PATH_SIZE];

    segment_path(path, segment);
    checking->lost += messages;
    if (checking->call->json)
        printf("%s{\"segment\":\"%s\",\"offset\":%" PRIu64 ",\"messages\":%" PRIu64 "}", checking->places == 0 ? "" : ",", path,
               offset, messages);
    else
        printf("%s: %s: damaged at offset %" PRIu64 ", %" PRIu64 " message%s lost\n", checking->sink, path, offset, messages,
               messages == 1 ? "" : "s");
    checking->places++;
}

static int check_one(void *arg, const char *sink)
{
    struct spool_call *call = arg;
    struct checking checking = { .call = call, .sink = sink };
    const struct spool_visitor visitor = { on_checked, on_damage, &checking };
    struct spool_place place;
    struct spool_look look;
    char *dir;
    int r;

    if (!spool_find(call, sink, &dir, &place, &look))
        return 0;
    if (call->json)
        printf("{\"sink\":\"%s\",\"damage\":[", sink);
    r = spool_visit(dir, place, call->keys, &visitor);
    if (call->json)
        printf("],\"whole\":%" PRIu64 ",\"locked\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"aside\":%u}\n", checking.whole,
               checking.locked, checking.lost, look.aside);
    else
        printf("%s: %" PRIu64 " messages whole, %" PRIu64 " whole but without their key, %" PRIu64 " lost, %u files set aside\n",
               sink, checking.whole, checking.locked, checking.lost, look.aside);
    if (r < 0)
        complain(call, sink, uv_strerror(r));
    if (checking.lost > 0 || look.aside > 0)
        call->status = 1;
    free(dir);
    return 0;
}

static void spool_check(struct spool_call *call, char **words)
{
    int r = words[0] != NULL ? check_one(call, words[0]) : spools_each(call->state_dir, check_one, call);

    if (r < 0)
        complain(call, call->state_dir, uv_strerror(r));
}

/* ---- export ---- */

struct exporting {
    struct spool_call *call;
    const char *sink;
    FILE *out;
    struct buf line;
    uint64_t locked;
};

static void export_message(struct exporting *exporting, const struct segment_file *file, enum pen_kind kind,
                           const struct segment_payload *payload, const struct pen_message *message)
{
    static const char *const kinds[] = {
        [PEN_UNKNOWN] = "unknown", [PEN_NETWORK] = "network", [PEN_AUDIT] = "audit", [PEN_ALERT] = "alert",
    };
    const char *stream = payload->streams[message->stream], *schema = file->has_header ? file->header.schema : "";
    struct buf *line = &exporting->line;

    line->size = 0;
    buf_text(line, "{\"sink\":\"%s\",\"schema\":", exporting->sink);
    buf_json_string(line, schema, strlen(schema));
    buf_text(line, ",\"kind\":\"%s\",\"stream\":", kinds[kind]);
    buf_json_string(line, stream, strlen(stream));
    buf_text(line, ",\"position\":%" PRIu64 ",\"time\":\"", message->position);
    buf_time(line, message->ticks);
    BUF_LITERAL(line, "\",\"message\":");
    buf_add(line, payload->data + message->offset, message->size);
    BUF_LITERAL(line, "}\n");
    fwrite(line->data, 1, line->size, exporting->out);
}

static void on_exported(void *arg, const struct segment_file *file, const struct segment_frame *frame,
                        const struct segment_payload *payload)
{
    struct exporting *exporting = arg;

    if (payload == NULL)
        exporting->locked += frame->messages;
    for (uint32_t i = 0; payload != NULL && i < frame->messages; i++)
        export_message(exporting, file, frame->kind, payload, &payload->messages[i]);
}

static void on_not_exported(void *arg, uint64_t segment, uint64_t offset, uint64_t messages)
{
    struct exporting *exporting = arg;
    char path[SEGMENT_PATH_SIZE];

    segment_path(path, segment);
    fprintf(stderr, "penstock spool: %s: %s: damaged at offset %" PRIu64 ", %" PRIu64 " messages lost\n", exporting->sink, path,
            offset, messages);
    exporting->call->status = 1;
}

/* A new file, which only its owner may read. */
static FILE *export_open(struct spool_call *call)
{
    int fd = open(call->output, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;

    if (out == NULL)
        complain(call, call->output, strerror(errno));
    return out;
}

static void spool_export(struct spool_call *call, char **words)
{
    struct exporting exporting = { .call = call, .sink = words[0], .out = stdout };
    const struct spool_visitor visitor = { on_exported, on_not_exported, &exporting };
    struct spool_place place;
    struct spool_look look;
    char *dir;
    int r;

    if (!spool_find(call, words[0], &dir, &place, &look))
        return;
    if (call->output == NULL || (exporting.out = export_open(call)) != NULL) {
        r = spool_visit(dir, place, call->keys, &visitor);
        if (r < 0)
            complain(call, words[0], uv_strerror(r));
        if (exporting.locked > 0)
            complain(call, words[0], "some messages are encrypted with a key that key_file does not hold");
        if (call->output != NULL && (fflush(exporting.out) != 0 || fsync(fileno(exporting.out)) < 0 || ferror(exporting.out)))
            complain(call, call->output, strerror(errno));
        if (call->output != NULL)
            (void)fclose(exporting.out);
    }
    buf_free(&exporting.line);
    free(dir);
}

/* ---- drop and adopt ---- */

/* What root makes here must belong to the daemon's user. Secrets were read before. */
static void become_owner(const struct spool_call *call)
{
    struct stat st;

    if (geteuid() == 0 && stat(call->state_dir, &st) == 0 && st.st_uid != 0 &&
        (setegid(st.st_gid) < 0 || seteuid(st.st_uid) < 0))
        abort();
}

/* For ourselves: opening cleans up what a killed daemon left, and locks. */
static struct spool *spool_take(struct spool_call *call, const char *sink, const char *dir, struct spool_place place,
                                uint64_t bytes_max)
{
    struct spool_conf conf = { .dir = dir, .bytes_max = bytes_max, .rows = 1, .keys = call->keys, .place = place };
    struct pen_error err = { 0 };
    struct spool *spool = NULL;
    int r = spool_open(&spool, &conf, &err);

    if (r < 0)
        complain(call, sink, r == UV_EBUSY ? "the daemon is using it: stop that first" : err.text);
    return spool;
}

static int drop_file(void *arg, const char *name)
{
    size_t size = strlen(name);
    uint64_t number;

    if (segment_number(&number, name) || (size > 6 && strcmp(name + size - 6, ".aside") == 0))
        return io->unlinkat(*(const int *)arg, name, 0) < 0 ? -errno : 0;
    return 0;
}

static void drop_all(struct spool_call *call, const char *sink, const char *dir, const struct spool_look *look)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || io->list(fd, drop_file, &fd) < 0 || io->fsync(fd) < 0)
        complain(call, sink, strerror(errno));
    else if (call->json)
        printf("{\"sink\":\"%s\",\"dropped\":%" PRIu64 "}\n", sink, look->messages);
    else
        printf("%s: %" PRIu64 " message%s dropped\n", sink, look->messages, look->messages == 1 ? "" : "s");
    if (fd >= 0)
        close(fd);
    if (!spools_is_configured(call->settings, sink))
        (void)rmdir(dir);
}

static void spool_drop(struct spool_call *call, char **words)
{
    struct spool_place place;
    struct spool_look look;
    struct spool *spool;
    char *dir;

    if (!spool_find(call, words[0], &dir, &place, &look))
        return;
    if (!call->yes) {
        fprintf(stderr, "penstock spool: %s: this would throw away %" PRIu64 " messages, for good; with --yes it does\n", words[0],
                look.messages);
        call->status = 2;
    } else {
        become_owner(call);
        spool = spool_take(call, words[0], dir, place, UINT64_MAX);
        if (spool != NULL)
            drop_all(call, words[0], dir, &look);
        spool_close(spool);
    }
    free(dir);
}

/* Do the messages fit the sink that is to get them? */
static bool adopt_fits(struct spool_call *call, const char *from, const struct spool_look *look, const struct sink_settings *to,
                       uint64_t to_bytes)
{
    struct pen_error err = { 0 };

    if (spool_look_fits(look, to, &err) == 0) {
        if (look->bytes + to_bytes <= to->spool_max)
            return true;
        pen_error_set(&err, UV_ENOSPC, "both together take %" PRIu64 " bytes, more than the spool_max of %s; raise that for a while",
                      look->bytes + to_bytes, to->name);
    }
    complain(call, from, err.text);
    return false;
}

static int adopt_place(struct spool_call *call, const char *to, struct spool_place place, struct pen_error *err)
{
    struct cursor_change change = { 0 };
    struct cursors *cursors = NULL;
    char *path;
    int r;

    if (asprintf(&path, "%s/state.db", call->state_dir) < 0)
        abort();
    cursor_change_place(&change, to, place);
    r = cursors_open(&cursors, path, err);
    if (r == 0)
        r = cursors_save(cursors, &change, err);
    cursors_close(cursors);
    cursor_change_clear(&change);
    free(path);
    return r;
}

/* Renames them in their order, and keeps the distances: they count the messages. */
static int adopt_segments(const char *from_dir, const char *to_dir, uint64_t first, uint64_t next)
{
    int from = open(from_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), to = open(to_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char from_path[SEGMENT_PATH_SIZE], to_path[SEGMENT_PATH_SIZE];
    struct segment_names names = { 0 };
    int r = from < 0 || to < 0 ? -errno : segment_names_read(&names, from);

    for (size_t i = 0; i < names.count && r == 0; i++) {
        segment_path(from_path, names.at[i].number);
        segment_path(to_path, next + (names.at[i].number - first));
        if (faccessat(to, to_path, F_OK, 0) == 0)
            r = UV_EEXIST;
        else if (io->renameat(from, from_path, to, to_path) < 0)
            r = -errno;
    }
    if (r == 0 && (io->fsync(to) < 0 || io->fsync(from) < 0))
        r = -errno;
    segment_names_free(&names);
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    return r;
}

static void adopt(struct spool_call *call, const char *from, const char *from_dir, struct spool_place from_place,
                  const struct sink_settings *to, const char *to_dir, struct spool_place to_place)
{
    struct spool_look from_look, to_look;
    struct pen_error err = { 0 };
    int r = spool_look(&from_look, from_dir, from_place);  /* again: both were cleaned up by opening */

    if (r == 0)
        r = spool_look(&to_look, to_dir, to_place);
    if (r == 0 && !adopt_fits(call, from, &from_look, to, to_look.bytes))
        return;
    if (to_look.next == 0)
        to_look.next = 1;
    /* What was settled of the first segment stays so if it comes first; behind others it is sent again. */
    if (r == 0 && to_look.segments == 0 && from_place.segment == from_look.first)
        r = adopt_place(call, to->name, (struct spool_place){ to_look.next, from_place.offset }, &err);
    if (r == 0)
        r = adopt_segments(from_dir, to_dir, from_look.first, to_look.next);
    if (r < 0)
        complain(call, from, err.text[0] != '\0' ? err.text : uv_strerror(r));
    else if (call->json)
        printf("{\"from\":\"%s\",\"to\":\"%s\",\"messages\":%" PRIu64 "}\n", from, to->name, from_look.messages);
    else
        printf("%s: %" PRIu64 " message%s go to %s now\n", from, from_look.messages, from_look.messages == 1 ? "" : "s", to->name);
    if (r == 0)
        (void)rmdir(from_dir);                     /* stays, if something was set aside in it */
}

static void spool_adopt(struct spool_call *call, char **words)
{
    const struct sink_settings *to = sink_settings(call, words[1]);
    struct spool_place from_place, to_place;
    struct spool *from_spool = NULL, *to_spool = NULL;
    struct pen_error err = { 0 };
    struct spool_look look;
    char *from_dir, *to_dir;

    if (to == NULL || spools_is_configured(call->settings, words[0])) {
        complain(call, to == NULL ? words[1] : words[0], to == NULL
                 ? "there is no such sink in the configuration" : "it is in the configuration: its messages go where it says");
        return;
    }
    if (!spool_find(call, words[0], &from_dir, &from_place, &look))
        return;
    to_dir = spools_dir(call->state_dir, words[1]);
    become_owner(call);
    if (!adopt_fits(call, words[0], &look, to, 0))
        goto out;
    if (spools_place(&to_place, call->state_dir, words[1], &err) < 0)
        complain(call, words[1], err.text);
    else
        to_spool = spool_take(call, words[1], to_dir, to_place, to->spool_max);
    if (to_spool != NULL)
        from_spool = spool_take(call, words[0], from_dir, from_place, UINT64_MAX);
    if (from_spool != NULL)
        adopt(call, words[0], from_dir, from_place, to, to_dir, to_place);
out:
    spool_close(from_spool);
    spool_close(to_spool);
    free(from_dir);
    free(to_dir);
}

/* ---- The command ---- */

static const struct action {
    const char *name;
    void (*run)(struct spool_call *call, char **words);            /* NULL-ended */
    int words_min, words_max;
    bool yes, output;                /* takes these options */
} actions[] = {
    { "list", spool_list, 0, 0, false, false }, { "check", spool_check, 0, 1, false, false },
    { "export", spool_export, 1, 1, false, true }, { "drop", spool_drop, 1, 1, true, false },
    { "adopt", spool_adopt, 2, 2, false, false },
};
#define ACTIONS (sizeof(actions) / sizeof(*actions))

static int call_options(struct spool_call *call, int argc, char **argv)
{
    const struct word words[] = {
        { "config", 'c', &call->config, NULL }, { "state-dir", '\0', &call->state_dir, NULL },
        { "json", '\0', NULL, &call->json }, { "yes", '\0', NULL, &call->yes },
        { "output", '\0', &call->output, NULL }, { 0 },
    };

    return words_read(argc, argv, words, usage);
}

static void on_mistake(void *arg, const char *file, unsigned line, const char *sentence)
{
    (void)arg;
    fprintf(stderr, "%s:%u: %s\n", file, line, sentence);
}

static int call_open(struct spool_call *call)
{
    struct pen_error err = { 0 };

    if (settings_read(&call->settings, call->config, on_mistake, NULL, &err) < 0) {
        fprintf(stderr, "penstock spool: %s\n", err.text);
        return 2;
    }
    if (call->state_dir == NULL)
        call->state_dir = call->settings->daemon.state_dir;
    /* Without keys there is still much to see. */
    if (call->settings->daemon.key_file != NULL && keys_read(&call->keys, call->settings->daemon.key_file, &err) < 0)
        fprintf(stderr, "penstock spool: %s\n", err.text);
    return 0;
}

int command_spool(int argc, char **argv)
{
    struct spool_call call = { .config = "/etc/penstock/penstock.conf" };
    const struct action *action = actions;
    int status = call_options(&call, argc, argv), words = argc - optind - 1;

    if (status >= 0)
        return status;
    while (words >= 0 && action < actions + ACTIONS && strcmp(action->name, argv[optind]) != 0)
        action++;
    if (words < 0 || action == actions + ACTIONS || words < action->words_min || words > action->words_max ||
        (call.yes && !action->yes) || (call.output != NULL && !action->output)) {
        fputs(usage, stderr);
        return 2;
    }
    call.status = call_open(&call);
    if (call.status == 0)
        action->run(&call, argv + optind + 1);
    keys_free(call.keys);
    settings_free(call.settings);
    return call.status;
}
