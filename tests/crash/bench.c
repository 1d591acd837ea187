/* bench.c - see bench.h. */
#include "crash/bench.h"

#include <assert.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[64];
static unsigned number;

static int on_removal(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

void bench_drop(void)
{
    if (base[0] != '\0')
        assert(nftw(base, on_removal, 16, FTW_DEPTH | FTW_PHYS) == 0);
    base[0] = '\0';
}

const char *bench_folder(bool state)
{
    static char paths[8][128];
    char *path = paths[number % 8], inner[160];

    if (base[0] == '\0') {
        /* In memory where there is such a place: the disk of these tests is one that they make up. */
        snprintf(base, sizeof(base), "%s/penstock-crash-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        assert(mkdtemp(base) != NULL);
    }
    snprintf(path, sizeof(paths[0]), "%s/%u", base, number++);
    assert(mkdir(path, 0700) == 0);
    for (unsigned i = 0; state && i < 2; i++) {
        snprintf(inner, sizeof(inner), "%s/%s", path, i == 0 ? "spool" : "dead");
        assert(mkdir(inner, 0700) == 0);
    }
    return path;
}

void bench_report(const char *name, const char *json)
{
    const char *folder = getenv("PENSTOCK_RELIABILITY");
    char path[512];
    FILE *file;

    printf("%s: %s\n", name, json);
    if (folder == NULL || BENCH_SAMPLE > 1)
        return;
    mkdir(folder, 0777);
    snprintf(path, sizeof(path), "%s/%s.json", folder, name);
    file = fopen(path, "w");
    assert(file != NULL && fprintf(file, "%s\n", json) > 0 && fclose(file) == 0);
}
