/*
 * sentinel.h - the Sentinel sink seen from outside: where it is set to deliver. For those who look at the
 * far end without being the sink.
 */
#ifndef SINKS_SENTINEL_H
#define SINKS_SENTINEL_H

#include "daemon/entra.h"
#include "sinks/sink.h"

struct sentinel_target {             /* texts belong to the configuration */
    const char *endpoint;            /* https://HOST, maybe with a slash behind it */
    const char *dcr;                 /* immutable id */
    const char *streams[PEN_KINDS];  /* of the DCR, where messages of a kind go */
    struct entra_conf entra;         /* for tokens of the ingestion API */
    struct http_conf http;
};

/* By the settings of a [sink NAME] section of this type, for messages in that schema. */
int sentinel_target_read(struct sentinel_target *ret, const struct pen_conf *conf, const char *schema,
                         struct pen_error *err);

#endif
