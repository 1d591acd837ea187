/*
 * disk_io.c - see disk_io.h.
 *
 * A node is a file or folder with what of it is synced: `bytes` or `names`. The log stands behind that. The live names, by
 * which calls are understood, are those of the real folder, kept per node as well.
 */
#include "crash/disk_io.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECTOR 512u
#define FDS_MAX 1024
#define NOT_OURS (-1)
#define ROOT 0

enum kind { WRITE, SIZE, SYNC, FORGET, LINK, UNLINK, RENAME, NOTE };

struct step {
    enum kind kind;
    int node;                        /* of which a change is pending until a SYNC of it: for names, the folder */
    uint64_t offset, size;           /* WRITE; SIZE */
    unsigned char *data;             /* WRITE, owned */
    char *name, *to;                 /* LINK, UNLINK, RENAME (within one folder), owned */
    int linked;                      /* LINK: the node */
    struct disk_note note;
};

struct name {
    char *name;
    int node;
};
struct names {
    struct name *at;
    size_t count;
};

struct node {
    bool folder;
    unsigned char *bytes;
    uint64_t size, capacity;
    struct names names, live;
};

struct disk {
    char *dir;
    struct node *nodes;
    int node_count;
    struct step *steps;
    size_t step_count, first;
    int fds[FDS_MAX];                /* node, or NOT_OURS */
    pthread_mutex_t lock;
};

static struct disk *used;

/* ---- Memory ---- */

static void *grown(void *array, size_t count, size_t item)
{
    if ((count & (count - 1)) != 0)                /* doubles whenever the count is a power of two */
        return array;
    array = realloc(array, (count > 0 ? 2 * count : 1) * item);
    if (array == NULL)
        abort();
    return array;
}

static void *copied(const void *from, size_t size)
{
    void *copy = malloc(size + 1);

    if (copy == NULL)
        abort();
    if (size > 0)
        memcpy(copy, from, size);
    ((char *)copy)[size] = '\0';
    return copy;
}

/* ---- Names ---- */

static int names_find(const struct names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->at[i].name, name) == 0)
            return (int)i;
    return -1;
}

static void names_remove(struct names *names, const char *name)
{
    int i = names_find(names, name);

    if (i < 0)
        return;
    free(names->at[i].name);
    names->at[i] = names->at[--names->count];
}

static void names_put(struct names *names, const char *name, int node)
{
    names_remove(names, name);
    names->at = grown(names->at, names->count, sizeof(*names->at));
    names->at[names->count++] = (struct name){ copied(name, strlen(name)), node };
}

static void names_copy(struct names *to, const struct names *from)
{
    for (size_t i = 0; i < from->count; i++)
        names_put(to, from->at[i].name, from->at[i].node);
}

static void names_free(struct names *names)
{
    while (names->count > 0)
        names_remove(names, names->at[0].name);
    free(names->at);
    *names = (struct names){ 0 };
}

/* ---- Nodes and steps ---- */

static int node_add(struct disk *disk, bool folder)
{
    disk->nodes = grown(disk->nodes, (size_t)disk->node_count, sizeof(*disk->nodes));
    disk->nodes[disk->node_count] = (struct node){ .folder = folder };
    return disk->node_count++;
}

static void step_add(struct disk *disk, struct step step)
{
    disk->steps = grown(disk->steps, disk->step_count, sizeof(*disk->steps));
    disk->steps[disk->step_count++] = step;
}

static void step_copy(struct disk *disk, const struct step *from)
{
    struct step step = *from;

    if (from->data != NULL)
        step.data = copied(from->data, from->size);
    if (from->name != NULL)
        step.name = copied(from->name, strlen(from->name));
    if (from->to != NULL)
        step.to = copied(from->to, strlen(from->to));
    step_add(disk, step);
}

static struct disk *disk_alloc(const char *dir)
{
    struct disk *disk = calloc(1, sizeof(*disk));

    if (disk == NULL)
        abort();
    disk->dir = copied(dir, strlen(dir));
    for (int i = 0; i < FDS_MAX; i++)
        disk->fds[i] = NOT_OURS;
    pthread_mutex_init(&disk->lock, NULL);
    return disk;
}

static void disk_load(struct disk *disk, int node, const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    char child[PATH_MAX];
    struct stat st;
    int fd, added;

    assert(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
        fd = open(child, O_RDONLY | O_CLOEXEC);
        assert(fd >= 0 && fstat(fd, &st) == 0);
        added = node_add(disk, S_ISDIR(st.st_mode));
        names_put(&disk->nodes[node].names, entry->d_name, added);
        names_put(&disk->nodes[node].live, entry->d_name, added);
        if (S_ISDIR(st.st_mode)) {
            disk_load(disk, added, child);
        } else {
            disk->nodes[added].size = (uint64_t)st.st_size;
            disk->nodes[added].capacity = (uint64_t)st.st_size + 1;
            disk->nodes[added].bytes = malloc((size_t)st.st_size + 1);
            assert(io_posix.pread(fd, disk->nodes[added].bytes, (size_t)st.st_size, 0) == st.st_size);
        }
        close(fd);
    }
    closedir(dir);
}

struct disk *disk_new(const char *dir)
{
    struct disk *disk = disk_alloc(dir);

    node_add(disk, true);
    disk_load(disk, ROOT, dir);
    return disk;
}

void disk_free(struct disk *disk)
{
    if (disk == NULL)
        return;
    if (used == disk)
        used = NULL;
    for (int i = 0; i < disk->node_count; i++) {
        free(disk->nodes[i].bytes);
        names_free(&disk->nodes[i].names);
        names_free(&disk->nodes[i].live);
    }
    for (size_t i = 0; i < disk->step_count; i++) {
        free(disk->steps[i].data);
        free(disk->steps[i].name);
        free(disk->steps[i].to);
    }
    pthread_mutex_destroy(&disk->lock);
    free(disk->nodes);
    free(disk->steps);
    free(disk->dir);
    free(disk);
}

void disk_use(struct disk *disk)
{
    used = disk;
}

void disk_note(unsigned what, uint64_t from, uint64_t to)
{
    pthread_mutex_lock(&used->lock);
    step_add(used, (struct step){ .kind = NOTE, .node = NOT_OURS, .note = { what, from, to } });
    pthread_mutex_unlock(&used->lock);
}

const struct disk_note *disk_note_at(const struct disk *disk, size_t step)
{
    return disk->steps[step].kind == NOTE ? &disk->steps[step].note : NULL;
}

size_t disk_first_step(const struct disk *disk)
{
    return disk->first;
}

size_t disk_end_step(const struct disk *disk)
{
    return disk->step_count;
}

/* ---- Writing down ---- */

static int node_of_fd(int fd)
{
    return fd >= 0 && fd < FDS_MAX ? used->fds[fd] : NOT_OURS;
}

/* The folder that the path's last component lies in, and that component; NOT_OURS beyond the disk's folder. */
static int node_of_parent(int dir_fd, const char *path, const char **last)
{
    size_t length = strlen(used->dir);
    int node = node_of_fd(dir_fd), i;
    const char *slash;
    char part[NAME_MAX + 1];

    if (dir_fd == AT_FDCWD) {
        if (strncmp(path, used->dir, length) != 0 || (path[length] != '/' && path[length] != '\0'))
            return NOT_OURS;
        node = ROOT;
        path += length;
    }
    for (;; path = slash + 1) {
        while (*path == '/')
            path++;
        slash = strchr(path, '/');
        if (node == NOT_OURS || slash == NULL)
            break;
        snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
        i = names_find(&used->nodes[node].live, part);
        node = i < 0 ? NOT_OURS : used->nodes[node].live.at[i].node;
    }
    *last = path;
    return node;
}

static int node_of(int parent, const char *last)
{
    int i;

    if (parent == NOT_OURS || *last == '\0' || strcmp(last, ".") == 0)
        return parent;
    i = names_find(&used->nodes[parent].live, last);
    return i < 0 ? NOT_OURS : used->nodes[parent].live.at[i].node;
}

static int link_new(int parent, const char *name, bool folder)
{
    int node = node_add(used, folder);

    names_put(&used->nodes[parent].live, name, node);
    step_add(used, (struct step){ .kind = LINK, .node = parent, .name = copied(name, strlen(name)), .linked = node });
    return node;
}

static int disk_openat(int dir_fd, const char *path, int flags, mode_t mode)
{
    const char *last;
    int fd, parent, node;

    pthread_mutex_lock(&used->lock);
    fd = io_posix.openat(dir_fd, path, flags, mode);
    if (fd >= 0) {
        assert(fd < FDS_MAX);
        parent = node_of_parent(dir_fd, path, &last);
        node = node_of(parent, last);
        if (node == NOT_OURS && parent != NOT_OURS && (flags & O_CREAT) != 0)
            node = link_new(parent, last, false);
        else if (node != NOT_OURS && (flags & O_TRUNC) != 0)
            step_add(used, (struct step){ .kind = SIZE, .node = node });
        used->fds[fd] = node;
    }
    pthread_mutex_unlock(&used->lock);
    return fd;
}

static int disk_close(int fd)
{
    int r;

    pthread_mutex_lock(&used->lock);
    r = io_posix.close(fd);
    if (fd >= 0 && fd < FDS_MAX)
        used->fds[fd] = NOT_OURS;
    pthread_mutex_unlock(&used->lock);
    return r;
}

static ssize_t disk_pwrite(int fd, const void *from, size_t size, off_t offset)
{
    ssize_t r;

    pthread_mutex_lock(&used->lock);
    r = io_posix.pwrite(fd, from, size, offset);
    if (r > 0 && node_of_fd(fd) != NOT_OURS)
        step_add(used, (struct step){ .kind = WRITE, .node = node_of_fd(fd), .offset = (uint64_t)offset,
                                      .size = (uint64_t)r, .data = copied(from, (size_t)r) });
    pthread_mutex_unlock(&used->lock);
    return r;
}

static void size_changed(int fd, off_t before)
{
    struct stat st;

    if (node_of_fd(fd) != NOT_OURS && fstat(fd, &st) == 0 && st.st_size != before)
        step_add(used, (struct step){ .kind = SIZE, .node = node_of_fd(fd), .size = (uint64_t)st.st_size });
}

static int disk_ftruncate(int fd, off_t size)
{
    int r;

    pthread_mutex_lock(&used->lock);
    r = io_posix.ftruncate(fd, size);
    if (r == 0)
        size_changed(fd, -1);
    pthread_mutex_unlock(&used->lock);
    return r;
}

static int disk_fallocate(int fd, int mode, off_t offset, off_t size)
{
    struct stat st = { 0 };
    int r;

    pthread_mutex_lock(&used->lock);
    fstat(fd, &st);
    r = io_posix.fallocate(fd, mode, offset, size);
    if (r == 0)
        size_changed(fd, st.st_size);
    pthread_mutex_unlock(&used->lock);
    return r;
}

/* The real disk is left alone: what is safe is what the log says. */
static int disk_fsync(int fd)
{
    int r = 0;

    pthread_mutex_lock(&used->lock);
    if (node_of_fd(fd) != NOT_OURS)
        step_add(used, (struct step){ .kind = SYNC, .node = node_of_fd(fd) });
    else if (fcntl(fd, F_GETFD) < 0)
        r = -1;
    pthread_mutex_unlock(&used->lock);
    return r;
}

void disk_sync_failed(int fd)
{
    pthread_mutex_lock(&used->lock);
    if (node_of_fd(fd) != NOT_OURS && !used->nodes[node_of_fd(fd)].folder)
        step_add(used, (struct step){ .kind = FORGET, .node = node_of_fd(fd) });
    pthread_mutex_unlock(&used->lock);
}

static int disk_mkdirat(int dir_fd, const char *path, mode_t mode)
{
    const char *last;
    int r, parent;

    pthread_mutex_lock(&used->lock);
    r = io_posix.mkdirat(dir_fd, path, mode);
    parent = node_of_parent(dir_fd, path, &last);
    if (r == 0 && parent != NOT_OURS)
        link_new(parent, last, true);
    pthread_mutex_unlock(&used->lock);
    return r;
}

static int disk_unlinkat(int dir_fd, const char *path, int flags)
{
    const char *last;
    int r, parent;

    pthread_mutex_lock(&used->lock);
    r = io_posix.unlinkat(dir_fd, path, flags);
    parent = node_of_parent(dir_fd, path, &last);
    if (r == 0 && node_of(parent, last) != NOT_OURS) {
        names_remove(&used->nodes[parent].live, last);
        step_add(used, (struct step){ .kind = UNLINK, .node = parent, .name = copied(last, strlen(last)) });
    }
    pthread_mutex_unlock(&used->lock);
    return r;
}

static int disk_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    const char *last_from, *last_to;
    int r, parent, node;

    pthread_mutex_lock(&used->lock);
    r = io_posix.renameat(from_fd, from, to_fd, to);
    parent = node_of_parent(from_fd, from, &last_from);
    node = node_of(parent, last_from);
    if (r == 0 && node != NOT_OURS) {
        assert(node_of_parent(to_fd, to, &last_to) == parent);     /* within one folder: between two it is not atomic */
        names_remove(&used->nodes[parent].live, last_from);
        names_put(&used->nodes[parent].live, last_to, node);
        step_add(used, (struct step){ .kind = RENAME, .node = parent, .name = copied(last_from, strlen(last_from)),
                                      .to = copied(last_to, strlen(last_to)) });
    }
    pthread_mutex_unlock(&used->lock);
    return r;
}

/* What reads only, or is no disk's, is the C library's. */
static ssize_t disk_pread(int fd, void *into, size_t size, off_t offset)
{
    return io_posix.pread(fd, into, size, offset);
}

static int disk_list(int dir_fd, int (*each)(void *arg, const char *name), void *arg)
{
    return io_posix.list(dir_fd, each, arg);
}

static int disk_random(void *into, size_t size)
{
    return io_posix.random(into, size);
}

const struct io disk_io = {
    .openat = disk_openat, .close = disk_close, .pread = disk_pread, .pwrite = disk_pwrite, .fstat = fstat,
    .fstatat = fstatat, .fstatvfs = fstatvfs, .ftruncate = disk_ftruncate, .fallocate = disk_fallocate, .fdatasync = disk_fsync,
    .fsync = disk_fsync, .mkdirat = disk_mkdirat, .unlinkat = disk_unlinkat, .renameat = disk_renameat, .list = disk_list,
    .clock = clock_gettime, .random = disk_random,
};

/* ---- Cutting ---- */

/* How much of a pending step arrived: all, nothing, or the first bytes of a write. */
#define WHOLE UINT64_MAX

static void bytes_resize(struct node *node, uint64_t size)
{
    if (size >= node->capacity) {
        node->capacity = 2 * size + 1;
        node->bytes = realloc(node->bytes, node->capacity);
        if (node->bytes == NULL)
            abort();
    }
    if (size > node->size)
        memset(node->bytes + node->size, 0, size - node->size);
    node->size = size;
}

static void step_apply(struct disk *to, const struct step *step, uint64_t part)
{
    struct node *node = &to->nodes[step->node];
    uint64_t size = step->size < part ? step->size : part;
    int i;

    switch (step->kind) {
    case WRITE:
        if (size > 0 && step->offset + size > node->size)
            bytes_resize(node, step->offset + size);
        if (size > 0)
            memcpy(node->bytes + step->offset, step->data, size);
        return;
    case SIZE:
        bytes_resize(node, step->size);
        return;
    case LINK:
        names_put(&node->names, step->name, step->linked);
        return;
    case UNLINK:
        names_remove(&node->names, step->name);
        return;
    case RENAME:
        i = names_find(&node->names, step->name);
        if (i >= 0) {
            int moved = node->names.at[i].node;

            names_remove(&node->names, step->name);
            names_put(&node->names, step->to, moved);
        }
        return;
    case SYNC:
    case FORGET:
    case NOTE:
        return;
    }
}

static bool step_touches(const struct step *step, uint64_t begin, uint64_t end)
{
    if (step->kind == SIZE)
        return step->size < end;                   /* what lies behind a new end is zero, should the file grow again */
    return step->offset < end && step->offset + step->size > begin;
}

/* Any part of a file's pending steps: one of its sizes, and for each sector one of its contents. */
static void file_any(struct node *node, const struct step *const *pending, size_t count, unsigned *seed)
{
    unsigned char *bytes, filler = rand_r(seed) % 2 == 0 ? 0 : (unsigned char)rand_r(seed);
    uint64_t most = node->size, size = node->size, before = node->size;
    size_t chosen = (size_t)rand_r(seed) % (count + 1);

    for (size_t i = 0, now = 0; i < count; i++) {
        uint64_t end = pending[i]->kind == SIZE ? pending[i]->size : pending[i]->offset + pending[i]->size;

        before = pending[i]->kind == SIZE || end > before ? end : before;
        most = before > most ? before : most;
        if (++now == chosen)
            size = before;
    }
    bytes = malloc(most + SECTOR);
    if (bytes == NULL)
        abort();
    memset(bytes, filler, most + SECTOR);
    if (node->size > 0)
        memcpy(bytes, node->bytes, node->size);
    for (uint64_t at = 0; at < most; at += SECTOR) {
        uint64_t end = at + SECTOR < most ? at + SECTOR : most;
        size_t versions = 0, take;

        for (size_t i = 0; i < count; i++)
            versions += step_touches(pending[i], at, end);
        take = (size_t)rand_r(seed) % (versions + 1);
        for (size_t i = 0; i < count && take > 0; i++) {
            const struct step *step = pending[i];
            uint64_t from, to;

            if (!step_touches(step, at, end))
                continue;
            take--;
            from = step->kind == SIZE ? step->size : step->offset;
            to = step->kind == SIZE ? end : step->offset + step->size;
            from = from > at ? from : at;
            to = to < end ? to : end;
            if (step->kind == SIZE)
                memset(bytes + from, 0, to - from);
            else
                memcpy(bytes + from, step->data + (from - step->offset), to - from);
        }
    }
    free(node->bytes);
    node->bytes = bytes;
    node->size = size;
    node->capacity = most + SECTOR;
}

static void disk_store(const struct disk *disk, int node, const char *path)
{
    char child[PATH_MAX];

    for (size_t i = 0; i < disk->nodes[node].names.count; i++) {
        const struct name *name = &disk->nodes[node].names.at[i];
        const struct node *at = &disk->nodes[name->node];

        snprintf(child, sizeof(child), "%s/%s", path, name->name);
        if (at->folder) {
            assert(mkdir(child, 0700) == 0);
            disk_store(disk, name->node, child);
        } else {
            int fd = open(child, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

            assert(fd >= 0 && (at->size == 0 || pwrite(fd, at->bytes, at->size, 0) == (ssize_t)at->size));
            close(fd);
        }
    }
}

/* Everything up to `step` is applied in `synced` where it is safe; pending[] gets the rest, in order. */
static size_t disk_settle(const struct disk *disk, size_t step, struct disk *synced, const struct step **pending)
{
    size_t count = 0, kept;

    for (size_t i = 0; i < step; i++) {
        const struct step *at = &disk->steps[i];

        if (at->kind == NOTE)
            continue;
        if (at->kind != SYNC && at->kind != FORGET) {
            pending[count++] = at;
            continue;
        }
        kept = 0;
        for (size_t p = 0; p < count; p++) {
            if (pending[p]->node != at->node)
                pending[kept++] = pending[p];
            else if (at->kind == SYNC)
                step_apply(synced, pending[p], WHOLE);
        }
        count = kept;
    }
    return count;
}

static void cut_any(struct disk *cut, const struct step *const *pending, size_t count, unsigned *seed)
{
    const struct step **of_node = calloc(count + 1, sizeof(*of_node));

    if (of_node == NULL)
        abort();
    for (int node = 0; node < cut->node_count; node++) {
        size_t n = 0;

        for (size_t i = 0; i < count; i++)
            if (pending[i]->node == node)
                of_node[n++] = pending[i];
        if (n > 0 && !cut->nodes[node].folder)
            file_any(&cut->nodes[node], of_node, n, seed);
        for (size_t i = 0; i < n && cut->nodes[node].folder; i++)
            if (rand_r(seed) % 2 == 0)
                step_apply(cut, of_node[i], WHOLE);
    }
    free(of_node);
}

struct disk *disk_cut(const struct disk *disk, size_t step, enum disk_cut how, unsigned seed, const char *dir)
{
    const struct step **pending = calloc(step + 1, sizeof(*pending));
    struct disk *cut = disk_alloc(dir), *all;
    size_t count, arrived;

    if (pending == NULL)
        abort();
    for (int i = 0; i < disk->node_count; i++) {
        int node = node_add(cut, disk->nodes[i].folder);

        cut->nodes[node].bytes = copied(disk->nodes[i].bytes, disk->nodes[i].size);
        cut->nodes[node].size = disk->nodes[i].size;
        cut->nodes[node].capacity = disk->nodes[i].size + 1;
        names_copy(&cut->nodes[node].names, &disk->nodes[i].names);
    }
    count = disk_settle(disk, step, cut, pending);
    if (how == CUT_ANY) {
        cut_any(cut, pending, count, &seed);
    } else if (how != CUT_KILL) {
        arrived = how == CUT_NOTHING ? 0 : how == CUT_ALL ? count : (size_t)rand_r(&seed) % (count + 1);
        for (size_t i = 0; i < arrived; i++)
            step_apply(cut, pending[i], WHOLE);
        if (how == CUT_TORN && arrived < count && pending[arrived]->kind == WRITE) {
            uint64_t part = (uint64_t)rand_r(&seed) % pending[arrived]->size;

            step_apply(cut, pending[arrived], part > SECTOR && rand_r(&seed) % 2 == 0 ? part / SECTOR * SECTOR : part);
        }
    } else {
        for (size_t i = 0; i < count; i++)
            step_copy(cut, pending[i]);
        cut->first = cut->step_count;
        all = disk_cut(disk, step, CUT_ALL, seed, dir);
        for (int i = 0; i < cut->node_count; i++)
            names_copy(&cut->nodes[i].live, &all->nodes[i].live);
        disk_free(all);
        free(pending);
        return cut;
    }
    for (int i = 0; i < cut->node_count; i++)
        names_copy(&cut->nodes[i].live, &cut->nodes[i].names);
    disk_store(cut, ROOT, dir);
    free(pending);
    return cut;
}
