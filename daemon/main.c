/* main.c - the binary: finds the subcommand, makes the process a safe place for it, and hands over. */
#include "daemon/command/commands.h"
#include "daemon/remote/http.h"
#include "daemon/config/option.h"
#include "daemon/command/service.h"
#include "daemon/base/secret.h"

#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

static int command_help(int argc, char **argv);

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    bool far_end;                    /* it talks to far ends, and holds their secrets */
    const char *help;
} commands[] = {
    { "run", command_run, true, "run the daemon in the foreground" },
    { "check", command_check, true, "read the configuration and report every mistake" },
    { "parse", command_parse, false, "records in, messages out: the pure pipeline" },
    { "replay", command_replay, true, "deliver archived logs through the same pipeline" },
    { "dead", command_dead, true, "list, show, resend and drop messages that far ends have rejected" },
    { "spool", command_spool, true, "list, check, export, drop or move what waits on disk" },
    { "dcr", command_dcr, false, "print the data collection rule and tables that the Sentinel sinks need" },
    { "reload", command_reload, false, "have the running daemon read its configuration again" },
    { "status", command_status, false, "ask the running daemon: sources, sinks, spools, dead letters" },
    { "top", command_top, false, "the same, live" },
    { "version", command_version, false, "print the version" },
    { "help", command_help, false, "print this" },
};
#define COMMANDS (sizeof(commands) / sizeof(*commands))

static void usage(FILE *out)
{
    fputs("Usage: penstock COMMAND [OPTION…]\n\n", out);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-8s  %s\n", commands[i].name, commands[i].help);
    fputs("\n\"penstock COMMAND --help\" tells more. Exit status: 0 done, 1 failed, 2 wrong use or configuration.\n", out);
}

static const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

/* `penstock help COMMAND` is `penstock COMMAND --help`. */
static int command_help(int argc, char **argv)
{
    const struct command *command = argc > 1 ? command_find(argv[1]) : NULL;
    char help[] = "--help";
    char *again[] = { argc > 1 ? argv[1] : NULL, help, NULL };

    if (command != NULL && command->run != command_help)
        return command->run(2, again);
    usage(stdout);
    return 0;
}

static int command_unknown(const char *name)
{
    const char *names[COMMANDS], *near;

    for (size_t i = 0; i < COMMANDS; i++)
        names[i] = commands[i].name;
    near = option_nearest(name, names, COMMANDS);
    if (near != NULL)
        fprintf(stderr, "penstock: unknown command; did you mean \"%s\"?\n", near);
    else
        fputs("penstock: unknown command; \"penstock help\" lists them\n", stderr);
    return 2;
}

/* No core dump and no debugger of the same user may find a token: /proc/self belongs to root from here on. A far end that
 * hangs up is an answer (EPIPE), not our death. */
static int process_harden(void)
{
    const struct rlimit none = { 0, 0 };

    (void)signal(SIGPIPE, SIG_IGN);
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || setrlimit(RLIMIT_CORE, &none) < 0) {
        perror("penstock: cannot forbid core dumps");
        return 1;
    }
    return 0;
}

/* What libraries want done once, before there are threads. Memory that cannot be locked is no reason to stand still. */
static int libraries_init(void)
{
    (void)secret_memory_init();
    if (OPENSSL_init_crypto(0, NULL) != 1 || http_init() < 0) {
        fputs("penstock: cannot start OpenSSL and curl\n", stderr);
        return 1;
    }
    return 0;
}

/* Output that did not arrive is a failure, though its command may not have looked. */
static int output_finish(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    perror("penstock: cannot write the output");
    return status == 0 ? 1 : status;
}

int main(int argc, char **argv)
{
    const struct command *command;

    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
        return output_finish(command_version(1, argv + 1));
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return output_finish(command_help(1, argv + 1));
    command = command_find(argv[1]);
    if (command == NULL)
        return command_unknown(argv[1]);
    if (command->run == command_run || command->run == command_replay)
        service_hold_signals();

    /* State files are for the owner and the group at most; a stricter mask, as the unit's, stays. */
    (void)umask(umask(077) | 027);
    if (command->far_end && (process_harden() != 0 || libraries_init() != 0))
        return 1;
    return output_finish(command->run(argc - 1, argv + 1));
}
