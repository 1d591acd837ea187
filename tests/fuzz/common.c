/*
 * common.c - inputs as copies, as files in memory, and a folder for those who need one.
 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

char *fuzz_copy(struct pen_span span, size_t more)
{
    char *copy = malloc(span.size + more + (span.size + more == 0));

    if (copy == NULL)
        abort();
    if (span.size > 0)
        memcpy(copy, span.data, span.size);
    memset(copy + span.size, 0, more);
    return copy;
}

int fuzz_file(struct pen_span span, char path[static 32])
{
    static int fd = -1;

    if (fd < 0)
        fd = memfd_create("input", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) < 0 || pwrite(fd, span.data, span.size, 0) != (ssize_t)span.size)
        abort();
    lseek(fd, 0, SEEK_SET);
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    return fd;
}

static char folder[64];

void fuzz_folder_clear(void)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    char path[384];

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        unlink(path);                /* not of "." and "..": those are folders */
    }
    if (dir != NULL)
        closedir(dir);
}

static void folder_remove(void)
{
    fuzz_folder_clear();
    rmdir(folder);
}

const char *fuzz_folder(void)
{
    if (folder[0] != '\0')
        return folder;
    strcpy(folder, access("/dev/shm", W_OK) == 0 ? "/dev/shm/penstock-fuzz-XXXXXX" : "/tmp/penstock-fuzz-XXXXXX");
    if (mkdtemp(folder) == NULL) {
        perror(folder);
        abort();
    }
    atexit(folder_remove);
    return folder;
}
