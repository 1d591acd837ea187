/*
 * letters.c - letters are appended, the file is rewritten, letters are appended to the new one, and the power is cut at every
 * step of that, in every way.
 *
 * The oracle: the whole letters in the file are those of one of the moments below, and not of one before the last that was
 * acknowledged. So a letter is there once its append has said so, and gone only where the rewriting that drops it had begun.
 */
#include "daemon/disk/dead.h"
#include "tests/crash/bench.h"
#include "tests/crash/disk_io.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEEDS 8u

static const char *const moments[] = { "", "1", "12", "123", "13", "134", "" };
#define MOMENTS (sizeof(moments) / sizeof(*moments))

static unsigned long cuts, images, violations;

static char *dead_path(const char *dir)
{
    char *path;

    if (asprintf(&path, "%s/dead/sink.jsonl", dir) < 0)
        abort();
    return path;
}

static void append(const char *path, const char *text)
{
    const struct dead_stamp stamp = { "sink", "raw", 1 };
    const char *stream = "source/stream";
    struct pen_message message = { .size = 1 };
    struct part part = {
        .lent = { .data = text, .size = 1, .messages = &message, .count = 1, .streams = &stream }, .why = "status 400: no",
    };
    struct part *parts[] = { &part };
    int r = dead_append(path, &stamp, parts, 1, UINT64_MAX);

    assert(r == 0);
    disk_note(0, 0, 0);
}

/* Letters whose number stands in the text; NULL: all. */
static bool drops(void *arg, const struct dead_letter *letter)
{
    const char *numbers = arg;

    return numbers == NULL || (letter->damage == NULL && strchr(numbers, letter->message.data[0]) != NULL);
}

static void rewrite(const char *path, char *numbers)
{
    int r = dead_rewrite(path, NULL, drops, numbers, NULL);

    assert(r == 0);
    disk_note(0, 0, 0);
}

static void script(const char *path)
{
    append(path, "1");
    append(path, "2");
    append(path, "3");
    rewrite(path, (char[]){ "2" });
    append(path, "4");
    rewrite(path, NULL);
}

/* The numbers of the whole letters, in the file's order. */
static void read_letters(const char *path, char found[static 16])
{
    struct dead_file *file;
    struct dead_letter letter;
    size_t count = 0;

    found[0] = '\0';
    if (dead_open(&file, path) < 0)
        return;
    while (dead_next(file, &letter) > 0 && count < 15)
        if (letter.damage == NULL)
            found[count++] = letter.message.data[0];
    found[count] = '\0';
    dead_close(file);
}

static void judge(struct disk *disk, size_t step, enum disk_cut how, unsigned seed)
{
    const char *dir = bench_folder(false);
    struct disk *cut = disk_cut(disk, step, how, seed, dir);
    char *path = dead_path(dir), found[16], wanted[16];
    size_t said = 0;

    for (size_t i = disk_first_step(disk); i < step; i++)
        said += disk_note_at(disk, i) != NULL;
    images++;
    disk_use(cut);
    read_letters(path, found);
    if (strcmp(found, moments[said]) != 0 && (said + 1 == MOMENTS || strcmp(found, moments[said + 1]) != 0)) {
        violations++;
        fprintf(stderr, "step %zu, cut %d, seed %u: found \"%s\" after \"%s\"\n", step, how, seed, found, moments[said]);
    }
    /* And life goes on: the next letter stands whole behind what is left. */
    append(path, "5");
    read_letters(path, wanted);
    found[strlen(found) + 1] = '\0';
    found[strlen(found)] = '5';
    if (strcmp(found, wanted) != 0) {
        violations++;
        fprintf(stderr, "step %zu, cut %d, seed %u: \"%s\" where \"%s\" should be\n", step, how, seed, wanted, found);
    }
    free(path);
    disk_free(cut);
}

int main(void)
{
    const char *dir = bench_folder(true);
    struct disk *disk = disk_new(dir);
    char *path = dead_path(dir), json[128];

    io = &disk_io;
    disk_use(disk);
    script(path);
    for (size_t step = disk_first_step(disk); step <= disk_end_step(disk); step++) {
        cuts++;
        for (unsigned how = 0; how < CUTS; how++)
            for (unsigned seed = 0; seed < SEEDS; seed++)
                judge(disk, step, (enum disk_cut)how, seed + (unsigned)step * SEEDS);
        bench_drop();
    }
    free(path);
    disk_free(disk);
    printf("%lu cuts, %lu images, %lu violations\n", cuts, images, violations);
    snprintf(json, sizeof(json), "{\"cuts\": %lu, \"images\": %lu, \"violations\": %lu}", cuts, images, violations);
    bench_report("letters", json);
    return violations == 0 && cuts > 20 ? 0 : 1;
}
