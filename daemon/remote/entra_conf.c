/*
 * entra_conf.c - settings of an identity: which rows belong to which kind, and what a cloud settles.
 */
#include "daemon/remote/credential.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

const char *const entra_auth_names[] = {
    [ENTRA_AUTO] = "auto", [ENTRA_SECRET] = "secret", [ENTRA_CERTIFICATE] = "certificate", [ENTRA_WORKLOAD] = "workload-identity",
    [ENTRA_MANAGED] = "managed-identity", NULL,
};
const char *const entra_cloud_names[] = { [ENTRA_PUBLIC] = "public", [ENTRA_USGOV] = "usgov", [ENTRA_CHINA] = "china", NULL };
const char *const entra_signature_names[] = { "PS256", "RS256", NULL };

/* Storage has one audience in all clouds [learn.microsoft.com, authorize-with-azure-active-directory]; the others are
 * azure-identity's and the Logs Ingestion API's own tables. */
static const struct {
    const char *authority, *scopes[3];
} clouds[] = {
    [ENTRA_PUBLIC] = { "https://login.microsoftonline.com",
                       { [ENTRA_MONITOR] = "https://monitor.azure.com/.default",
                         [ENTRA_STORAGE] = "https://storage.azure.com/.default",
                         [ENTRA_MANAGEMENT] = "https://management.azure.com/.default" } },
    [ENTRA_USGOV] = { "https://login.microsoftonline.us",
                      { [ENTRA_MONITOR] = "https://monitor.azure.us/.default",
                        [ENTRA_STORAGE] = "https://storage.azure.com/.default",
                        [ENTRA_MANAGEMENT] = "https://management.usgovcloudapi.net/.default" } },
    [ENTRA_CHINA] = { "https://login.chinacloudapi.cn",
                      { [ENTRA_MONITOR] = "https://monitor.azure.cn/.default",
                        [ENTRA_STORAGE] = "https://storage.azure.com/.default",
                        [ENTRA_MANAGEMENT] = "https://management.chinacloudapi.cn/.default" } },
};

const char *entra_conf_authority(const struct entra_conf *conf)
{
    return conf->authority != NULL ? conf->authority : clouds[conf->cloud].authority;
}

const char *entra_conf_scope(const struct entra_conf *conf)
{
    return conf->scope != NULL ? conf->scope : clouds[conf->cloud].scopes[conf->audience];
}

/* ---- Far ends, by their domains -------------------------------------------------------------------------------- */

static const struct {
    const char *domain;
    enum entra_cloud cloud;
} domains[] = {
    { ".azure.com", ENTRA_PUBLIC }, { ".windows.net", ENTRA_PUBLIC }, { ".azure.us", ENTRA_USGOV },
    { ".usgovcloudapi.net", ENTRA_USGOV }, { ".azure.cn", ENTRA_CHINA }, { ".chinacloudapi.cn", ENTRA_CHINA },
};

int entra_cloud_check(const struct entra_conf *conf, const char *key, const char *far_end, struct pen_error *err)
{
    const char *host = strstr(far_end, "://");
    size_t size, end;

    if (conf->authority != NULL && conf->scope != NULL)
        return 0;                                  /* the user knows better */
    host = host != NULL ? host + 3 : far_end;
    size = strcspn(host, "/:,?#");
    for (size_t i = 0; i < sizeof(domains) / sizeof(*domains); i++) {
        end = strlen(domains[i].domain);
        if (size > end && strncasecmp(host + size - end, domains[i].domain, end) == 0 && (int)domains[i].cloud != conf->cloud)
            return pen_error_set(err, UV_EINVAL, "cloud: %s is in another of Azure's clouds: set cloud = %s", key,
                                 entra_cloud_names[domains[i].cloud]);
    }
    return 0;
}

/* ---- Rows and kinds -------------------------------------------------------------------------------------------- */

#define OF(kind) (1u << (kind))
#define APPS (OF(ENTRA_SECRET) | OF(ENTRA_CERTIFICATE))

static const struct row {
    const char *name;
    size_t offset;                   /* of a text in struct entra_conf */
    unsigned needed, taken;          /* by these kinds; what is needed is taken */
    const char *what;
} rows[] = {
    { "tenant", offsetof(struct entra_conf, tenant), APPS, OF(ENTRA_WORKLOAD), "the Entra tenant's id or a domain of it" },
    { "client", offsetof(struct entra_conf, client), APPS, OF(ENTRA_WORKLOAD) | OF(ENTRA_MANAGED),
      "the app registration's application (client) id" },
    { "identity", offsetof(struct entra_conf, identity), 0, OF(ENTRA_MANAGED), "" },
    { "secret_file", offsetof(struct entra_conf, secret_file), OF(ENTRA_SECRET), 0, "the file with the app's client secret" },
    { "certificate_file", offsetof(struct entra_conf, certificate_file), OF(ENTRA_CERTIFICATE), 0,
      "the file with the app's certificate and key" },
    { "certificate_password_file", offsetof(struct entra_conf, certificate_password_file), 0, OF(ENTRA_CERTIFICATE), "" },
    { "token_file", offsetof(struct entra_conf, token_file), 0, OF(ENTRA_WORKLOAD), "" },
};

static const char *row_value(const struct row *row, const struct entra_conf *conf)
{
    return *(const char *const *)((const char *)conf + row->offset);
}

enum entra_auth entra_conf_kind(const struct entra_conf *conf)
{
    if (conf->auth != ENTRA_AUTO)
        return (enum entra_auth)conf->auth;
    return conf->secret_file != NULL ? ENTRA_SECRET : conf->certificate_file != NULL ? ENTRA_CERTIFICATE
         : conf->token_file != NULL ? ENTRA_WORKLOAD : conf->identity != NULL ? ENTRA_MANAGED : ENTRA_AUTO;
}

static int rows_check(const struct entra_conf *conf, struct pen_error *err)
{
    enum entra_auth kind = entra_conf_kind(conf);

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        const struct row *row = &rows[i];
        bool given = row_value(row, conf) != NULL;

        if (!given && (row->needed & OF(kind)))
            return pen_error_set(err, UV_EINVAL, "%s: auth = %s needs it: %s", row->name, entra_auth_names[kind], row->what);
        if (given && kind != ENTRA_AUTO && !((row->needed | row->taken) & OF(kind)))
            return pen_error_set(err, UV_EINVAL, "%s: auth = %s has no use for it: take it out, or say another auth", row->name,
                                 entra_auth_names[kind]);
    }
    /* Nothing but a tenant is an app whose proof was forgotten, and no wish to be this machine. */
    if (kind == ENTRA_AUTO && conf->tenant != NULL)
        return pen_error_set(err, UV_EINVAL, "tenant: an app needs a secret_file, a certificate_file or a token_file as well");
    return 0;
}

/* ---- Values ---------------------------------------------------------------------------------------------------- */

static bool text_is_guid(const char *text)
{
    return pen_guid_valid((struct pen_span){ text, strlen(text) });
}

/* It becomes a part of the URL's path. A word without a dot is the directory's display name, which Entra does not know. */
static bool tenant_fits(const char *tenant)
{
    size_t size = strspn(tenant, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.");

    return size <= 253 && tenant[size] == '\0' && tenant[0] != '.' && (text_is_guid(tenant) || strchr(tenant, '.') != NULL);
}

static bool scope_fits(const char *scope)
{
    static const char end[] = "/.default";
    size_t size = strlen(scope);

    return size >= sizeof(end) && strcmp(scope + size - (sizeof(end) - 1), end) == 0;
}

int entra_conf_check(const struct entra_conf *conf, struct pen_error *err)
{
    struct pen_error inner = { 0 };

    if (http_url_check(entra_conf_authority(conf), 0, &inner) < 0)
        return pen_error_set(err, UV_EINVAL, "authority: %.*s", 400, inner.text);
    if (strpbrk(entra_conf_authority(conf), "?# \"\\"))          /* quotes: it becomes a claim as well */
        return pen_error_set(err, UV_EINVAL, "authority: expected https://HOST without anything behind it");
    if (conf->tenant != NULL && !tenant_fits(conf->tenant))
        return pen_error_set(err, UV_EINVAL, "tenant: expected the tenant's id (a GUID) or one of its domains, such as "
                             "acme.onmicrosoft.com");
    if (conf->client != NULL && !text_is_guid(conf->client))
        return pen_error_set(err, UV_EINVAL, "client: expected the application's id, a GUID");
    if (conf->identity != NULL && conf->identity[0] != '/' && !text_is_guid(conf->identity))
        return pen_error_set(err, UV_EINVAL, "identity: expected a resource id, /subscriptions/…, or an object id, a GUID");
    if (conf->identity != NULL && conf->client != NULL)
        return pen_error_set(err, UV_EINVAL, "identity: it names the identity in place of client: take one of them out");
    if (!scope_fits(entra_conf_scope(conf)))
        return pen_error_set(err, UV_EINVAL, "scope: expected the far end's address followed by /.default");
    return rows_check(conf, err);
}
