/*
 * reload_command.c - `penstock reload`: SIGHUP to the running daemon, and then what came of it.
 *
 * The socket in the state folder tells who the daemon is, how many reloads it has begun, and what the last one did; nothing can
 * be set off through it. So whoever may look there still needs the right to send the signal.
 */
#include "daemon/command/ask.h"
#include "daemon/command/commands.h"
#include "daemon/command/words.h"
#include "daemon/config/settings.h"
#include "daemon/pipeline/reload.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANSWER_SECONDS 10
#define LOOK_EVERY_US 50000

static const char usage[] =
    "Usage: penstock reload [OPTION...]\n"
    "Has the running daemon read its configuration again and waits until it holds: what changed is printed, the rest goes on\n"
    "untouched. Or nothing changes, and the reason is printed. As root or the daemon's user.\n"
    "\n"
    "  -c, --config FILE   the daemon's configuration, to find it by (default /etc/penstock/penstock.conf)\n"
    "      --state-dir DIR the daemon's state_dir, in place of that\n"
    "  -h, --help          this text\n"
    "\n"
    "Exit: 0 reloaded, 1 failed or no answer, 2 wrong use, or the configuration is wrong.\n";

/* The page, read. */
struct outcome {
    long pid;
    uint64_t begun, ended;
    int result;
    const char *told;
};

static int outcome_get(struct outcome *outcome, const char *state_dir, struct buf *page, struct pen_error *err)
{
    int version, size = 0, r = ask(state_dir, RELOAD_PAGE, ANSWER_SECONDS, page, err);

    if (r < 0)
        return r;
    buf_char(page, '\0');
    if (sscanf(page->data, "%d %ld %" SCNu64 " %" SCNu64 " %d\n%n", &version, &outcome->pid, &outcome->begun, &outcome->ended,
               &outcome->result, &size) < 5 || version != RELOAD_PAGE_VERSION || outcome->pid <= 1)
        return pen_error_set(err, UV_EIO, "the daemon does not answer as it should: is it another version?");
    outcome->told = page->data + size;
    return 0;
}

/* The one that we have asked for is the next to begin: what it reads is the file as it is now, or newer. */
static int reload(const char *state_dir, struct buf *page, struct outcome *outcome, struct pen_error *err)
{
    uint64_t ours;
    int r = outcome_get(outcome, state_dir, page, err);

    if (r < 0)
        return r;
    ours = outcome->begun + 1;
    if (kill((pid_t)outcome->pid, SIGHUP) < 0)
        return pen_error_set(err, -errno, "the daemon, process %ld, cannot be told: %s", outcome->pid, strerror(errno));
    do {
        (void)usleep(LOOK_EVERY_US);
        r = outcome_get(outcome, state_dir, page, err);
    } while (r == 0 && outcome->ended < ours);
    return r;
}

int command_reload(int argc, char **argv)
{
    const char *path = "/etc/penstock/penstock.conf", *given = NULL;
    const struct word words[] = { { "config", 'c', &path, NULL }, { "state-dir", 0, &given, NULL }, { 0 } };
    struct outcome outcome = { 0 };
    struct pen_error err = { 0 };
    struct buf page = { 0 };
    char *state_dir = NULL;
    int status = words_read(argc, argv, words, usage);

    if (status >= 0)
        return status;
    if (optind < argc) {
        fprintf(stderr, "penstock reload: there is nothing to do with \"%s\"\n%s", argv[optind], usage);
        return 2;
    }
    if (given != NULL && (state_dir = strdup(given)) == NULL)
        abort();
    if (state_dir == NULL && settings_state_dir(&state_dir, path, &err) < 0) {
        fprintf(stderr, "penstock reload: %s\n", err.text);
        return 2;
    }
    if (reload(state_dir, &page, &outcome, &err) < 0) {
        fprintf(stderr, "penstock reload: %s\n", err.text);
        status = 1;
    } else {
        fputs(outcome.told, outcome.result == 0 ? stdout : stderr);
        if (outcome.result != 0)
            fputs("penstock reload: nothing has changed, the configuration from before goes on\n", stderr);
        status = outcome.result;
    }
    buf_free(&page);
    free(state_dir);
    return status;
}
