/* check_online.h - `penstock check --online`: what only the far ends know. */
#ifndef DAEMON_CHECK_ONLINE_H
#define DAEMON_CHECK_ONLINE_H

#include "daemon/config/settings.h"

/* Asks every source and sink in turn and prints what was found, a line each, on stdout. The exit status: 1 where something is
 * wrong. Where something could not be looked at, that is said, and no failure. */
int check_online(const struct settings *settings, bool send_test_record);

#endif
