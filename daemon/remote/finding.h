/*
 * finding.h - what was found out about a far end, one sentence each, which says what to change where something is wrong.
 */
#ifndef DAEMON_FINDING_H
#define DAEMON_FINDING_H

#include <stdarg.h>

enum finding {
    FINDING_GOOD,
    FINDING_UNKNOWN,                 /* it could not be looked at, or judged */
    FINDING_WRONG,
};

typedef void (*finding_tell)(void *arg, enum finding finding, const char *sentence);

/* Tells a sentence that is made first; what far ends put into it steers no terminal. */
void finding_say(finding_tell tell, void *arg, enum finding finding, const char *format, va_list args);

#endif
