/* commands.h - the subcommands: each gets its own argv (argv[0] is its name) and returns the exit status:
 * 0 done, 1 failed, 2 wrong use or configuration. */
#ifndef DAEMON_COMMANDS_H
#define DAEMON_COMMANDS_H

int command_run(int argc, char **argv);
int command_check(int argc, char **argv);
int command_parse(int argc, char **argv);
int command_replay(int argc, char **argv);
int command_dead(int argc, char **argv);
int command_spool(int argc, char **argv);
int command_dcr(int argc, char **argv);
int command_reload(int argc, char **argv);
int command_status(int argc, char **argv);
int command_top(int argc, char **argv);
int command_version(int argc, char **argv);

#endif
