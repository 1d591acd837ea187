/*
 * secret.c - secrets come from files, are read when they are needed, and are wiped behind their use.
 *
 * Symlinks are followed: systemd and Kubernetes both lay credentials out that way. What counts is the file at the end of
 * them. It must not be open to the world, unless it lies in $CREDENTIALS_DIRECTORY, whose modes the service manager
 * chooses and which no other user can enter.
 */
#include "daemon/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define SECRET_MAX ((size_t)64 * 1024)

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

static int secret_admit(int fd, const char *path, struct pen_error *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return pen_error_set(err, -errno, "cannot read the secret in %s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return pen_error_set(err, UV_EINVAL, "cannot read the secret in %s: it is not a file", path);
    if ((st.st_mode & S_IRWXO) != 0 && !secret_is_credential(path))
        return pen_error_set(err, UV_EPERM, "the secret in %s is open to everyone on this machine (mode %03o): chmod o= it",
                             path, (unsigned)(st.st_mode & 0777));
    return 0;
}

/* No stdio here: its buffers would keep a copy. */
static int secret_load(char *secret, size_t *size, int fd, const char *path, struct pen_error *err)
{
    ssize_t n;

    *size = 0;
    while (*size <= SECRET_MAX) {
        n = read(fd, secret + *size, SECRET_MAX + 1 - *size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return pen_error_set(err, -errno, "cannot read the secret in %s: %s", path, strerror(errno));
        if (n == 0)
            break;
        *size += (size_t)n;
    }
    if (*size > SECRET_MAX)
        return pen_error_set(err, UV_EFBIG, "the secret in %s is longer than %zu bytes", path, SECRET_MAX);
    if (*size > 0 && secret[*size - 1] == '\n')
        *size -= *size > 1 && secret[*size - 2] == '\r' ? 2 : 1;
    if (*size == 0)
        return pen_error_set(err, UV_EINVAL, "the secret in %s is empty", path);
    secret[*size] = '\0';
    return 0;
}

static int secret_read_fd(char **ret, size_t *size, int fd, const char *path, struct pen_error *err)
{
    char *secret;
    size_t got;
    int r;

    r = secret_admit(fd, path, err);
    if (r < 0)
        return r;
    secret = malloc(SECRET_MAX + 2);
    if (secret == NULL)
        return pen_error_set(err, UV_ENOMEM, "out of memory");
    r = secret_load(secret, &got, fd, path, err);
    if (r < 0) {
        pen_secret_wipe(secret, SECRET_MAX + 2);
        return r;
    }
    *ret = secret;
    *size = got;
    return 0;
}

int pen_secret_read(char **ret, size_t *size, const char *path, struct pen_error *err)
{
    int fd, r;

    /* O_NONBLOCK: a FIFO must not hold the loop before we see that it is one. */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return pen_error_set(err, -errno, "cannot open the secret in %s: %s", path, strerror(errno));
    r = secret_read_fd(ret, size, fd, path, err);
    (void)close(fd);
    return r;
}

void pen_secret_wipe(char *secret, size_t size)
{
    if (secret == NULL)
        return;
    explicit_bzero(secret, size);
    free(secret);
}
