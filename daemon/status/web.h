/*
 * web.h - a window to look through: a few read-only pages over HTTP, on a local port and on a unix socket beside the state.
 *
 * libmicrohttpd speaks HTTP, on the loop's thread. Anyone on the machine may knock, and through a browser anyone who has a
 * web page there (DNS rebinding); so:
 *
 *   - GET and HEAD only; requests are bounded by libmicrohttpd (WEB_REQUEST_BYTES), their number by WEB_VISITORS, and each is
 *     over after WEB_VISIT_MS, however slowly it drips
 *   - at the port, the Host header must be a loopback name, the address itself, or one of `names`
 *   - answers are made at most a few times a second, whoever asks how often, and shared; they allow no foreign content, no
 *     framing, no caching, no other origin
 *
 * What cannot be opened is one warning in the log: the window must never keep data from moving.
 */
#ifndef DAEMON_WEB_H
#define DAEMON_WEB_H

#include "daemon/base/buf.h"

#include <sys/socket.h>
#include <uv.h>

#define WEB_VISITORS 32              /* connections at each of the two doors */
#define WEB_VISIT_MS 10000u
#define WEB_REQUEST_BYTES ((size_t)16 * 1024)

struct web_page {
    const char *path, *type;
    int (*render)(void *arg, struct buf *out);     /* the answer's HTTP status */
    bool own;                        /* at the socket alone, and made anew for everyone who asks */
};

struct web_conf {                    /* all of it is borrowed for the object's life */
    uv_loop_t *loop;
    const char *listen;              /* "127.0.0.1:9101", port 0 for any; NULL or "": no port */
    struct pen_list names;
    const char *socket;              /* path of the unix socket; one that is left over there is replaced. NULL: none */
    const struct web_page *pages;    /* ends with an empty one */
    void *arg;
};

struct web;
struct web *web_open(const struct web_conf *conf);
/* Hangs up on everyone. Its handles are gone after one more turn of the loop. Copes with NULL. */
void web_close(struct web *web);

/* "127.0.0.1:9101", "[::1]:9101": 0, or UV_EINVAL with what was expected. */
int web_address_read(const char *text, struct sockaddr_storage *address, struct pen_error *err);
bool web_address_is_loopback(const struct sockaddr_storage *address);
/* Is this Host header one that we go by? */
bool web_host_fits(const char *host, const char *listen, const struct pen_list *names);

#endif
