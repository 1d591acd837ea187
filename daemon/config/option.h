/*
 * option.h - one row of settings and one text: the text's value, or what was expected of it.
 */
#ifndef DAEMON_OPTION_H
#define DAEMON_OPTION_H

#include "daemon/base/buf.h"

/* Puts the text's value where the row says; what it needs beyond that comes from the arena. A text that does not fit leaves
 * `into` untouched and says in err what was expected ("expected a size from 16M to 1T, such as 64M"); it never repeats the
 * text. PEN_PAIRS rows are the caller's. */
int option_set(const struct pen_option *row, const char *text, void *into, struct arena *arena, struct pen_error *err);
/* No text and no fallback: zero. */
void option_clear(const struct pen_option *row, void *into);

/* Bytes of the struct that the rows fill: enough to try them on. */
size_t option_extent(const struct pen_option *rows);

/* What a value of this row looks like, for people: "size, 16M to 1T". */
void option_describe(const struct pen_option *row, struct buf *out);

/* The nearest of the words by edit distance, or NULL where none is near. */
const char *option_nearest(const char *word, const char *const *words, size_t count);

#endif
