/*
 * sources.c - any pattern against any path, and any row that state.db may hold of a file: patterns are refused in a clean
 * sentence or match in bounded time, rows are read or refused; what was read is written and read as the same.
 *
 * Input: 1 byte: patterns or a row; a pattern, a zero, a path; or a position, a word, a key and attrs.
 */
#include "tests/fuzz/fuzz.h"

#include "daemon/source/file.h"
#include "daemon/source/glob.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void match(struct feed *feed)
{
    const uint8_t *zero = memchr(feed->at, '\0', feed_left(feed));
    struct pen_span pattern = feed_span(feed, zero ? (size_t)(zero - feed->at) : feed_left(feed));
    char *text = fuzz_copy(pattern, 1), *path;
    const char *items[] = { text };
    struct pen_error err = { 0 };
    struct glob *glob;
    bool file, folder;

    (void)feed_byte(feed);
    path = fuzz_copy(feed_span(feed, SIZE_MAX), 1);
    if (glob_new(&glob, &(struct pen_list){ items, 1 }, &err) < 0) {
        assert(err.text[0] != '\0');
    } else {
        file = glob_matches(glob, path);
        folder = glob_enters(glob, path);
        assert(glob_matches(glob, path) == file && glob_enters(glob, path) == folder);
        glob_free(glob);
    }
    free(path);
    free(text);
}

static void row(struct feed *feed)
{
    struct source_file source = { .host = NULL };
    struct file first = { .source = &source }, again = { .source = &source };
    struct cursor cursor = { .position = feed_number(feed, 8), .word = feed_number(feed, 8) };
    struct pen_span key = feed_span(feed, 16);
    char *key_text = fuzz_copy(key, 1), *attrs_text = fuzz_copy(feed_span(feed, SIZE_MAX), 1);
    char path[PATH_MAX], path_again[PATH_MAX], attrs[ATTRS_MAX];

    cursor.key = key_text;
    cursor.attrs = attrs_text;
    if (file_row_read(&first, &cursor, path, sizeof path)) {
        assert(path[0] == '/' && strlen(path) < sizeof path);
        assert(first.prints.head_size <= PRINT_HEAD && first.prints.tail_size <= PRINT_TAIL);
        first.path = path;
        file_row_write(&first, attrs);
        cursor.attrs = attrs;
        assert(file_row_read(&again, &cursor, path_again, sizeof path_again));
        assert(strcmp(path, path_again) == 0 && memcmp(&first.prints, &again.prints, sizeof first.prints) == 0);
        assert(first.key == again.key && first.dev == again.dev && first.ino == again.ino && first.gone == again.gone);
        assert(first.position == again.position && first.end_size == again.end_size && first.end_ctime == again.end_ctime);
    }
    free(key_text);
    free(attrs_text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = feed_of(data, size);

    if (feed_byte(&feed) & 1)
        match(&feed);
    else
        row(&feed);
    return 0;
}
