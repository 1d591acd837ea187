/*
 * probe.h - a far end is asked whether it would take what is sent, or give what is read: `penstock check --online`.
 *
 * A probe is straight-line code over a loop of its own: probe_wait() turns the loop until an answer is there. It belongs to a
 * command; the daemon never waits like that. Nothing is sent but a marked record, where that was asked for.
 */
#ifndef DAEMON_PROBE_H
#define DAEMON_PROBE_H

#include "daemon/base/buf.h"
#include "daemon/remote/entra.h"
#include "daemon/remote/finding.h"

struct probe {
    uv_loop_t *loop;
    struct http *http;
    const char *name;                /* of the section */
    const char *schema;              /* of a sink: what its messages are written in, … */
    unsigned kinds;                  /* … and the kinds of events that it takes, as bits */
    bool send_test_record;
    finding_tell tell;
    void *arg;
};

__attribute__((format(printf, 3, 4)))
void probe_tell(struct probe *probe, enum finding finding, const char *format, ...);
/* Turns the loop until *done. */
void probe_wait(struct probe *probe, const bool *done);

/* A token, which is the caller's to probe_token_free(); NULL: there is none, and why was told. */
char *probe_token(struct probe *probe, const struct entra_conf *conf);
void probe_token_free(char *token);

/* Asks, waits, and lends the answer to judge(). */
void probe_ask(struct probe *probe, const struct http_ask *ask, http_done judge, void *arg);

/* One message in the sink's schema that says it is a test, of the least conspicuous kind that the sink takes. */
enum pen_kind probe_test_record(const struct probe *probe, struct buf *out);

#endif
