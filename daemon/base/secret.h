/*
 * secret.h - memory for secrets: locked, so that it is never swapped; left out of core dumps; wiped when it is given
 * back.
 *
 * It is OpenSSL's secure heap, SECRET_HEAP large: room for the tokens and requests of some hundred identities at
 * once. Where it is full, or was not set up (commands that hold no secrets, unit tests), ordinary memory takes its
 * place, and only the wiping stays.
 *
 * libcurl and OpenSSL copy what they send and receive. That is ordinary memory, too, for as long as a request lasts;
 * then they give it back by the wiping functions below.
 */
#ifndef DAEMON_SECRET_H
#define DAEMON_SECRET_H

#include "daemon/config/conf.h"             /* pen_secret_read(), pen_secret_wipe() */

/* Before there are threads, and before anything else of OpenSSL's. False: the system does not let us lock that much;
 * the heap is there all the same. */
bool secret_memory_init(void);
/* For libraries that let us choose: as free() and realloc(), and what is given up is wiped. */
void secret_wiping_free(void *memory);
void *secret_wiping_realloc(void *memory, size_t size);
void *secret_alloc(size_t size);     /* zeroed; never NULL */
void secret_free(void *secret, size_t size);      /* wipes; copes with NULL */
/* A text made as by printf, and its end. */
char *secret_text(const char *format, ...) __attribute__((format(printf, 1, 2)));
void secret_text_free(char *text);   /* wipes; copes with NULL */

/* As pen_secret_read(), of a file that others may read as well: a token that Kubernetes mounts is 0644 wherever a pod
 * says nothing else, lives for an hour, and has its pod for a wall. */
int secret_read_mounted(char **ret, size_t *size, const char *path, struct pen_error *err);

#endif
