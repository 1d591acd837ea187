/*
 * status_command.c - `penstock status` and `penstock top`: ask the running daemon, by the socket in its state folder.
 *
 * The socket belongs to the daemon's user: root and that user may ask.
 */
#include "daemon/command/ask.h"
#include "daemon/command/commands.h"
#include "daemon/command/words.h"
#include "daemon/config/settings.h"
#include "daemon/replay/replay_job.h"
#include "daemon/status/status_view.h"

#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define ANSWER_SECONDS 10
#define EVERY_MS 1000

static const char status_usage[] =
    "Usage: penstock status [OPTION...]\n"
    "Asks the running daemon: sources with their lag, sinks with their state, spools, dead letters; and lists the replays that run or\n"
    "were stopped. As root or the daemon's user.\n"
    "\n"
    "  -c, --config FILE   the daemon's configuration (default /etc/penstock/penstock.conf)\n"
    "      --json          all of it as one JSON object\n"
    "  -h, --help          this text\n"
    "\n"
    "Colours on a terminal, unless NO_COLOR is set. Exit: 0 ready, 1 not ready or no answer, 2 wrong use or configuration.\n";

static const char top_usage[] =
    "Usage: penstock top [OPTION...]\n"
    "`penstock status` again and again, with rates; q or Ctrl-C ends it. Not on a terminal, one after the other.\n"
    "\n"
    "  -c, --config FILE   the daemon's configuration (default /etc/penstock/penstock.conf)\n"
    "  -h, --help          this text\n"
    "\n"
    "Exit: 0 ended, 1 no answer, 2 wrong use or configuration.\n";

/* ---- Both commands ---- */

static bool answer_is_ready(const struct answer *answer)
{
    const struct pen_json flag = pen_json_get(&answer->root, "ready");
    bool ready = false;

    return pen_json_bool(&flag, &ready) && ready;
}

static unsigned wants_colour(void)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

    return isatty(STDOUT_FILENO) && (no == NULL || *no == '\0') && (term == NULL || strcmp(term, "dumb") != 0) ? VIEW_COLOUR : 0;
}

/* The daemon's own object, with the replays beside it as one more member. */
static void json_print(const struct answer *answer, const char *state_dir, struct buf *out)
{
    size_t size = answer->body.size;

    while (size > 0 && answer->body.data[size - 1] != '}')
        size--;
    buf_add(out, answer->body.data, size > 0 ? size - 1 : 0);
    BUF_LITERAL(out, ",\"replays\":");
    replay_jobs_json(state_dir, out);
    BUF_LITERAL(out, "}\n");
}

/* Negative: go on. */
static int call_read(int argc, char **argv, const struct word *words, const char *usage, const char *const *path,
                     char **state_dir)
{
    struct pen_error err = { 0 };
    int status = words_read(argc, argv, words, usage);

    if (status >= 0)
        return status;
    if (optind < argc) {
        fprintf(stderr, "penstock %s: there is nothing to do with \"%s\"\n%s", argv[0], argv[optind], usage);
        return 2;
    }
    if (settings_state_dir(state_dir, *path, &err) < 0) {
        fprintf(stderr, "penstock %s: %s\n", argv[0], err.text);
        return 2;
    }
    return -1;
}

int command_status(int argc, char **argv)
{
    const char *path = "/etc/penstock/penstock.conf";
    bool json = false;
    const struct word words[] = { { "config", 'c', &path, NULL }, { "json", 0, NULL, &json }, { 0 } };
    struct answer answer = { 0 };
    struct buf view = { 0 };
    struct pen_error err = { 0 };
    char *state_dir;
    int status = call_read(argc, argv, words, status_usage, &path, &state_dir);

    if (status >= 0)
        return status;
    if (answer_get(&answer, state_dir, ANSWER_SECONDS, &err) < 0) {
        fprintf(stderr, "penstock status: %s\n", err.text);
        status = 1;
    } else {
        if (json)
            json_print(&answer, state_dir, &view);
        else
            status_view(&answer.root, NULL, wants_colour(), &view);
        status = answer_is_ready(&answer) ? 0 : 1;
    }
    if (!json)
        replay_jobs_view(state_dir, &view);
    if (view.size > 0)
        fwrite(view.data, 1, view.size, stdout);
    buf_free(&view);
    answer_free(&answer);
    free(state_dir);
    return status;
}

/* ---- top ---- */

static volatile sig_atomic_t ended;

static void on_end(int number)
{
    (void)number;
    ended = 1;
}

/* The screen is ours until screen_leave(): keys come one by one, lines are cut at the right edge. */
static bool screen_enter(struct termios *before)
{
    struct termios raw;

    if (!isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, before) != 0)
        return false;
    raw = *before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    (void)signal(SIGTSTP, SIG_IGN);                /* stopped, it would leave the terminal like this */
    fputs("\033[?1049h\033[?25l\033[?7l", stdout);
    return true;
}

static void screen_leave(const struct termios *before)
{
    fputs("\033[?7h\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    (void)tcsetattr(STDIN_FILENO, TCSANOW, before);
}

/* As many lines as there is room for, each cleared to its end, and nothing below. */
static void screen_draw(const struct buf *view)
{
    struct winsize size = { 0 };
    size_t rows, at = 0;

    (void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    rows = size.ws_row > 0 ? size.ws_row : 24;
    fputs("\033[H", stdout);
    for (size_t row = 1; row < rows && at < view->size; row++) {
        const char *end = memchr(view->data + at, '\n', view->size - at);
        size_t length = end != NULL ? (size_t)(end - view->data) - at : view->size - at;

        fwrite(view->data + at, 1, length, stdout);
        fputs("\033[K\n", stdout);
        at += length + 1;
    }
    fputs("\033[J", stdout);
    fflush(stdout);
}

/* True: a q was pressed, or a signal came. Where there is no keyboard it only waits. */
static bool top_wait(bool screen)
{
    struct pollfd keys = { .fd = screen ? STDIN_FILENO : -1, .events = POLLIN };
    char key;

    if (poll(&keys, 1, EVERY_MS) > 0 && (read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q'))
        return true;
    return ended != 0;
}

static int top_run(const char *state_dir, bool screen)
{
    struct answer answers[2] = { 0 };
    struct pen_error err = { 0 };
    struct buf view = { 0 };
    bool first = true;
    int status = 0;

    for (unsigned turn = 0;; turn++) {
        struct answer *now = &answers[turn % 2], *before = &answers[(turn + 1) % 2];

        view.size = 0;
        if (answer_get(now, state_dir, ANSWER_SECONDS, &err) == 0)
            status_view(&now->root, before->there ? &before->root : NULL, wants_colour() | VIEW_RATES, &view);
        else
            buf_text(&view, "penstock top: %s\n", err.text);
        if (!now->there && first) {                /* nobody was ever there */
            status = 1;
            break;
        }
        first = false;
        if (screen) {
            screen_draw(&view);
        } else {
            fwrite(view.data, 1, view.size, stdout);
            fputs("\n", stdout);
            if (fflush(stdout) != 0)
                break;
        }
        if (top_wait(screen))
            break;
    }
    answer_free(&answers[0]);
    answer_free(&answers[1]);
    buf_free(&view);
    return status;
}

int command_top(int argc, char **argv)
{
    const char *path = "/etc/penstock/penstock.conf";
    const struct word words[] = { { "config", 'c', &path, NULL }, { 0 } };
    /* A screen is drawn to its end, or it would be left with an error; a pipe nobody reads is given up in the middle. */
    const struct sigaction end = { .sa_handler = on_end, .sa_flags = isatty(STDOUT_FILENO) ? SA_RESTART : 0 };
    struct termios before;
    bool screen;
    char *state_dir;
    int status = call_read(argc, argv, words, top_usage, &path, &state_dir);

    if (status >= 0)
        return status;
    (void)sigaction(SIGINT, &end, NULL);
    (void)sigaction(SIGTERM, &end, NULL);
    (void)sigaction(SIGHUP, &end, NULL);
    screen = screen_enter(&before);
    status = top_run(state_dir, screen);
    if (screen)
        screen_leave(&before);
    if (status != 0)
        fprintf(stderr, "penstock top: no daemon answers in %s; `penstock status` says why\n", state_dir);
    free(state_dir);
    return status;
}
