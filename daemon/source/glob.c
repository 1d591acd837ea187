/*
 * glob.c - patterns as small automata.
 *
 * A pattern is split at its slashes. The state after some parts of a path is a set of bits: bit i says "parts i and on are
 * still to match". One step takes the next name of the path. A `**` keeps its own bit and lets the next one in as well, so
 * a match costs parts times names, whatever the pattern. Bit `count` says "all of it": the path matches. Matching one
 * path and listing one folder are the same steps.
 */
#include "daemon/source/glob.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

enum part_kind { PART_LITERAL, PART_WILD, PART_FOLDERS };

struct part {
    enum part_kind kind;
    char *text;
};

struct pattern {
    struct part parts[GLOB_PARTS_MAX];
    unsigned count;
};

struct glob {
    struct pattern *patterns;
    size_t count;
};

/* ---- Compiling ------------------------------------------------------------------------------------------------- */

static void pattern_add(struct pattern *pattern, const char *text, size_t size)
{
    struct part *part = &pattern->parts[pattern->count++];

    part->text = strndup(text, size);
    if (strcmp(part->text, "**") == 0)
        part->kind = PART_FOLDERS;
    else if (strpbrk(part->text, "*?[\\") != NULL)
        part->kind = PART_WILD;
    else
        part->kind = PART_LITERAL;
}

static int pattern_compile(struct pattern *pattern, const char *text, struct pen_error *err)
{
    const char *at = text;

    if (text[0] != '/')
        return pen_error_set(err, UV_EINVAL, "the path \"%s\" is not absolute", text);
    if (text[strlen(text) - 1] == '/')
        return pen_error_set(err, UV_EINVAL, "the path \"%s\" names a folder: files are wanted, such as %s*", text, text);
    for (;;) {
        size_t size;

        at += strspn(at, "/");
        size = strcspn(at, "/");
        if (size == 0)
            break;
        if ((size == 1 && at[0] == '.') || (size == 2 && at[0] == '.' && at[1] == '.'))
            return pen_error_set(err, UV_EINVAL, "the path \"%s\" goes through \".\" or \"..\"", text);
        if (pattern->count == GLOB_PARTS_MAX - 1)
            return pen_error_set(err, UV_EINVAL, "the path \"%.60s…\" has more than %d parts", text, GLOB_PARTS_MAX - 1);
        pattern_add(pattern, at, size);
        at += size;
    }
    /* A pattern that ends in any number of folders means the files in them. */
    if (pattern->parts[pattern->count - 1].kind == PART_FOLDERS)
        pattern_add(pattern, "*", 1);
    return 0;
}

int glob_new(struct glob **ret, const struct pen_list *patterns, struct pen_error *err)
{
    struct glob *glob = calloc(1, sizeof *glob);
    int r;

    glob->patterns = calloc(patterns->count + 1, sizeof *glob->patterns);
    for (; glob->count < patterns->count; glob->count++) {
        r = pattern_compile(&glob->patterns[glob->count], patterns->items[glob->count], err);
        if (r < 0) {
            glob->count++;
            goto fail;
        }
    }
    *ret = glob;
    return 0;
fail:
    glob_free(glob);
    return r;
}

void glob_free(struct glob *glob)
{
    if (glob == NULL)
        return;
    for (size_t i = 0; i < glob->count; i++)
        for (unsigned part = 0; part < glob->patterns[i].count; part++)
            free(glob->patterns[i].parts[part].text);
    free(glob->patterns);
    free(glob);
}

/* ---- Matching -------------------------------------------------------------------------------------------------- */

/* A `**` may stand for no folder at all, so whoever waits before it also waits behind it. */
static uint64_t pattern_close(const struct pattern *pattern, uint64_t state)
{
    for (unsigned i = 0; i < pattern->count; i++)
        if ((state >> i & 1) != 0 && pattern->parts[i].kind == PART_FOLDERS)
            state |= UINT64_C(2) << i;
    return state;
}

static uint64_t pattern_begin(const struct pattern *pattern)
{
    return pattern_close(pattern, 1);
}

static uint64_t pattern_step(const struct pattern *pattern, uint64_t state, const char *name)
{
    uint64_t next = 0;

    for (unsigned i = 0; i < pattern->count; i++) {
        const struct part *part = &pattern->parts[i];

        if ((state >> i & 1) == 0)
            continue;
        if (part->kind == PART_FOLDERS)
            next |= name[0] == '.' ? 0 : UINT64_C(1) << i;
        else if (part->kind == PART_LITERAL ? strcmp(part->text, name) == 0 : fnmatch(part->text, name, FNM_PERIOD) == 0)
            next |= UINT64_C(2) << i;
    }
    return pattern_close(pattern, next);
}

static bool pattern_complete(const struct pattern *pattern, uint64_t state)
{
    return (state >> pattern->count & 1) != 0;
}

static bool pattern_goes_on(const struct pattern *pattern, uint64_t state)
{
    return (state & ((UINT64_C(1) << pattern->count) - 1)) != 0;
}

static bool pattern_has(const struct pattern *pattern, uint64_t state, enum part_kind kind)
{
    for (unsigned i = 0; i < pattern->count; i++)
        if ((state >> i & 1) != 0 && pattern->parts[i].kind == kind)
            return true;
    return false;
}

/* The state behind a whole path; 0 as well where the path is no proper one. */
static uint64_t pattern_walk(const struct pattern *pattern, const char *path)
{
    uint64_t state = pattern_begin(pattern);
    char name[NAME_MAX + 1];
    unsigned depth = 0;

    for (const char *at = path + strspn(path, "/"); *at != '\0' && state != 0; at += strspn(at, "/")) {
        size_t size = strcspn(at, "/");

        if (size > NAME_MAX || ++depth > GLOB_DEPTH_MAX)
            return 0;
        memcpy(name, at, size);
        name[size] = '\0';
        state = pattern_step(pattern, state, name);
        at += size;
    }
    return state;
}

bool glob_matches(const struct glob *glob, const char *path)
{
    for (size_t i = 0; i < glob->count; i++)
        if (pattern_complete(&glob->patterns[i], pattern_walk(&glob->patterns[i], path)))
            return true;
    return false;
}

bool glob_enters(const struct glob *glob, const char *path)
{
    for (size_t i = 0; i < glob->count; i++)
        if (pattern_goes_on(&glob->patterns[i], pattern_walk(&glob->patterns[i], path)))
            return true;
    return false;
}

/* ---- Listing --------------------------------------------------------------------------------------------------- */

struct glob_list {
    const struct glob *glob, *exclude;
    bool links;
    int trouble;
    int fd;                          /* of the folder */
    DIR *dir;                        /* NULL: every name is known, and asked for one by one */
    size_t next_pattern;             /* then: where to go on */
    unsigned next_part;
    uint64_t *states;                /* behind the folder, per pattern */
    size_t prefix;
    char path[PATH_MAX];             /* the folder's, then with a name behind it */
};

/* A folder of which only known names are wanted need not be readable, nor is its size our trouble. */
static bool list_is_literal(const struct glob_list *list)
{
    for (size_t i = 0; i < list->glob->count; i++)
        if (pattern_has(&list->glob->patterns[i], list->states[i], PART_WILD) ||
            pattern_has(&list->glob->patterns[i], list->states[i], PART_FOLDERS))
            return false;
    return true;
}

int glob_list_open(struct glob_list **ret, const struct glob *glob, const struct glob *exclude, bool links,
                   const char *folder)
{
    struct glob_list *list;
    size_t size = strlen(folder);
    bool literal;

    if (size + 2 > PATH_MAX)
        return UV_ENAMETOOLONG;
    list = calloc(1, sizeof *list);
    list->glob = glob;
    list->exclude = exclude;
    list->links = links;
    list->states = calloc(glob->count + 1, sizeof *list->states);
    for (size_t i = 0; i < glob->count; i++)
        list->states[i] = pattern_walk(&glob->patterns[i], folder);
    memcpy(list->path, folder, size);
    if (size == 0 || folder[size - 1] != '/')
        list->path[size++] = '/';
    list->path[size] = '\0';
    list->prefix = size;

    literal = list_is_literal(list);
    list->fd = open(list->path, (literal ? O_PATH : O_RDONLY) | O_DIRECTORY | O_CLOEXEC);
    if (list->fd < 0)
        goto fail;
    if (!literal) {
        list->dir = fdopendir(list->fd);
        if (list->dir == NULL)
            goto fail;
    }
    *ret = list;
    return 0;
fail:
    list->trouble = -errno;
    return glob_list_close(list);
}

int glob_list_close(struct glob_list *list)
{
    int trouble;

    if (list == NULL)
        return 0;
    trouble = list->trouble;
    if (list->dir != NULL)
        closedir(list->dir);
    else if (list->fd >= 0)
        close(list->fd);
    free(list->states);
    free(list);
    return trouble;
}

static void list_blame(struct glob_list *list, int trouble)
{
    if (list->trouble == 0)
        list->trouble = trouble;
}

/* The next name worth a look: from the folder itself, or from the patterns where they know it already. */
static const char *list_next_name(struct glob_list *list, unsigned char *type)
{
    *type = DT_UNKNOWN;
    if (list->dir != NULL) {
        struct dirent *entry;

        errno = 0;
        entry = readdir(list->dir);
        if (entry == NULL) {
            list_blame(list, -errno);
            return NULL;
        }
        *type = entry->d_type;
        return entry->d_name;
    }
    for (; list->next_pattern < list->glob->count; list->next_pattern++, list->next_part = 0) {
        const struct pattern *pattern = &list->glob->patterns[list->next_pattern];

        while (list->next_part < pattern->count) {
            unsigned part = list->next_part++;

            if ((list->states[list->next_pattern] >> part & 1) != 0)
                return pattern->parts[part].text;
        }
    }
    return NULL;
}

struct wanted {
    bool file, folder, linked_folder;
};

static struct wanted list_wants(const struct glob_list *list, const char *name)
{
    struct wanted wanted = { 0 };

    for (size_t i = 0; i < list->glob->count; i++) {
        const struct pattern *pattern = &list->glob->patterns[i];
        uint64_t state = pattern_step(pattern, list->states[i], name);

        wanted.file |= pattern_complete(pattern, state);
        if (pattern_goes_on(pattern, state)) {
            wanted.folder = true;
            wanted.linked_folder |= !pattern_has(pattern, list->states[i], PART_FOLDERS);
        }
    }
    return wanted;
}

/* True: what the name stands for is wanted, and st tells of it. list->path is the whole path then. */
static bool list_take(struct glob_list *list, const char *name, unsigned char type, struct stat *st)
{
    struct wanted wanted = list_wants(list, name);
    size_t size = strlen(name);
    bool link;

    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || (!wanted.file && !wanted.folder))
        return false;
    if ((type == DT_REG && !wanted.file) || (type == DT_DIR && !wanted.folder))
        return false;
    if (list->prefix + size >= PATH_MAX) {
        list_blame(list, UV_ENAMETOOLONG);
        return false;
    }
    memcpy(list->path + list->prefix, name, size + 1);
    if (fstatat(list->dir != NULL ? dirfd(list->dir) : list->fd, name, st, AT_SYMLINK_NOFOLLOW) < 0)
        goto fail;
    link = S_ISLNK(st->st_mode);
    if (link && !list->links)
        return false;
    if (link && fstatat(list->dir != NULL ? dirfd(list->dir) : list->fd, name, st, 0) < 0)
        goto fail;
    if (!(S_ISREG(st->st_mode) ? wanted.file : S_ISDIR(st->st_mode) && (link ? wanted.linked_folder : wanted.folder)))
        return false;
    return list->exclude == NULL || !glob_matches(list->exclude, list->path);
fail:
    /* Gone since it was listed, or a link to nowhere: not there, which is no trouble. */
    if (errno != ENOENT)
        list_blame(list, -errno);
    return false;
}

size_t glob_list_next(struct glob_list *list, struct glob_entry *entries, size_t max)
{
    unsigned char type;
    const char *name;
    size_t count = 0;

    assert(max > 0);
    while (count < max && (name = list_next_name(list, &type)) != NULL) {
        struct glob_entry *entry = &entries[count];

        if (!list_take(list, name, type, &entry->st))
            continue;
        entry->path = strdup(list->path);
        count++;
    }
    return count;
}
