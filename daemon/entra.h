/*
 * entra.h - tokens of Microsoft Entra ID for the far ends. Now: client secret.
 *
 * A token is fetched when first asked for, renewed from 5 minutes before its end (MSAL's margin) or from when Entra says,
 * fetched once for all who wait (single flight), and thrown away by entra_spoiled() when a far end answered 401 to it.
 * While a renewal is under way or fails, the old token serves until its end.
 */
#ifndef DAEMON_ENTRA_H
#define DAEMON_ENTRA_H

#include "daemon/http.h"

struct entra;

struct entra_conf {                  /* texts are borrowed for the object's life */
    const char *authority;           /* https://login.microsoftonline.com */
    const char *tenant, *client;
    const char *secret_file;         /* read anew for every fetch, so that rotation needs no restart */
    const char *scope;               /* https://monitor.azure.com/.default */
    struct http_conf http;
};

/* token: NULL where none could be had; then why says so for people, and refused tells our fault (bad secret, unknown
 * tenant) from a passing one; retry_after_ms is -1 or what the endpoint asked for. */
typedef void (*entra_done)(void *arg, const char *token, bool refused, int64_t retry_after_ms, const char *why);

/* Whether the conf's URL and ids can be what they should be. */
int entra_conf_check(const struct entra_conf *conf, struct pen_error *err);
/* Checks the conf as well; the secret file is first read when a token is asked for. */
int entra_new(struct entra **ret, struct http *http, uv_loop_t *loop, const struct entra_conf *conf,
              struct pen_error *err);
/* Calls back on a later turn, exactly once, unless entra_close() comes first. */
void entra_token(struct entra *entra, entra_done done, void *arg);
/* The far end refused this token: fetch a new one before answering the next asker. Ignored when a newer one is held. */
void entra_spoiled(struct entra *entra, const char *token);
/* How long the token that was handed out last lives yet; 0: it is over, or there was none. */
uint64_t entra_life_ms(const struct entra *entra);
void entra_close(struct entra *entra);            /* wipes the token; callbacks still due are dropped; accepts NULL */
/* For tests, which bring their own clock: milliseconds that only grow. */
void entra_set_clock(struct entra *entra, uint64_t (*now_ms)(void));

#endif
