/* run.c - `penstock run`: the daemon, in the foreground. */
#include "daemon/commands.h"
#include "daemon/log.h"
#include "daemon/service.h"

#include <getopt.h>
#include <stdio.h>

static const char usage[] =
    "Usage: penstock run [-c FILE]\n"
    "Reads the configured sources and delivers to the configured sinks until SIGTERM.\n"
    "\n"
    "  -c, --config FILE   configuration (default /etc/penstock/penstock.conf)\n"
    "  -h, --help          this text\n"
    "\n"
    "SIGUSR1 prints the counters. Exit: 0 stopped, 1 failed, 2 wrong use or configuration.\n";

int command_run(int argc, char **argv)
{
    static const struct option options[] = {
        { "config", required_argument, NULL, 'c' }, { "help", no_argument, NULL, 'h' }, { 0 },
    };
    const char *path = "/etc/penstock/penstock.conf";
    struct settings *settings;
    struct pen_error err = { 0 };
    int option, status;

    while ((option = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            path = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "penstock run: there is nothing to do with \"%s\"\n%s", argv[optind], usage);
        return 2;
    }
    if (settings_read(&settings, path, service_report, NULL, &err) < 0) {
        fprintf(stderr, "penstock: %s\n", err.text);
        return 2;
    }
    status = service_run(&(struct service_conf){ .settings = settings, .state_dir = settings->daemon.state_dir });
    settings_free(settings);
    return status;
}
