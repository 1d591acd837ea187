/*
 * dead.c - any file as dead letters: each line is one letter or damage, in order and within the file; what commands print of it
 * steers no terminal; and a rewriting takes away exactly what it was asked to.
 *
 * Input: 1 byte which letters go; the file.
 */
#include "daemon/command/dead_command.c"     /* what is printed */

#include "tests/fuzz/fuzz.h"

#include <assert.h>
#include <fcntl.h>
#include <unistd.h>

struct drop {
    uint8_t mask;                    /* of every eighth letter */
    char *wanted;                    /* the file as it should be after it */
    size_t size;
};

static bool by_mask(void *arg, const struct dead_letter *letter)
{
    const struct drop *drop = arg;

    return drop->mask >> (letter->line % 8) & 1;
}

/* Nothing but line breaks and what a terminal shows as it is. */
static void assert_shown(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];

        assert(c == '\n' || (c >= ' ' && c != 0x7f));
        assert(c != 0xc2 || (i + 1 < size && (unsigned char)text[i + 1] >= 0xa0));
    }
}

static void assert_within(struct pen_span span, struct pen_span line)
{
    assert(span.data >= line.data && span.data + span.size <= line.data + line.size);
}

/* Every letter, and what the file should be without those that go. */
static void read_all(const char *path, struct pen_span bytes, struct drop *drop)
{
    struct dead_letter letter;
    struct dead_file *file;
    uint64_t at = 0, line = 0;
    int r = dead_open(&file, path);

    assert(r == 0);
    while ((r = dead_next(file, &letter)) > 0) {
        struct pen_span text = { bytes.data + letter.offset, letter.end - letter.offset };
        bool torn = bytes.data[letter.end - 1] != '\n';

        assert(letter.offset == at && letter.end > at && letter.end <= bytes.size && letter.line == ++line);
        assert(letter.text.size == text.size - !torn && memcmp(letter.text.data, text.data, letter.text.size) == 0);
        assert(memchr(letter.text.data, '\n', letter.text.size) == NULL && strlen(letter.id) == DEAD_ID_SIZE - 1);
        assert(!torn || letter.damage != NULL);
        if (letter.damage == NULL) {
            assert_within(letter.head, letter.text);
            assert_within(letter.message, letter.text);
            assert(letter.time.size > 0 && letter.stream.size > 0);
        }
        if (!by_mask(drop, &letter)) {
            memcpy(drop->wanted + drop->size, text.data, text.size);
            drop->size += text.size;
        }
        at = letter.end;
    }
    assert(r == 0 && at == bytes.size);
    if (drop->size > 0 && drop->wanted[drop->size - 1] != '\n')
        drop->wanted[drop->size++] = '\n';         /* a torn end gets one */
    dead_close(file);
}

static void print_all(const char *path, bool json, each_letter each)
{
    struct dead_call call = { .json = json, .all = true };
    FILE *out = stdout, *said = stderr;
    struct pen_span shown = { 0 };

    stdout = open_memstream((char **)&shown.data, &shown.size);
    stderr = stdout;
    assert(stdout != NULL);
    (void)file_each(&call, path, each);
    fclose(stdout);
    stdout = out;
    stderr = said;
    assert_shown(shown.data, shown.size);
    for (size_t at = 0; each == list_json && at < shown.size; ) {
        struct pen_span line = { shown.data + at, (size_t)((char *)memchr(shown.data + at, '\n', shown.size - at) - shown.data) - at };

        assert(line.data[0] != '{' || judge_json(line));         /* else it tells of damage */
        at += line.size + 1;
    }
    free((char *)shown.data);
}

static void rewrite(const char *path, struct drop *drop)
{
    char *now = malloc(drop->size + 1);
    int r = dead_rewrite(path, NULL, by_mask, drop, NULL), fd;
    ssize_t size = 0;

    assert(r == 0 && now != NULL);
    fd = open(path, O_RDONLY);                     /* none is left where nothing stays */
    if (fd >= 0) {
        size = read(fd, now, drop->size + 1);
        close(fd);
    }
    assert(size == (ssize_t)drop->size && memcmp(now, drop->wanted, drop->size) == 0);
    free(now);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = feed_of(data, size);
    struct drop drop = { .mask = feed_byte(&feed) };
    struct pen_span bytes = feed_span(&feed, SIZE_MAX);
    char path[128];
    int fd;

    fuzz_folder_clear();
    snprintf(path, sizeof(path), "%s/sink.jsonl", fuzz_folder());
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, bytes.data, bytes.size) != (ssize_t)bytes.size)
        abort();
    close(fd);
    drop.wanted = malloc(bytes.size + 2);
    assert(drop.wanted != NULL);
    read_all(path, bytes, &drop);
    print_all(path, false, list_row);
    print_all(path, true, list_json);
    print_all(path, false, show_letter);
    print_all(path, true, show_letter);
    rewrite(path, &drop);
    free(drop.wanted);
    return 0;
}
