/*
 * settings_compare.c - what a new configuration changes of the one that runs.
 *
 * Sections are compared as they take effect: the same keys with the same values, in any order, are the same. So is what
 * lies in the files they name, where that is read once, at the opening: a password that was rotated under the same name is a
 * change. Secrets themselves are not kept for that, but a salted print of them.
 */
#include "daemon/config/settings.h"

#include "daemon/config/option.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (1 << 20)           /* of a file, so much is looked at: more than any that is taken may hold */

/* Entra's, read anew for every token (entra.h): the one who holds it need not be told. */
static const char *const read_anew[] = { "secret_file", "certificate_file", "certificate_password_file", NULL };

/* ---- [daemon] ---- */

static bool texts_differ(const char *a, const char *b)
{
    return (a == NULL) != (b == NULL) || (a != NULL && strcmp(a, b) != 0);
}

const char *settings_fixed(const struct settings *old, const struct settings *new)
{
    if (texts_differ(old->daemon.state_dir, new->daemon.state_dir))
        return "state_dir";
    if (old->daemon.workers != new->daemon.workers)
        return "workers";
    if (texts_differ(old->daemon.plugin_dir, new->daemon.plugin_dir))
        return "plugin_dir";
    return NULL;
}

/* ---- Files ---- */

static bool is_printed(const struct pen_option *row)
{
    if (strcmp(row->name, "ca_file") == 0)
        return true;
    for (size_t i = 0; read_anew[i] != NULL; i++)
        if (strcmp(row->name, read_anew[i]) == 0)
            return false;
    return row->type == PEN_SECRET_FILE;
}

/* What cannot be read is empty here: whoever opens it says why. */
static void print_file(EVP_MD_CTX *digest, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    unsigned char bytes[4096];
    struct stat st;
    ssize_t n = 0;

    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        for (size_t sum = 0; sum < FILE_MAX && (n = read(fd, bytes, sizeof(bytes))) > 0; sum += (size_t)n)
            EVP_DigestUpdate(digest, bytes, (size_t)n);
    explicit_bzero(bytes, sizeof(bytes));
    close(fd);
}

void settings_print_files(struct settings_print *ret, struct pen_conf *section, const struct pen_option *rows)
{
    static unsigned char salt[32];
    static bool salted;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    const char *path;
    int r = 1;

    if (!salted)
        r = RAND_bytes(salt, sizeof(salt));
    salted = true;
    if (digest == NULL || r != 1 || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1)
        abort();
    EVP_DigestUpdate(digest, salt, sizeof(salt));
    for (; rows != NULL && rows->name != NULL; rows++) {
        path = is_printed(rows) ? conf_value(section, rows->name) : NULL;
        if (path == NULL)
            continue;
        EVP_DigestUpdate(digest, rows->name, strlen(rows->name) + 1);
        print_file(digest, path);
    }
    EVP_DigestFinal_ex(digest, ret->bytes, NULL);
    EVP_MD_CTX_free(digest);
}

bool settings_prints_agree(const struct settings_print *a, const struct settings_print *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/* ---- Sections ---- */

static bool files_agree(struct pen_conf *section, const struct pen_option *rows, const struct settings_print *opened)
{
    struct settings_print now;

    settings_print_files(&now, section, rows);
    return settings_prints_agree(&now, opened);
}

enum settings_change settings_compare_source(const struct source_settings *old, const struct settings_print *opened,
                                             const struct source_settings *new)
{
    if (!conf_sections_agree(old->section, new->section, NULL) || !files_agree(new->section, new->type->options, opened))
        return SETTINGS_CHANGED;
    return SETTINGS_SAME;
}

enum settings_change settings_compare_sink(const struct sink_settings *old, const struct settings_print *opened,
                                           const struct sink_settings *new)
{
    if (old->type != new->type || strcmp(settings_schema(old), settings_schema(new)) != 0 ||
        !conf_sections_agree(old->section, new->section, sink_options) ||
        !files_agree(new->section, new->type->options, opened))
        return SETTINGS_CHANGED;
    return conf_sections_agree(old->section, new->section, NULL) ? SETTINGS_SAME : SETTINGS_ROWS;
}
