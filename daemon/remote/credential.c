/*
 * credential.c - see credential.h.
 *
 * Which one it is, is what the rows name, or else what the environment does, in the order of Azure's own libraries
 * (DefaultAzureCredential): an app's secret or certificate, workload identity, managed identity. At a secret in the
 * environment we stop with a sentence: secrets come from files alone, and passing over it would make us somebody else
 * without a word.
 */
#include "daemon/remote/credential.h"

#include "daemon/base/secret.h"
#include "daemon/remote/assertion.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ASSERTION_TYPE "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

/* ---- Which one ------------------------------------------------------------------------------------------------- */

static char *copied(const char *text)
{
    char *copy = text != NULL ? strdup(text) : NULL;

    if (text != NULL && copy == NULL)
        abort();
    return copy;
}

/* Empty counts as absent, as it does for Azure's libraries. */
static const char *variable(const char *name)
{
    const char *value = getenv(name);

    return value != NULL && *value != '\0' ? value : NULL;
}

/* Nothing in the rows says who we are. Values are lent by the environment. */
static int environment_fill(struct entra_conf *conf, struct pen_error *err)
{
    const char *client = variable("AZURE_CLIENT_ID");
    bool app = client != NULL && variable("AZURE_TENANT_ID") != NULL;

    if (app && variable("AZURE_CLIENT_SECRET") != NULL)
        return pen_error_set(err, UV_EINVAL, "auth: AZURE_CLIENT_SECRET is set, but secrets come from files alone: put it into one "
                                             "and name that in secret_file, or unset it");
    if (app && variable("AZURE_CLIENT_CERTIFICATE_PATH") != NULL) {
        if (variable("AZURE_CLIENT_CERTIFICATE_PASSWORD") != NULL)
            return pen_error_set(err, UV_EINVAL, "auth: AZURE_CLIENT_CERTIFICATE_PASSWORD is set, but secrets come from files "
                                                 "alone: put it into one and name that in certificate_password_file");
        conf->auth = ENTRA_CERTIFICATE;
        conf->certificate_file = variable("AZURE_CLIENT_CERTIFICATE_PATH");
    } else if (app && variable("AZURE_FEDERATED_TOKEN_FILE") != NULL) {
        conf->auth = ENTRA_WORKLOAD;
    } else {
        conf->auth = ENTRA_MANAGED;
    }
    return 0;
}

/* What rows leave out, where the environment may say it. */
static int variable_fill(const char **value, const char *name, const char *row, struct pen_error *err)
{
    if (*value == NULL)
        *value = variable(name);
    return *value != NULL ? 0 : pen_error_set(err, UV_EINVAL, "%s: it is not set, and neither is %s in the environment", row, name);
}

static int app_fill(struct entra_conf *conf, bool by_environment, struct pen_error *err)
{
    int r;

    if (!by_environment && conf->auth != ENTRA_WORKLOAD)
        return 0;
    r = variable_fill(&conf->tenant, "AZURE_TENANT_ID", "tenant", err);
    if (r == 0)
        r = variable_fill(&conf->client, "AZURE_CLIENT_ID", "client", err);
    if (r == 0 && conf->auth == ENTRA_WORKLOAD)
        r = variable_fill(&conf->token_file, "AZURE_FEDERATED_TOKEN_FILE", "token_file", err);
    if (conf->authority == NULL)
        conf->authority = variable("AZURE_AUTHORITY_HOST");
    return r;
}

static void app_take(struct credential *credential, const struct entra_conf *conf)
{
    const char *authority = entra_conf_authority(conf);
    size_t size = strlen(authority);

    while (size > 0 && authority[size - 1] == '/')
        size--;
    if (asprintf(&credential->url, "%.*s/%s/oauth2/v2.0/token", (int)size, authority, conf->tenant) < 0)
        abort();
    credential->kind = conf->auth == ENTRA_SECRET ? CREDENTIAL_SECRET : conf->auth == ENTRA_CERTIFICATE ? CREDENTIAL_CERTIFICATE
                                                                                                       : CREDENTIAL_FEDERATED;
    credential->file = copied(conf->auth == ENTRA_SECRET ? conf->secret_file : conf->auth == ENTRA_CERTIFICATE
                              ? conf->certificate_file : conf->token_file);
    credential->password_file = copied(conf->certificate_password_file);
    credential->rs256 = conf->signature == 1;
}

int credential_new(struct credential *credential, const struct entra_conf *given, struct pen_error *err)
{
    struct entra_conf conf = *given;
    bool by_environment;
    int r = entra_conf_check(given, err);

    if (r < 0)
        return r;
    *credential = (struct credential){ 0 };
    conf.auth = entra_conf_kind(given);
    by_environment = conf.auth == ENTRA_AUTO;
    if (by_environment)
        r = environment_fill(&conf, err);
    if (r == 0 && by_environment && conf.auth == ENTRA_MANAGED && conf.client == NULL)
        conf.client = variable("AZURE_CLIENT_ID");
    if (r == 0 && conf.auth != ENTRA_MANAGED)
        r = app_fill(&conf, by_environment, err);
    if (r == 0)
        r = entra_conf_check(&conf, err);          /* the environment's values, too */
    if (r < 0)
        return r;
    credential->client = copied(conf.client);
    credential->identity = copied(conf.identity);
    credential->scope = copied(entra_conf_scope(&conf));
    if (conf.auth == ENTRA_MANAGED)
        r = managed_find(credential, err);
    else
        app_take(credential, &conf);
    if (r < 0)
        credential_clear(credential);
    return r;
}

void credential_clear(struct credential *credential)
{
    free(credential->url);
    free(credential->client);
    free(credential->identity);
    free(credential->scope);
    free(credential->file);
    free(credential->password_file);
    *credential = (struct credential){ 0 };
}

static bool text_same(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

bool credential_same(const struct credential *a, const struct credential *b)
{
    return a->kind == b->kind && a->rs256 == b->rs256 && text_same(a->url, b->url) && text_same(a->client, b->client) &&
           text_same(a->identity, b->identity) && text_same(a->scope, b->scope) && text_same(a->file, b->file) &&
           text_same(a->password_file, b->password_file);
}

bool credential_is_managed(const struct credential *credential)
{
    return credential->kind >= CREDENTIAL_IMDS;
}

/* ---- Its files ------------------------------------------------------------------------------------------------- */

struct credential_stamp credential_stamp(const struct credential *credential)
{
    const char *const paths[] = { credential->file, credential->password_file };
    struct credential_stamp stamp;
    struct stat st;

    memset(&stamp, 0, sizeof(stamp));              /* it is compared byte by byte */
    for (int i = 0; i < 2; i++) {
        if (paths[i] == NULL || stat(paths[i], &st) < 0)
            continue;
        stamp.files[i].dev = st.st_dev;
        stamp.files[i].ino = st.st_ino;
        stamp.files[i].size = st.st_size;
        stamp.files[i].mtime = st.st_mtim;
        stamp.files[i].ctime = st.st_ctim;
    }
    return stamp;
}

/* ---- The call -------------------------------------------------------------------------------------------------- */

/* Adds the value, percent-encoded, and returns the new end. Room is three bytes per byte. */
static char *form_encode(char *at, const char *value)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    static const char hex[] = "0123456789ABCDEF";

    for (; *value != '\0'; value++) {
        unsigned char c = (unsigned char)*value;

        if (strchr(plain, c)) {
            *at++ = (char)c;
        } else {
            *at++ = '%';
            *at++ = hex[c >> 4];
            *at++ = hex[c & 15];
        }
    }
    return at;
}

char *credential_form(const struct credential_pair *pairs, size_t count)
{
    char *form, *at;
    size_t room = 1;

    for (size_t i = 0; i < count; i++)
        if (pairs[i].value != NULL)
            room += strlen(pairs[i].name) + 3 * strlen(pairs[i].value) + 2;
    form = at = secret_alloc(room);
    for (size_t i = 0; i < count; i++) {
        if (pairs[i].value == NULL)
            continue;
        if (at > form)
            *at++ = '&';
        at = stpcpy(at, pairs[i].name);
        *at++ = '=';
        at = form_encode(at, pairs[i].value);
    }
    *at = '\0';
    return form;
}

/* The secret, or what stands for it, as the form's last value. A NUL within a file ends it: no such thing is taken by Entra. */
static int proof_make(const struct credential *credential, char **proof, size_t *size, struct pen_error *err)
{
    switch (credential->kind) {
    case CREDENTIAL_SECRET:
        return pen_secret_read(proof, size, credential->file, err);
    case CREDENTIAL_FEDERATED:
        return secret_read_mounted(proof, size, credential->file, err);
    case CREDENTIAL_CERTIFICATE: {
        struct assertion_conf conf = {
            .certificate_file = credential->file, .password_file = credential->password_file, .rs256 = credential->rs256,
            .audience = credential->url, .client = credential->client, .now = (int64_t)time(NULL),
        };
        int r = assertion_make(proof, &conf, err);

        *size = r == 0 ? strlen(*proof) : 0;
        return r;
    }
    case CREDENTIAL_IMDS:
    case CREDENTIAL_APP_SERVICE:
    case CREDENTIAL_ARC:
        break;
    }
    assert(!"a managed identity has no proof of its own");
    return UV_EINVAL;
}

static int app_call(const struct credential *credential, struct credential_call *call, struct pen_error *err)
{
    bool secret = credential->kind == CREDENTIAL_SECRET;
    struct credential_pair pairs[] = {
        { "grant_type", "client_credentials" }, { "client_id", credential->client }, { "scope", credential->scope },
        { "client_assertion_type", secret ? NULL : ASSERTION_TYPE }, { secret ? "client_secret" : "client_assertion", NULL },
    };
    char *proof;
    size_t size;
    int r = proof_make(credential, &proof, &size, err);

    if (r < 0)
        return r;
    pairs[4].value = proof;
    call->method = "POST";
    call->url = secret_text("%s", credential->url);
    call->headers[0] = secret_text("Content-Type: application/x-www-form-urlencoded");
    call->headers[1] = secret_text("Accept: application/json");
    call->body = credential_form(pairs, sizeof(pairs) / sizeof(*pairs));
    secret_free(proof, size);
    return 0;
}

int credential_call(const struct credential *credential, struct credential_call *call, struct pen_error *err)
{
    *call = (struct credential_call){ 0 };
    if (!credential_is_managed(credential))
        return app_call(credential, call, err);
    managed_call(credential, call);
    return 0;
}

int credential_call_again(const struct credential *credential, const char *challenge, struct credential_call *call,
                          struct pen_error *err)
{
    char *key;
    int r = managed_read_key(&key, challenge, MANAGED_ARC_KEYS, err);

    if (r < 0)
        return r;
    *call = (struct credential_call){ 0 };
    managed_call(credential, call);
    call->headers[1] = secret_text("Authorization: Basic %s", key);
    secret_text_free(key);
    return 0;
}

void credential_call_wipe(struct credential_call *call)
{
    secret_text_free(call->url);
    secret_text_free(call->headers[0]);
    secret_text_free(call->headers[1]);
    secret_text_free(call->body);
    *call = (struct credential_call){ 0 };
}
