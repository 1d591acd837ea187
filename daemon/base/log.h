/*
 * log.h - one line per thing that happened, for the operator: `key=value … msg="…"`.
 *
 * On a terminal or a pipe: time, level, line, on stderr. Where stderr is the journal's (JOURNAL_STREAM): priority prefix `<4>`
 * and no time; after log_to_journal() journald gets the same line with its keys as fields, PENSTOCK_SINK=…. Values are quoted
 * and escaped in the line; control characters never reach the terminal. Never pass contents or secrets.
 */
#ifndef DAEMON_LOG_H
#define DAEMON_LOG_H

#include <stdbool.h>
#include <stddef.h>

enum log_level { LOG_ERROR = 3, LOG_WARN = 4, LOG_NOTE = 6, LOG_TRACE = 7 };

/* Keys and values alternate, all strings, ended by NULL: log_line(LOG_NOTE, "flow paused", "sink", name, NULL). */
void log_line(enum log_level level, const char *msg, ...) __attribute__((sentinel));
/* The same from an array, for a caller that does not know how many there will be: key, value, …, NULL. */
void log_pairs(enum log_level level, const char *msg, const char *const *pairs);
void log_set_level(enum log_level level);
/* While a line of progress stands on the terminal, without its end: what is logged takes its place. */
void log_over_progress(bool over);
/* Fields for the journal, from here on, if stderr is the journal's. Not before a service is up: journald finds out by
 * /proc/PID whose a message with fields is, too late for one that said why it cannot start and is gone; stderr's it knows. */
void log_to_journal(void);
/* For numbers in a call: formats into one of a few static slots of the calling thread. */
const char *log_number(unsigned long long value);
/* Bytes of the UTF-8 character at the text's beginning; 0 where it is none, or one that steers a terminal: controls, line and
 * paragraph separators, and the marks that turn the direction of writing. */
size_t log_character(const char *text, size_t size);

#endif
