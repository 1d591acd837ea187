/*
 * azure_walk.h - a walk through the names of a container, one page of a listing at a time, in the order of names.
 *
 * A walk is a stack of what is still to be listed: a prefix, whether folder by folder or all of it, and where its next page
 * begins. Whoever walks takes each step by himself (walk_step), so that pages come no faster than they are dealt with. A
 * step that failed is taken again; what it has told already is told again.
 */
#ifndef DAEMON_SOURCE_AZURE_WALK_H
#define DAEMON_SOURCE_AZURE_WALK_H

#include "daemon/source/azure_storage.h"

enum walk_choice {                   /* what to do about a folder */
    WALK_SKIP,
    WALK_INTO,                       /* look at the folders in it */
    WALK_ALL,                        /* list all of it */
};

struct walk_events {                 /* the first two come while a page does, and start nothing */
    void (*on_blob)(void *arg, const struct storage_blob *blob);
    enum walk_choice (*on_folder)(void *arg, const char *folder);  /* may be NULL where no folders are asked for */
    /* A step was taken, or failed (verdict). walk_is_done() tells whether it was the last. */
    void (*on_step)(void *arg, const struct storage_answer *answer);
};

struct walk_frame {
    char *prefix, *marker;
    bool folders;
};

struct walk {                        /* all private */
    struct storage *storage;
    const struct walk_events *events;
    void *arg;
    unsigned page;                   /* entries asked for at once */
    struct walk_frame *frames, *found;                             /* found: on the page that is under way */
    size_t count, capacity, found_count, found_capacity;
    struct storage_request *request;
};

void walk_init(struct walk *walk, struct storage *storage, unsigned page, const struct walk_events *events, void *arg);
/* To be listed before what was added earlier. */
void walk_add(struct walk *walk, const char *prefix, size_t size, bool folders);
bool walk_is_done(const struct walk *walk);
bool walk_is_under_way(const struct walk *walk);                   /* a step is */
void walk_step(struct walk *walk);
void walk_drop(struct walk *walk);                                 /* cancels, forgets all; may be used again */

#endif
