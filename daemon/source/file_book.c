/*
 * file_book.c - what is known of files: by path, by inode, and as the rows of the state say it.
 *
 * A path has one holder, and so has an inode: who takes it takes it from the file that had it, of which it must then be
 * found out what became of it. What a row holds stands at the head of file.c.
 */
#include "daemon/source/file.h"

#include "daemon/base/log.h"

#include <inttypes.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define FILE_BYTES (sizeof(struct file) + 96)      /* and two nodes of trees, and what the heap adds; its path comes on top */

/* ---- By path, by inode ----------------------------------------------------------------------------------------- */

static int path_compare(const void *a, const void *b)
{
    return strcmp(((const struct file *)a)->path, ((const struct file *)b)->path);
}

static int inode_compare(const void *a, const void *b)
{
    const struct file *left = a, *right = b;

    if (left->dev != right->dev)
        return left->dev < right->dev ? -1 : 1;
    return left->ino < right->ino ? -1 : left->ino > right->ino;
}

struct file *file_by_path(struct source_file *source, const char *path)
{
    struct file key = { .path = (char *)path }, **found = tfind(&key, &source->path_tree, path_compare);

    return found != NULL ? *found : NULL;
}

struct file *file_by_inode(struct source_file *source, const struct stat *st)
{
    struct file key = { .dev = st->st_dev, .ino = st->st_ino };
    struct file **found = tfind(&key, &source->inode_tree, inode_compare);

    return found != NULL ? *found : NULL;
}

void file_drop_path(struct file *file)
{
    if (file->by_path)
        tdelete(file, &file->source->path_tree, path_compare);
    file->by_path = false;
}

void file_drop_inode(struct file *file)
{
    if (file->by_inode)
        tdelete(file, &file->source->inode_tree, inode_compare);
    file->by_inode = false;
}

static void file_set_path(struct file *file, const char *path)
{
    ptrdiff_t before = file->path != NULL ? (ptrdiff_t)strlen(file->path) : 0;
    char *copy = strdup(path);

    source_keep(file->source->host, (ptrdiff_t)strlen(path) - before);
    free(file->path);
    file->path = copy;
}

void file_take_path(struct file *file, const char *path)
{
    struct file *holder = file_by_path(file->source, path);

    if (holder != NULL && holder != file)
        file_drop_path(holder);
    file_drop_path(file);
    file_set_path(file, path);
    tsearch(file, &file->source->path_tree, path_compare);
    file->by_path = true;
}

void file_take_inode(struct file *file, uint64_t dev, uint64_t ino)
{
    struct stat st = { .st_dev = dev, .st_ino = ino };
    struct file *holder = file_by_inode(file->source, &st);

    if (holder != NULL && holder != file)
        file_drop_inode(holder);
    file_drop_inode(file);
    file->dev = dev;
    file->ino = ino;
    tsearch(file, &file->source->inode_tree, inode_compare);
    file->by_inode = true;
}

/* ---- Files ----------------------------------------------------------------------------------------------------- */

uint64_t file_key_new(void)
{
    uint64_t key;

    while (getrandom(&key, sizeof key, 0) != sizeof key)
        ;
    return key;
}

uint64_t file_position(const struct file *file)
{
    return file->stream != NULL ? stream_position(file->stream) : file->position;
}

struct file *file_alloc(struct source_file *source)
{
    struct file *file = calloc(1, sizeof *file);

    file->source = source;
    file->end_size = UNKNOWN_SIZE;
    file->final = source_is_once(source->host);
    LIST_INSERT_HEAD(&source->files, file, all);
    source_keep(source->host, (ptrdiff_t)FILE_BYTES);
    return file;
}

void file_set_failed(struct file *file, bool failed)
{
    struct source_file *source = file->source;

    source->failed_count += (unsigned)failed - file->failed;
    file->failed = failed;
    source_is_ailing(source->host, source->failed_count > 0);
}

void file_free(struct file *file)
{
    struct source_file *source = file->source;

    file_set_failed(file, false);
    file_drop_path(file);
    file_drop_inode(file);
    if (file->waiting)
        TAILQ_REMOVE(&source->waiting, file, wait);
    LIST_REMOVE(file, all);
    reader_close(file->reader);
    if (file->chunk != NULL)
        chunk_drop(source->host, file->chunk);
    free(file->hint);
    source_keep(source->host, -(ptrdiff_t)(FILE_BYTES + (file->path != NULL ? strlen(file->path) : 0)));
    free(file->path);
    free(file);
}

/* ---- Rows ------------------------------------------------------------------------------------------------------ */

static void path_escape(char *out, const char *path)
{
    for (; *path != '\0'; path++) {
        unsigned char c = (unsigned char)*path;

        if (c > 0x20 && c < 0x7f && c != '%')
            *out++ = (char)c;
        else
            out += sprintf(out, "%%%02X", c);
    }
    *out = '\0';
}

static bool path_unescape(char *out, size_t capacity, const char *text)
{
    size_t size = 0;

    for (; *text != '\0'; text++) {
        unsigned code;

        if (size + 1 >= capacity)
            return false;
        if (*text == '%') {
            if (sscanf(text + 1, "%2x", &code) != 1 || code == 0 || text[1] == '\0' || text[2] == '\0')
                return false;
            out[size++] = (char)code;
            text += 2;
        } else {
            out[size++] = *text;
        }
    }
    out[size] = '\0';
    return size > 0 && out[0] == '/';
}

void file_row_write(const struct file *file, char *out)
{
    uint64_t end_size = file->unnoted ? UNKNOWN_SIZE : file->end_size;
    int size = snprintf(out, 256, "v1 %" PRIu64 ":%" PRIu64 " %u:%016" PRIx64 " %" PRIu64 ":%u:%016" PRIx64
                        " %" PRIu64 ":%" PRId64 " %" PRId64 " ", file->dev, file->ino, file->prints.head_size,
                        file->prints.head, file->prints.tail_at, file->prints.tail_size, file->prints.tail, end_size,
                        file->end_ctime, file->gone);

    path_escape(out + size, file->path);
}

bool file_row_read(struct file *file, const struct cursor *cursor, char *path, size_t capacity)
{
    unsigned head_size, tail_size;
    int at = 0;

    if (sscanf(cursor->key, "%16" SCNx64, &file->key) != 1 ||
        sscanf(cursor->attrs, "v1 %" SCNu64 ":%" SCNu64 " %u:%" SCNx64 " %" SCNu64 ":%u:%" SCNx64 " %" SCNu64 ":%" SCNd64
               " %" SCNd64 " %n", &file->dev, &file->ino, &head_size, &file->prints.head, &file->prints.tail_at, &tail_size,
               &file->prints.tail, &file->end_size, &file->end_ctime, &file->gone, &at) != 10 || at == 0)
        return false;
    if (head_size > PRINT_HEAD || tail_size > PRINT_TAIL || tail_size > file->prints.tail_at)
        return false;
    file->prints.head_size = (uint16_t)head_size;
    file->prints.tail_size = (uint16_t)tail_size;
    file->position = cursor->position;
    file->word = cursor->word;
    /* Read to its end, but not all of it safe: the rest must be read again. */
    if (file->position != file->prints.tail_at)
        file->end_size = UNKNOWN_SIZE;
    return path_unescape(path, capacity, cursor->attrs + at);
}

static void on_row(void *arg, const struct cursor *cursor)
{
    struct source_file *source = arg;
    struct file *file = file_alloc(source), *holder;
    char path[PATH_MAX];

    source->had_rows = true;
    if (!file_row_read(file, cursor, path, sizeof path)) {
        log_line(LOG_WARN, "a row of the state is not readable: its file will be read from the start", "source",
                 source_name(source->host), "key", cursor->key, NULL);
        file_free(file);
        return;
    }
    /* Two rows may name one path, one of a file that is gone: that one steps back. */
    holder = file_by_path(source, path);
    if (holder == NULL || (holder->gone != 0 && file->gone == 0))
        file_take_path(file, path);
    else
        file_set_path(file, path);
    if (file_by_inode(source, &(struct stat){ .st_dev = file->dev, .st_ino = file->ino }) == NULL || file->gone == 0)
        file_take_inode(file, file->dev, file->ino);
}

void file_open_stream(struct file *file)
{
    char key[17], attrs[ATTRS_MAX];

    snprintf(key, sizeof key, "%016" PRIx64, file->key);
    file->stream = stream_open(file->source->host, file->path,
                               &(struct cursor){ .key = key, .attrs = "", .position = file->position, .word = file->word },
                               file);
    file_row_write(file, attrs);
    stream_set_attrs(file->stream, attrs);
}

void file_save(struct file *file)
{
    char attrs[ATTRS_MAX];

    if (file->stream == NULL && file->position == 0 && file->prints.head_size == 0)
        return;
    if (file->stream == NULL) {
        file_open_stream(file);
        return;
    }
    file_row_write(file, attrs);
    stream_set_attrs(file->stream, attrs);
}

void file_source_load(struct source_file *source)
{
    source_each_cursor(source->host, on_row, source);
}
