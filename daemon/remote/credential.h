/*
 * credential.h - who we are to Entra, and the request that proves it: one call for one token.
 *
 *     secret, certificate, federated    POST {authority}/{tenant}/oauth2/v2.0/token, a form
 *     IMDS (a VM), App Service          GET, a query and a header
 *     Azure Arc                         GET; a 401 names a file that only the agent's group may read; GET with its content
 *
 * What a credential reads (files, the platform's header) it reads anew for every call. Its stamp tells whether the
 * files have changed since, without reading them.
 */
#ifndef DAEMON_CREDENTIAL_H
#define DAEMON_CREDENTIAL_H

#include "daemon/remote/entra.h"

#include <sys/types.h>
#include <time.h>

#define CREDENTIAL_CHALLENGE_MAX 512 /* bytes of Arc's WWW-Authenticate */
#define MANAGED_ARC_KEYS "/var/opt/azcmagent/tokens"

enum credential_kind {
    CREDENTIAL_SECRET, CREDENTIAL_CERTIFICATE, CREDENTIAL_FEDERATED,
    CREDENTIAL_IMDS, CREDENTIAL_APP_SERVICE, CREDENTIAL_ARC,
};

/* What rows and environment say together. Texts are its own; NULL where there is none. */
struct credential {
    enum credential_kind kind;
    char *url;                       /* of the token endpoint */
    char *client;                    /* managed: a user-assigned identity's, or NULL */
    char *identity;                  /* managed: the same by resource id or object id */
    char *scope;                     /* https://…/.default */
    char *file;                      /* secret, certificate or token */
    char *password_file;             /* the certificate's */
    bool rs256;
};

struct credential_call {             /* texts in secret memory */
    const char *method;
    char *url;
    char *headers[3];                /* NULL-ended */
    char *body;                      /* NULL: none */
};

struct credential_stamp {            /* of its files; all zero where there are none */
    struct { dev_t dev; ino_t ino; off_t size; struct timespec mtime, ctime; } files[2];
};

/* Reads the environment, but no file. */
int credential_new(struct credential *credential, const struct entra_conf *conf, struct pen_error *err);
void credential_clear(struct credential *credential);
bool credential_same(const struct credential *a, const struct credential *b);
/* Of the machine rather than of an app: no secret of ours, and no proxy on the way. */
bool credential_is_managed(const struct credential *credential);

int credential_call(const struct credential *credential, struct credential_call *call, struct pen_error *err);
/* The same once more, with what Arc's challenge asks for. */
int credential_call_again(const struct credential *credential, const char *challenge, struct credential_call *call,
                          struct pen_error *err);
void credential_call_wipe(struct credential_call *call);
struct credential_stamp credential_stamp(const struct credential *credential);

/* "name=value&name=value", values percent-encoded, in secret memory. Pairs without a value are left out. */
struct credential_pair { const char *name, *value; };
char *credential_form(const struct credential_pair *pairs, size_t count);

/* ---- The managed ones: credential_managed.c ---- */

/* Which of them this process runs on, by the environment; UV_ENOTSUP with a sentence where it is one that we do not know. */
int managed_find(struct credential *credential, struct pen_error *err);
void managed_call(const struct credential *credential, struct credential_call *call);
/* A copy in secret memory of the file that Arc's hostile challenge names; no file outside of `folder` is ever opened. */
int managed_read_key(char **key, const char *challenge, const char *folder, struct pen_error *err);

/* ---- Settings: entra_conf.c ---- */

/* AUTO made definite by the rows, as far as they do that. */
enum entra_auth entra_conf_kind(const struct entra_conf *conf);
const char *entra_conf_authority(const struct entra_conf *conf);
const char *entra_conf_scope(const struct entra_conf *conf);

#endif
