/*
 * entra.h - tokens of Microsoft Entra ID for the far ends, by every identity that Azure gives a daemon.
 *
 * Who we are (an app with a secret, a certificate or a federated token; a machine's managed identity) is a matter of
 * settings: the rows below are the same for every sink and source, and so is what comes of them, a bearer token for a
 * scope.
 *
 * A token is fetched when first asked for, renewed from 5 minutes before its end (MSAL's margin), from when Entra
 * says, or from half its life where a managed one lives for two hours and more; fetched once for all who wait (single
 * flight, over all sinks and sources of one identity and scope); and thrown away by entra_spoiled() when a far end
 * answered 401 to it. While a renewal is under way or fails, the old token serves until its end.
 */
#ifndef DAEMON_ENTRA_H
#define DAEMON_ENTRA_H

#include "daemon/remote/http.h"

struct entra;

enum entra_auth { ENTRA_AUTO, ENTRA_SECRET, ENTRA_CERTIFICATE, ENTRA_WORKLOAD, ENTRA_MANAGED, ENTRA_AUTHS };
enum entra_cloud { ENTRA_PUBLIC, ENTRA_USGOV, ENTRA_CHINA };
enum entra_audience { ENTRA_MONITOR, ENTRA_STORAGE, ENTRA_MANAGEMENT };    /* what a token is for, where scope is NULL */

struct entra_conf {                  /* filled by rows; entra_new() copies what it keeps */
    int auth, cloud;                 /* enum entra_auth, enum entra_cloud */
    const char *tenant, *client;     /* the app's; client also a user-assigned identity's */
    const char *identity;            /* a user-assigned identity by its resource id or object id */
    const char *secret_file;         /* files are read anew for every fetch, so that rotation needs no restart */
    const char *certificate_file, *certificate_password_file;
    int signature;                   /* 0: PS256, 1: RS256 */
    const char *token_file;
    const char *authority;           /* https://login.microsoftonline.com; NULL: the cloud's */
    const char *scope;               /* https://monitor.azure.com/.default; NULL: by cloud and audience */
    enum entra_audience audience;
    struct http_conf http;           /* managed identities are asked without its proxy */
};

extern const char *const entra_auth_names[], *const entra_cloud_names[], *const entra_signature_names[];

/* The rows of a struct that has a struct entra_conf as `member`; `auth` is apart, since some know more ways than these. */
#define ENTRA_AUTH_ROW(type, member)                                                                                    \
    { "auth", PEN_CHOICE, offsetof(type, member.auth), .fallback = "auto", .choices = entra_auth_names,                 \
      .help = "Who we are to Entra; auto is what the files below say, else the environment (AZURE_…), else the "        \
              "machine's managed identity." }
#define ENTRA_ROWS(type, member)                                                                                        \
    { "tenant", PEN_TEXT, offsetof(type, member.tenant), .help = "The app's Entra tenant: its id or one of its domains." }, \
    { "client", PEN_TEXT, offsetof(type, member.client),                                                                \
      .help = "The app registration's application (client) id; or that of a user-assigned managed identity." },         \
    { "secret_file", PEN_SECRET_FILE, offsetof(type, member.secret_file),                                               \
      .help = "File with the app's client secret; like the other files, read anew for every token." },                  \
    { "certificate_file", PEN_SECRET_FILE, offsetof(type, member.certificate_file),                                     \
      .help = "File with the app's certificate and its RSA key: PEM or PKCS#12." },                                     \
    { "certificate_password_file", PEN_SECRET_FILE, offsetof(type, member.certificate_password_file),                   \
      .help = "File with the password of certificate_file, where it has one." },                                        \
    { "signature", PEN_CHOICE, offsetof(type, member.signature), .fallback = "PS256", .choices = entra_signature_names, \
      .help = "How the certificate signs." },                                                                           \
    { "token_file", PEN_PATH, offsetof(type, member.token_file),                                                        \
      .help = "File with the token of another issuer that the app trusts (federated credential); "                      \
              "without the row, AZURE_FEDERATED_TOKEN_FILE." },                                                         \
    { "identity", PEN_TEXT, offsetof(type, member.identity),                                                            \
      .help = "A user-assigned managed identity by its resource id (/subscriptions/…) or object id, in place of client." }, \
    { "cloud", PEN_CHOICE, offsetof(type, member.cloud), .fallback = "public", .choices = entra_cloud_names,            \
      .help = "Whose Azure: it settles authority and scope." },                                                         \
    { "authority", PEN_URL, offsetof(type, member.authority),                                                           \
      .help = "Where an app's tokens come from, where cloud does not say it." },                                        \
    { "scope", PEN_TEXT, offsetof(type, member.scope), .help = "What tokens are for, where cloud does not say it." }

/* token: NULL where none could be had; then why says so for people, and refused tells our fault (bad secret, unknown
 * tenant) from a passing one. retry_after_ms is -1, or how long a passing one is held back. A refusal is remembered
 * for a minute, or until the files of the identity change: asking again before costs nothing. */
typedef void (*entra_done)(void *arg, const char *token, bool refused, int64_t retry_after_ms, const char *why);

/* What single rows cannot tell; the sentence begins with the key. Neither files nor the environment are looked at. */
int entra_conf_check(const struct entra_conf *conf, struct pen_error *err);
/* Whether the far end (an URL, or host:port) is in the cloud that is set; any other host may be anywhere. `key` named it. */
int entra_cloud_check(const struct entra_conf *conf, const char *key, const char *far_end, struct pen_error *err);
/* Checks the conf as well, and the environment; files are first read when a token is asked for. */
int entra_new(struct entra **ret, struct http *http, uv_loop_t *loop, const struct entra_conf *conf,
              struct pen_error *err);
/* Calls back on a later turn, exactly once, unless entra_close() comes first. */
void entra_token(struct entra *entra, entra_done done, void *arg);
/* The far end refused this token: fetch a new one before answering the next asker. Ignored when a newer one is held. */
void entra_spoiled(struct entra *entra, const char *token);
/* How long the token that was handed out last lives yet; 0: it is over, or there was none. */
uint64_t entra_life_ms(const struct entra *entra);
/* Callbacks still due are dropped; the last to close wipes the token. Accepts NULL. */
void entra_close(struct entra *entra);
/* For tests, which bring their own clock: milliseconds that only grow. */
void entra_set_clock(struct entra *entra, uint64_t (*now_ms)(void));

#endif
