/*
 * assertion.h - the JWT by which an app with a certificate proves to Entra that it has the key
 * [entra identity-platform/certificate-credentials.md].
 */
#ifndef DAEMON_ASSERTION_H
#define DAEMON_ASSERTION_H

#include "parsers/parser.h"

struct assertion_conf {
    const char *certificate_file;    /* PEM with certificate and key in any order, or PKCS#12 */
    const char *password_file;       /* NULL: it needs none */
    bool rs256;                      /* RS256 with the certificate's SHA-1; else PS256 with its SHA-256 */
    const char *audience;            /* the token endpoint's URL */
    const char *client;              /* iss and sub */
    int64_t now;                     /* seconds since 1970 */
};

/* Good for 10 minutes, in secret memory. The sentence names the file, and never quotes it. */
int assertion_make(char **ret, const struct assertion_conf *conf, struct pen_error *err);

#endif
