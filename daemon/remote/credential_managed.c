/*
 * credential_managed.c - the machine's own identity: IMDS on a VM, App Service and Container Apps, Azure Arc.
 *
 * Where we run is told by the environment, in MSAL's order [AzureAD/microsoft-authentication-library-for-python,
 * managed_identity.py]. The endpoints speak plain http on the machine or its link; no proxy may ever see them.
 *
 * Arc proves that its caller may read what its group may: the first answer is a 401 which names a file. The name
 * comes over plain http from whoever listens on that port, so it is taken for nothing but a name in one folder, of a
 * small regular file that ends in .key, and no link is followed on the way to it.
 */
#include "daemon/remote/credential.h"

#include "daemon/base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define IMDS_HOST  "http://169.254.169.254"
#define TOKEN_PATH "/metadata/identity/oauth2/token"
#define ARC_URL    "http://localhost:40342" TOKEN_PATH
#define ARC_KEY_MAX 4096

/* ---- Where we are ---------------------------------------------------------------------------------------------- */

/* Where the agent's package puts it, and where Microsoft's documentation has had it. */
static bool arc_agent_is_here(void)
{
    return access("/opt/azcmagent/bin/himds", F_OK) == 0 || access("/var/opt/azcmagent/bin/himds", F_OK) == 0;
}

static char *url_text(const char *host, const char *path)
{
    size_t size = strlen(host);
    char *url;

    while (size > 0 && host[size - 1] == '/' && *path != '\0')
        size--;
    if (asprintf(&url, "%.*s%s", (int)size, host, path) < 0)
        abort();
    return url;
}

static bool is_set(const char *name)
{
    const char *value = getenv(name);

    return value != NULL && *value != '\0';
}

int managed_find(struct credential *credential, struct pen_error *err)
{
    const char *host = getenv("AZURE_POD_IDENTITY_AUTHORITY_HOST");    /* where a cluster stands in for IMDS; MSAL's name */
    struct pen_error inner = { 0 };

    if (is_set("IDENTITY_ENDPOINT") && is_set("IDENTITY_HEADER")) {
        if (is_set("IDENTITY_SERVER_THUMBPRINT"))
            return pen_error_set(err, UV_ENOTSUP, "auth: this is Service Fabric, whose managed identities Penstock does not know: "
                                                  "use an app with a certificate");
        credential->kind = CREDENTIAL_APP_SERVICE;
        credential->url = url_text(getenv("IDENTITY_ENDPOINT"), "");
    } else if (is_set("IDENTITY_ENDPOINT") && is_set("IMDS_ENDPOINT")) {
        credential->kind = CREDENTIAL_ARC;
        credential->url = url_text(getenv("IDENTITY_ENDPOINT"), "");
    } else if (is_set("MSI_ENDPOINT")) {
        return pen_error_set(err, UV_ENOTSUP, "auth: this is Azure ML or the Cloud Shell (MSI_ENDPOINT), whose managed identities "
                                              "Penstock does not know");
    } else if (arc_agent_is_here()) {
        credential->kind = CREDENTIAL_ARC;
        credential->url = url_text(ARC_URL, "");
    } else {
        credential->kind = CREDENTIAL_IMDS;
        credential->url = url_text(host != NULL && *host != '\0' ? host : IMDS_HOST, TOKEN_PATH);
    }
    if (http_url_check(credential->url, HTTP_PLAIN_OK, &inner) < 0 || strpbrk(credential->url, "?#") != NULL)
        return pen_error_set(err, UV_EINVAL, "auth: the managed identity's endpoint in the environment is no URL without a query");
    if (credential->kind == CREDENTIAL_ARC && (credential->client != NULL || credential->identity != NULL))
        return pen_error_set(err, UV_EINVAL, "%s: a machine of Azure Arc has its own identity and no other",
                             credential->client != NULL ? "client" : "identity");
    return 0;
}

/* ---- The call -------------------------------------------------------------------------------------------------- */

void managed_call(const struct credential *credential, struct credential_call *call)
{
    static const char *const versions[] = {
        [CREDENTIAL_IMDS] = "2018-02-01", [CREDENTIAL_APP_SERVICE] = "2019-08-01", [CREDENTIAL_ARC] = "2020-06-01",
    };
    bool by_path = credential->identity != NULL && credential->identity[0] == '/';
    bool app_service = credential->kind == CREDENTIAL_APP_SERVICE;
    const char *header = app_service ? getenv("IDENTITY_HEADER") : NULL;
    char *resource = secret_text("%.*s", (int)(strlen(credential->scope) - strlen("/.default")), credential->scope);
    const struct credential_pair pairs[] = {
        { "api-version", versions[credential->kind] }, { "resource", resource }, { "client_id", credential->client },
        { by_path ? app_service ? "mi_res_id" : "msi_res_id" : "object_id", credential->identity },
    };
    char *query = credential_form(pairs, sizeof(pairs) / sizeof(*pairs));

    call->method = "GET";
    call->url = secret_text("%s?%s", credential->url, query);
    call->headers[0] = app_service ? secret_text("X-IDENTITY-HEADER: %s", header != NULL ? header : "")
                                   : secret_text("Metadata: true");
    secret_text_free(query);
    secret_text_free(resource);
}

/* ---- Arc's challenge ------------------------------------------------------------------------------------------- */

/* The name in `Basic realm=FOLDER/NAME.key`, or NULL. */
static const char *challenge_name(const char *challenge, const char *folder)
{
    static const char begin[] = "Basic realm=", end[] = ".key";
    size_t size = strlen(folder), name_size;
    const char *name;

    if (strncasecmp(challenge, begin, sizeof(begin) - 1) != 0)
        return NULL;
    name = challenge + sizeof(begin) - 1;
    if (strncmp(name, folder, size) != 0 || name[size] != '/')
        return NULL;
    name += size + 1;
    name_size = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.");
    if (name[name_size] != '\0' || name_size < sizeof(end) || name_size > 255 || name[0] == '.')
        return NULL;
    return strcmp(name + name_size - (sizeof(end) - 1), end) == 0 ? name : NULL;
}

static int key_load(char **ret, int fd, struct pen_error *err)
{
    char *key = secret_alloc(ARC_KEY_MAX + 2);
    struct stat st;
    ssize_t size;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > ARC_KEY_MAX ||
        (size = read(fd, key, ARC_KEY_MAX + 1)) <= 0 || size > ARC_KEY_MAX) {
        secret_free(key, ARC_KEY_MAX + 2);
        return pen_error_set(err, UV_EINVAL, "the agent's challenge names what is no file of 1 to %d bytes", ARC_KEY_MAX);
    }
    key[strcspn(key, "\r\n")] = '\0';
    *ret = key;
    return 0;
}

int managed_read_key(char **key, const char *challenge, const char *folder, struct pen_error *err)
{
    const char *name = challenge_name(challenge, folder);
    int dir, fd, r;

    if (name == NULL)
        return pen_error_set(err, UV_EINVAL, "the agent's challenge does not name a key in %s: is it the agent that answers there?",
                             folder);
    dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    fd = dir < 0 ? -1 : openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    r = fd < 0 ? pen_error_set(err, -errno, "cannot open the agent's key in %s: %s; the user needs the group himds", folder,
                               strerror(errno))
               : key_load(key, fd, err);
    if (fd >= 0)
        (void)close(fd);
    if (dir >= 0)
        (void)close(dir);
    return r;
}
