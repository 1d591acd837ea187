/*
 * glob.h - which files a source means: absolute patterns, and listing one folder by them.
 *
 * A pattern is a path whose parts may hold `*`, `?` and `[…]`, none of which crosses a slash; a part `**` stands for any
 * number of folders, none too. Names that start with a dot are met only by parts that start with one.
 *
 * There is no recursion in here: a walk is the caller's stack of folders, each listed in slices of bounded size on a
 * worker thread, so that 100,000 entries block nobody. Links to files are followed; links to folders only where no `**`
 * stands before them, which is what keeps a walk finite.
 */
#ifndef DAEMON_GLOB_H
#define DAEMON_GLOB_H

#include "parsers/parser.h"

#include <sys/stat.h>

#define GLOB_PARTS_MAX 62            /* of one pattern */
#define GLOB_DEPTH_MAX 64            /* folders deep, under `**` */

struct glob;

int glob_new(struct glob **ret, const struct pen_list *patterns, struct pen_error *err);
void glob_free(struct glob *glob);                                 /* copes with NULL */
bool glob_matches(const struct glob *glob, const char *path);      /* as a file */
bool glob_enters(const struct glob *glob, const char *path);       /* as a folder: could a file below it match? */

struct glob_entry {
    char *path;                      /* the taker's to free */
    struct stat st;                  /* of what a link points at */
};

struct glob_list;

/* Starts listing a folder. `exclude` (may be NULL) takes out files and whole folders. Blocking, as the next two. */
int glob_list_open(struct glob_list **ret, const struct glob *glob, const struct glob *exclude, bool links,
                   const char *folder);
/* Up to max entries: regular files that match and folders that may hold some. 0 at the end. */
size_t glob_list_next(struct glob_list *list, struct glob_entry *entries, size_t max);
/* Closes; returns the first trouble met on the way, or 0. Copes with NULL. */
int glob_list_close(struct glob_list *list);

#endif
