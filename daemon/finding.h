/*
 * finding.h - what was found out about a far end, one sentence each, which says what to change where something is wrong.
 */
#ifndef DAEMON_FINDING_H
#define DAEMON_FINDING_H

enum finding {
    FINDING_GOOD,
    FINDING_UNKNOWN,                 /* it could not be looked at, or judged */
    FINDING_WRONG,
};

typedef void (*finding_tell)(void *arg, enum finding finding, const char *sentence);

#endif
