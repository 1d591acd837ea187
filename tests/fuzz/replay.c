/*
 * replay.c - main() for a target that was built without libFuzzer: runs the files, and the files of the folders, it is
 * given. Each input lies in memory of its own size, so that sanitizers and valgrind see what reads past it.
 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static unsigned replayed;

static void replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat st;
    uint8_t *data;
    size_t size;

    if (file == NULL || fstat(fileno(file), &st) < 0 || (data = malloc((size_t)st.st_size + (st.st_size == 0))) == NULL) {
        perror(path);
        exit(1);
    }
    size = fread(data, 1, (size_t)st.st_size, file);
    fclose(file);
    fprintf(stderr, "%s\n", path);   /* the last line tells which one it was */
    (void)LLVMFuzzerTestOneInput(data, size);
    free(data);
    replayed++;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct dirent **entries;
        struct stat st;
        char path[4096];
        int count;

        if (stat(argv[i], &st) < 0 || !S_ISDIR(st.st_mode)) {
            replay_file(argv[i]);
            continue;
        }
        count = scandir(argv[i], &entries, NULL, alphasort);
        for (int n = 0; n < count; n++) {
            snprintf(path, sizeof(path), "%s/%s", argv[i], entries[n]->d_name);
            if (entries[n]->d_name[0] != '.')
                replay_file(path);
            free(entries[n]);
        }
        if (count >= 0)
            free(entries);
    }
    printf("%u inputs\n", replayed);
    return replayed > 0 ? 0 : 1;
}
