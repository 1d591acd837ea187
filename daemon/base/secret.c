/*
 * secret.c - secrets come from files, are read when they are needed, and are wiped behind their use.
 *
 * Symlinks are followed: systemd and Kubernetes both lay credentials out that way. What counts is the file at the end
 * of them. It must not be open to the world, unless it lies in $CREDENTIALS_DIRECTORY, whose modes the service
 * manager chooses and which no other user can enter.
 */
#include "daemon/base/secret.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define SECRET_MAX ((size_t)64 * 1024)
#define SECRET_HEAP ((size_t)512 * 1024)          /* systemd lets a service lock 8 MiB; pages count once they are used */
#define SECRET_LEAST 64              /* bytes of the smallest piece */

/* ---- Memory ---------------------------------------------------------------------------------------------------- */

void secret_wiping_free(void *memory)
{
    if (memory != NULL)
        explicit_bzero(memory, malloc_usable_size(memory));
    free(memory);
}

void *secret_wiping_realloc(void *memory, size_t size)
{
    size_t had = memory != NULL ? malloc_usable_size(memory) : 0;
    void *moved = malloc(size);

    if (moved == NULL)
        return NULL;
    if (had > 0)
        memcpy(moved, memory, had < size ? had : size);
    secret_wiping_free(memory);
    return moved;
}

static void *on_openssl_malloc(size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return malloc(size);
}

static void *on_openssl_realloc(void *memory, size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return secret_wiping_realloc(memory, size);
}

static void on_openssl_free(void *memory, const char *file, int line)
{
    (void)file, (void)line;
    secret_wiping_free(memory);
}

bool secret_memory_init(void)
{
    (void)CRYPTO_set_mem_functions(on_openssl_malloc, on_openssl_realloc, on_openssl_free);
    return CRYPTO_secure_malloc_init(SECRET_HEAP, SECRET_LEAST) == 1;
}

void *secret_alloc(size_t size)
{
    void *secret = OPENSSL_secure_zalloc(size);

    if (secret == NULL)
        secret = OPENSSL_zalloc(size);
    if (secret == NULL)
        abort();
    return secret;
}

void secret_free(void *secret, size_t size)
{
    OPENSSL_secure_clear_free(secret, size);
}

char *secret_text(const char *format, ...)
{
    va_list args, again;
    char *text;
    int size;

    va_start(args, format);
    va_copy(again, args);
    size = vsnprintf(NULL, 0, format, args);
    assert(size >= 0);
    text = secret_alloc((size_t)size + 1);
    vsnprintf(text, (size_t)size + 1, format, again);
    va_end(again);
    va_end(args);
    return text;
}

void secret_text_free(char *text)
{
    if (text != NULL)
        secret_free(text, strlen(text));
}

/* ---- Files ----------------------------------------------------------------------------------------------------- */

static bool secret_is_credential(const char *path)
{
    const char *dir = getenv("CREDENTIALS_DIRECTORY");
    char *real_dir = dir != NULL && *dir == '/' ? realpath(dir, NULL) : NULL;
    char *real_path = real_dir != NULL ? realpath(path, NULL) : NULL;
    size_t size = real_dir != NULL ? strlen(real_dir) : 0;
    bool inside = real_path != NULL && size > 1 && strncmp(real_path, real_dir, size) == 0 && real_path[size] == '/';

    free(real_path);
    free(real_dir);
    return inside;
}

static int secret_admit(int fd, const char *path, bool mounted, struct stat *st, struct pen_error *err)
{
    if (fstat(fd, st) < 0)
        return pen_error_set(err, -errno, "cannot read the secret in %s: %s", path, strerror(errno));
    if (!S_ISREG(st->st_mode))
        return pen_error_set(err, UV_EINVAL, "cannot read the secret in %s: it is not a file", path);
    if ((st->st_mode & S_IRWXO) != 0 && !mounted && !secret_is_credential(path))
        return pen_error_set(err, UV_EPERM, "the secret in %s is open to everyone on this machine (mode %03o): chmod o= it",
                             path, (unsigned)(st->st_mode & 0777));
    return 0;
}

/* No stdio here: its buffers would keep a copy. */
static int secret_load(char *secret, size_t *size, size_t room, int fd, const char *path, struct pen_error *err)
{
    ssize_t n;

    *size = 0;
    while (*size < room) {
        n = read(fd, secret + *size, room - *size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return pen_error_set(err, -errno, "cannot read the secret in %s: %s", path, strerror(errno));
        if (n == 0)
            break;
        *size += (size_t)n;
    }
    if (*size == room)
        return pen_error_set(err, UV_EFBIG, room > SECRET_MAX ? "the secret in %s is longer than %zu bytes"
                                                              : "the secret in %s has just grown beyond %zu bytes",
                             path, room - 1);
    if (*size > 0 && secret[*size - 1] == '\n')
        *size -= *size > 1 && secret[*size - 2] == '\r' ? 2 : 1;
    if (*size == 0)
        return pen_error_set(err, UV_EINVAL, "the secret in %s is empty", path);
    secret[*size] = '\0';
    return 0;
}

static int secret_read_fd(char **ret, size_t *size, int fd, const char *path, bool mounted, struct pen_error *err)
{
    size_t room, got;
    struct stat st;
    char *secret;
    int r;

    r = secret_admit(fd, path, mounted, &st, err);
    if (r < 0)
        return r;
    room = (st.st_size < (off_t)SECRET_MAX ? (size_t)st.st_size : SECRET_MAX) + 1;     /* one more tells that there is more */
    secret = secret_alloc(room + 1);
    r = secret_load(secret, &got, room, fd, path, err);
    if (r < 0) {
        secret_free(secret, room + 1);
        return r;
    }
    *ret = secret;
    *size = got;
    return 0;
}

static int secret_read(char **ret, size_t *size, const char *path, bool mounted, struct pen_error *err)
{
    int fd, r;

    /* O_NONBLOCK: a FIFO must not hold the loop before we see that it is one. */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return pen_error_set(err, -errno, "cannot open the secret in %s: %s%s", path, strerror(errno), errno == ENOENT
                             ? "; write it there, or let the unit's LoadCredential= bring it" : "");
    r = secret_read_fd(ret, size, fd, path, mounted, err);
    (void)close(fd);
    return r;
}

int pen_secret_read(char **ret, size_t *size, const char *path, struct pen_error *err)
{
    return secret_read(ret, size, path, false, err);
}

int secret_read_mounted(char **ret, size_t *size, const char *path, struct pen_error *err)
{
    return secret_read(ret, size, path, true, err);
}

void pen_secret_wipe(char *secret, size_t size)
{
    secret_free(secret, size);
}
