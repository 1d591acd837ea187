/*
 * version.c - which Penstock this is; and, for its own manual, every setting it knows.
 *
 * `penstock version --options` writes the rows as the part of conf/penstock.conf.5 between its two marks. conf/manual-update puts
 * them in, and the commands' --help into penstock(1) and the shells' completions; a test fails when they differ. So with
 * `penstock version --metrics` and conf/metrics.md.
 */
#include "daemon/command/commands.h"
#include "daemon/config/option.h"
#include "daemon/config/settings.h"
#include "daemon/status/metrics.h"

#include <stdio.h>

/* Text for troff: a backslash is an escape there, a dot or a quote at a line's start a request, and '-' a hyphen. */
static void troff_write(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\\')
            fputs("\\e", stdout);
        else if (text[i] == '-')
            fputs("\\-", stdout);
        else if (i == 0 && (text[i] == '.' || text[i] == '\''))
            printf("\\&%c", text[i]);
        else
            putchar(text[i]);
    }
}

static void troff_line(const char *request, const char *text)
{
    fputs(request, stdout);
    troff_write(text, strlen(text));
    putchar('\n');
}

static void options_print_row(const struct pen_option *row)
{
    struct buf what = { 0 };

    puts(".TP");
    troff_line(".B ", row->name);
    buf_char(&what, '(');
    option_describe(row, &what);
    if (row->required)
        BUF_LITERAL(&what, "; required");
    else if (row->fallback != NULL && *row->fallback != '\0')
        buf_text(&what, "; default %s", row->fallback);
    buf_char(&what, ')');
    troff_write(what.data, what.size);
    putchar('\n');
    buf_free(&what);
    troff_line("", row->help);
}

static void options_print(const char *title, const struct pen_option *rows)
{
    printf(".SS %s\n", title);
    for (; rows != NULL && rows->name != NULL; rows++)
        options_print_row(rows);
}

static void options_print_all(void)
{
    char title[128];

    options_print("[daemon]", daemon_options);
    options_print("[source NAME], every type", source_options);
    for (size_t i = 0; source_types[i] != NULL; i++) {
        (void)snprintf(title, sizeof(title), "[source NAME], type = %s", source_types[i]->name);
        options_print(title, source_types[i]->options);
    }
    options_print("[sink NAME], every type", sink_options);
    for (size_t i = 0; sink_types[i] != NULL; i++) {
        (void)snprintf(title, sizeof(title), "[sink NAME], type = %s", sink_types[i]->name);
        options_print(title, sink_types[i]->options);
    }
}

static void metrics_print(void)
{
    struct buf page = { 0 };

    metrics_explain(&page);
    fwrite(page.data, 1, page.size, stdout);
    buf_free(&page);
}

int command_version(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--options") == 0) {
        options_print_all();
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "--metrics") == 0) {
        metrics_print();
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("Usage: penstock version\n\nPrints the version.");
        return 0;
    }
    if (argc > 1) {
        fputs("penstock version: unknown argument; see --help\n", stderr);
        return 2;
    }
    puts("penstock " PENSTOCK_VERSION);
    return 0;
}
