/* run.c - `penstock run`: the daemon, in the foreground. */
#include "daemon/base/log.h"
#include "daemon/command/commands.h"
#include "daemon/command/service.h"
#include "daemon/command/words.h"

#include <getopt.h>
#include <stdio.h>

static const char usage[] =
    "Usage: penstock run [-c FILE]\n"
    "Reads the configured sources and delivers to the configured sinks until SIGTERM.\n"
    "\n"
    "  -c, --config FILE   configuration (default /etc/penstock/penstock.conf)\n"
    "  -h, --help          this text\n"
    "\n"
    "SIGHUP reads the configuration again, as `penstock reload` has it; SIGUSR1 prints the counters. Exit: 0 stopped, 1 failed, 2 wrong use or configuration.\n";

int command_run(int argc, char **argv)
{
    const char *path = "/etc/penstock/penstock.conf";
    const struct word words[] = { { "config", 'c', &path, NULL }, { 0 } };
    struct settings *settings;
    struct pen_error err = { 0 };
    int status;

    status = words_read(argc, argv, words, usage);
    if (status >= 0)
        return status;
    if (optind < argc) {
        fprintf(stderr, "penstock run: there is nothing to do with \"%s\"\n%s", argv[optind], usage);
        return 2;
    }
    if (settings_read(&settings, path, service_report, NULL, &err) < 0) {
        fprintf(stderr, "penstock: %s\n", err.text);
        return 2;
    }
    status = service_run(&(struct service_conf){ .settings = settings, .path = path, .state_dir = settings->daemon.state_dir });
    settings_free(settings);
    return status;
}
