/* azure_walk.c - see azure_walk.h. */
#include "daemon/source/azure_walk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define FRAMES_MAX 100000            /* depth times folders of a page; no real container comes near it */

static void frame_free(struct walk_frame *frame)
{
    free(frame->prefix);
    free(frame->marker);
}

static void frames_push(struct walk_frame **frames, size_t *count, size_t *capacity, struct walk_frame frame)
{
    if (*count == *capacity) {
        *capacity = *capacity > 0 ? *capacity * 2 : 8;
        *frames = realloc(*frames, *capacity * sizeof **frames);
        if (*frames == NULL)
            abort();
    }
    (*frames)[(*count)++] = frame;
}

static char *copied(const char *text, size_t size)
{
    char *copy = strndup(text, size);

    if (copy == NULL)
        abort();
    return copy;
}

void walk_init(struct walk *walk, struct storage *storage, unsigned page, const struct walk_events *events, void *arg)
{
    *walk = (struct walk){ .storage = storage, .page = page, .events = events, .arg = arg };
}

void walk_add(struct walk *walk, const char *prefix, size_t size, bool folders)
{
    assert(walk->request == NULL);
    frames_push(&walk->frames, &walk->count, &walk->capacity,
                (struct walk_frame){ .prefix = copied(prefix, size), .folders = folders });
}

bool walk_is_done(const struct walk *walk)
{
    return walk->count == 0;
}

bool walk_is_under_way(const struct walk *walk)
{
    return walk->request != NULL;
}

static void walk_forget_found(struct walk *walk)
{
    while (walk->found_count > 0)
        frame_free(&walk->found[--walk->found_count]);
}

void walk_drop(struct walk *walk)
{
    if (walk->request != NULL)
        storage_cancel(walk->request);
    walk_forget_found(walk);
    while (walk->count > 0)
        frame_free(&walk->frames[--walk->count]);
    free(walk->frames);
    free(walk->found);
    walk->frames = walk->found = NULL;
    walk->capacity = walk->found_capacity = 0;
    walk->request = NULL;
}

static void on_blob(void *arg, const struct storage_blob *blob)
{
    struct walk *walk = arg;

    walk->events->on_blob(walk->arg, blob);
}

static void on_folder(void *arg, const char *folder)
{
    struct walk *walk = arg;
    enum walk_choice choice = walk->events->on_folder(walk->arg, folder);

    if (choice != WALK_SKIP && walk->count + walk->found_count < FRAMES_MAX)
        frames_push(&walk->found, &walk->found_count, &walk->found_capacity,
                    (struct walk_frame){ .prefix = copied(folder, strlen(folder)), .folders = choice == WALK_INTO });
}

/* The rest of this listing comes after the folders of its page, the first of which comes next. */
static void walk_take(struct walk *walk, const char *marker)
{
    struct walk_frame *top = &walk->frames[walk->count - 1];

    free(top->marker);
    top->marker = NULL;
    if (*marker != '\0') {
        top->marker = copied(marker, strlen(marker));
    } else {
        frame_free(top);
        walk->count--;
    }
    while (walk->found_count > 0)
        frames_push(&walk->frames, &walk->count, &walk->capacity, walk->found[--walk->found_count]);
}

static void on_done(void *arg, const struct storage_answer *answer)
{
    struct walk *walk = arg;

    walk->request = NULL;
    if (answer->verdict == STORAGE_OK)
        walk_take(walk, answer->marker);
    else
        walk_forget_found(walk);
    walk->events->on_step(walk->arg, answer);
}

void walk_step(struct walk *walk)
{
    const struct walk_frame *top = &walk->frames[walk->count - 1];

    assert(walk->count > 0 && walk->request == NULL);
    walk->request = storage_list(walk->storage, &(struct storage_list){
        .prefix = top->prefix, .folders = top->folders, .marker = top->marker, .max = walk->page, .on_blob = on_blob,
        .on_folder = on_folder,
    }, on_done, walk);
}
