/*
 * entra_answer.h - what a token endpoint says, and what that means: a token, our fault, or a passing one.
 *
 * Everything in an answer is hostile: a token is visible ASCII of bounded length, a life is bounded, and of an error
 * only its code and trace id reach a log line, with words of our own beside them.
 */
#ifndef DAEMON_ENTRA_ANSWER_H
#define DAEMON_ENTRA_ANSWER_H

#include "daemon/remote/credential.h"

#define ENTRA_WHY_MAX 512

struct entra_answer {
    char *token;                     /* in secret memory, the caller's; NULL: none, and then: */
    bool refused;                    /* our fault, else a passing one */
    int64_t hold_ms;                 /* what the endpoint asks for, or -1 */
    char why[ENTRA_WHY_MAX];
    int64_t life_s;                  /* with a token: from when it was asked for */
    int64_t renew_s;                 /* when the endpoint wants it to be renewed, or 0 */
};

/* now: seconds since 1970, for answers that name the token's end rather than its life. */
void entra_answer_read(struct entra_answer *answer, const struct credential *credential, const struct http_answer *http,
                       int64_t now);
/* A refusal of our own: no call could be made. */
void entra_answer_refuse(struct entra_answer *answer, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
