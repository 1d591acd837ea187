/*
 * web.c - see web.h.
 *
 * A door is one listening socket with an MHD daemon behind it. MHD keeps its connections in one epoll set; the loop polls
 * that set, and a timer wakes us for what MHD waits for and for visitors who stay too long. There are no threads.
 *
 * MHD's own timeout counts idle seconds, so a client that sends a byte now and then would stay for ever: each visit has an
 * end of its own, at which its socket is shut down and MHD finds it closed. One connection is one request.
 *
 * An answer is kept and given to all who ask for `fresh_ms`, longer where it is big: so neither how often somebody asks nor
 * how slowly somebody reads decides how many copies of it there are.
 */
#include "daemon/status/web.h"

#include "daemon/base/log.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/un.h>
#include <unistd.h>

#define PAGES_MAX 16
#define FRESH_MS 250u
#define FRESH_BYTES_PER_MS 1000u     /* a megabyte is made once a second at most */
#define IDLE_SECONDS 5u

static const struct header {
    const char *name, *value;
} headers[] = {
    { "Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
                                 "base-uri 'none'; form-action 'none'; frame-ancestors 'none'" },
    { "X-Content-Type-Options", "nosniff" },
    { "Referrer-Policy", "no-referrer" },
    { "Cross-Origin-Resource-Policy", "same-origin" },
    { "Cross-Origin-Opener-Policy", "same-origin" },
    { "Cache-Control", "no-store" },
    { "Connection", "close" },
};

struct visitor {
    TAILQ_ENTRY(visitor) entry;      /* in the order of their coming */
    int fd;
    uint64_t since_ms;
    bool shown_out;
};
TAILQ_HEAD(visitors, visitor);

struct door {
    struct web *web;
    struct MHD_Daemon *daemon;       /* NULL: closed */
    uv_poll_t poll;
    uv_timer_t timer;
    struct visitors visitors;
    bool port;                       /* and not the socket: browsers may come */
    bool left;                       /* somebody has, in this run of MHD */
};

struct answer {
    struct MHD_Response *response;   /* NULL: none made yet */
    int status;
    uint64_t until_ms;
};

struct web {
    struct web_conf conf;
    struct door doors[2];
    struct answer answers[PAGES_MAX];
    uint32_t handles;
    bool closing;
};

/* ---- Addresses ---- */

int web_address_read(const char *text, struct sockaddr_storage *address, struct pen_error *err)
{
    const char *colon = strrchr(text, ':');
    char host[64], *end;
    unsigned long port;
    size_t size;

    if (colon == NULL || !isdigit((unsigned char)colon[1]))
        goto fail;
    port = strtoul(colon + 1, &end, 10);
    size = (size_t)(colon - text);
    if (*end != '\0' || port > 65535 || size >= sizeof(host))
        goto fail;
    memset(address, 0, sizeof(*address));
    memcpy(host, text, size);
    host[size] = '\0';
    if (uv_ip4_addr(host, (int)port, (struct sockaddr_in *)address) == 0)
        return 0;
    if (size < 2 || host[0] != '[' || host[size - 1] != ']')
        goto fail;
    host[size - 1] = '\0';
    if (uv_ip6_addr(host + 1, (int)port, (struct sockaddr_in6 *)address) == 0)
        return 0;
fail:
    return pen_error_set(err, UV_EINVAL, "expected an address and a port, such as 127.0.0.1:9101 or [::1]:9101");
}

bool web_address_is_loopback(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

static bool name_is(const char *name, size_t size, const char *other)
{
    return strlen(other) == size && strncasecmp(name, other, size) == 0;
}

/* Without its port; an IPv6 address keeps its brackets. */
static size_t host_size(const char *host)
{
    const char *end = host[0] == '[' ? strchr(host, ']') : NULL;

    return end != NULL ? (size_t)(end - host) + 1 : strcspn(host, ":");
}

bool web_host_fits(const char *host, const char *listen, const struct pen_list *names)
{
    static const char *const own[] = { "localhost", "127.0.0.1", "[::1]" };
    size_t size = host_size(host);

    for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++)
        if (name_is(host, size, own[i]))
            return true;
    for (size_t i = 0; i < names->count; i++)
        if (name_is(host, size, names->items[i]))
            return true;
    return host_size(listen) == size && strncasecmp(host, listen, size) == 0;
}

/* ---- Answers ---- */

static uint64_t now_ms(const struct web *web)
{
    return uv_now(web->conf.loop);
}

static void response_add_headers(struct MHD_Response *response, const char *type)
{
    for (size_t i = 0; i < sizeof(headers) / sizeof(*headers); i++)
        (void)MHD_add_response_header(response, headers[i].name, headers[i].value);
    (void)MHD_add_response_header(response, "Content-Type", type);
}

/* Made anew where it is no longer fresh. Whoever still reads the old one keeps it. */
static void answer_make(struct web *web, struct answer *answer, const struct web_page *page)
{
    struct buf body = { 0 };

    if (answer->response != NULL && now_ms(web) < answer->until_ms)
        return;
    if (answer->response != NULL)
        MHD_destroy_response(answer->response);
    answer->status = page->render(web->conf.arg, &body);
    buf_char(&body, '\0');                         /* so that there is memory, even for nothing */
    answer->until_ms = page->own ? 0 : now_ms(web) + FRESH_MS + body.size / FRESH_BYTES_PER_MS;
    answer->response = MHD_create_response_from_buffer(body.size - 1, body.data, MHD_RESPMEM_MUST_FREE);
    if (answer->response == NULL)
        abort();
    response_add_headers(answer->response, page->type);
}

static enum MHD_Result refuse(struct MHD_Connection *connection, unsigned status, const char *why)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(strlen(why), (char *)why, MHD_RESPMEM_PERSISTENT);
    enum MHD_Result result;

    if (response == NULL)
        return MHD_NO;
    response_add_headers(response, "text/plain; charset=utf-8");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        (void)MHD_add_response_header(response, "Allow", "GET, HEAD");
    result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

/* MHD calls when it has all headers; a body is not waited for. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *path, const char *method,
                                  const char *version, const char *upload, size_t *upload_size, void **request)
{
    struct door *door = arg;
    struct web *web = door->web;
    const char *host = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Host");

    (void)version, (void)upload, (void)upload_size, (void)request;
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "there is nothing to change here\n");
    if (door->port && (host == NULL || !web_host_fits(host, web->conf.listen, &web->conf.names)))
        return refuse(connection, MHD_HTTP_MISDIRECTED_REQUEST,
                      "this name is not known here; listen_names in the configuration takes it\n");
    for (size_t i = 0; web->conf.pages[i].path != NULL; i++) {
        if (strcmp(path, web->conf.pages[i].path) != 0 || (web->conf.pages[i].own && door->port))
            continue;
        answer_make(web, &web->answers[i], &web->conf.pages[i]);
        return MHD_queue_response(connection, (unsigned)web->answers[i].status, web->answers[i].response);
    }
    return refuse(connection, MHD_HTTP_NOT_FOUND, "not found: / /metrics /healthz /readyz /status.json\n");
}

/* ---- Visitors ---- */

static void on_visitor(void *arg, struct MHD_Connection *connection, void **context,
                       enum MHD_ConnectionNotificationCode what)
{
    struct door *door = arg;
    struct visitor *visitor = *context;

    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        visitor = calloc(1, sizeof(*visitor));
        if (visitor == NULL)
            abort();
        visitor->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        visitor->since_ms = now_ms(door->web);
        TAILQ_INSERT_TAIL(&door->visitors, visitor, entry);
        *context = visitor;
    } else if (visitor != NULL) {
        TAILQ_REMOVE(&door->visitors, visitor, entry);
        free(visitor);
        *context = NULL;
        door->left = true;
    }
}

static void door_show_out(struct door *door)
{
    struct visitor *visitor;

    TAILQ_FOREACH(visitor, &door->visitors, entry) {
        if (now_ms(door->web) - visitor->since_ms < WEB_VISIT_MS)
            return;
        if (!visitor->shown_out)
            (void)shutdown(visitor->fd, SHUT_RDWR);
        visitor->shown_out = true;
    }
}

/* ---- The loop ---- */

static void on_timer(uv_timer_t *timer);

static void door_arm(struct door *door)
{
    const struct visitor *visitor;
    MHD_UNSIGNED_LONG_LONG wait = 0;
    uint64_t next = UINT64_MAX, stays;

    if (MHD_get_timeout(door->daemon, &wait) == MHD_YES)
        next = wait;
    if (door->left)
        next = 0;
    TAILQ_FOREACH(visitor, &door->visitors, entry) {
        if (visitor->shown_out)
            continue;
        stays = now_ms(door->web) - visitor->since_ms;
        if (stays >= WEB_VISIT_MS)
            next = 0;
        else if (WEB_VISIT_MS - stays < next)
            next = WEB_VISIT_MS - stays;
        break;
    }
    if (next == UINT64_MAX)
        uv_timer_stop(&door->timer);
    else
        uv_timer_start(&door->timer, on_timer, next, 0);
}

/* A full house stops listening, and MHD listens again only at the beginning of a run: so whoever leaves is worth one more. */
static void door_run(struct door *door)
{
    door->left = false;
    door_show_out(door);
    (void)MHD_run(door->daemon);
    door_arm(door);
}

static void on_timer(uv_timer_t *timer)
{
    struct door *door = timer->data;

    if (!door->web->closing)
        door_run(door);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct door *door = poll->data;

    (void)status, (void)events;
    if (!door->web->closing)
        door_run(door);
}

/* ---- Opening ---- */

/* The socket is the door's from here on, or closed. */
static int door_open(struct door *door, int fd)
{
    const union MHD_DaemonInfo *info;
    struct web *web = door->web;

    door->daemon = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, on_request, door,
        MHD_OPTION_LISTEN_SOCKET, (MHD_socket)fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)WEB_VISITORS,
        MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, WEB_REQUEST_BYTES,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_CONNECTION, on_visitor, door, MHD_OPTION_END);
    if (door->daemon == NULL) {
        close(fd);
        return UV_ENOMEM;
    }
    info = MHD_get_daemon_info(door->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    assert(info != NULL);
    uv_timer_init(web->conf.loop, &door->timer);
    uv_poll_init(web->conf.loop, &door->poll, info->epoll_fd);
    door->timer.data = door->poll.data = door;
    web->handles += 2;
    uv_poll_start(&door->poll, UV_READABLE, on_readable);
    return 0;
}

static int listening_socket(const struct sockaddr *address, socklen_t size)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, r;

    if (fd < 0)
        return -errno;
    if (address->sa_family != AF_UNIX)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, address, size) == 0 && listen(fd, WEB_VISITORS) == 0)
        return fd;
    r = -errno;
    close(fd);
    return r;
}

static void port_log(const struct web *web, int fd)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);
    const char *colon = strrchr(web->conf.listen, ':');
    char url[128];
    uint16_t port;

    if (getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        return;
    port = address.ss_family == AF_INET ? ((struct sockaddr_in *)&address)->sin_port
                                        : ((struct sockaddr_in6 *)&address)->sin6_port;
    (void)snprintf(url, sizeof(url), "http://%.*s:%u/", (int)(colon - web->conf.listen), web->conf.listen, ntohs(port));
    log_line(LOG_NOTE, "status page and metrics", "url", url, NULL);
}

static void web_open_port(struct web *web)
{
    struct sockaddr_storage address;
    struct pen_error err = { 0 };
    int fd, r = web_address_read(web->conf.listen, &address, &err);

    assert(r == 0);                                /* settings have been checked */
    fd = listening_socket((struct sockaddr *)&address, address.ss_family == AF_INET ? sizeof(struct sockaddr_in)
                                                                                    : sizeof(struct sockaddr_in6));
    r = fd;
    if (fd >= 0) {
        port_log(web, fd);
        r = door_open(&web->doors[0], fd);
    }
    if (r < 0)
        log_line(LOG_WARN, "the port of status page and metrics cannot be opened: free it, or change `listen`; all else goes on "
                 "without it", "listen", web->conf.listen, "error", uv_strerror(r), NULL);
}

static void web_open_socket(struct web *web)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int r = UV_ENAMETOOLONG;

    if (strlen(web->conf.socket) < sizeof(address.sun_path)) {
        strcpy(address.sun_path, web->conf.socket);
        (void)unlink(web->conf.socket);            /* of a life that was killed: state.db's lock is ours */
        r = listening_socket((struct sockaddr *)&address, sizeof(address));
        if (r >= 0)
            r = door_open(&web->doors[1], r);
    }
    if (r < 0)
        log_line(LOG_WARN, "the socket for `penstock status` cannot be opened; everything else goes on without it", "path",
                 web->conf.socket, "error", uv_strerror(r), NULL);
}

struct web *web_open(const struct web_conf *conf)
{
    struct web *web = calloc(1, sizeof(*web));
    size_t count = 0;

    if (web == NULL)
        abort();
    while (conf->pages[count].path != NULL)
        count++;
    assert(count <= PAGES_MAX);
    web->conf = *conf;
    for (size_t i = 0; i < 2; i++) {
        web->doors[i].web = web;
        TAILQ_INIT(&web->doors[i].visitors);
    }
    web->doors[0].port = true;
    if (conf->listen != NULL && *conf->listen != '\0')
        web_open_port(web);
    if (conf->socket != NULL)
        web_open_socket(web);
    return web;
}

/* ---- Closing ---- */

static void on_closed(uv_handle_t *handle)
{
    struct web *web = ((struct door *)handle->data)->web;

    if (--web->handles == 0)
        free(web);
}

void web_close(struct web *web)
{
    if (web == NULL)
        return;
    web->closing = true;
    if (web->doors[1].daemon != NULL)
        (void)unlink(web->conf.socket);
    for (size_t i = 0; i < 2; i++) {
        struct door *door = &web->doors[i];

        if (door->daemon == NULL)
            continue;
        uv_poll_stop(&door->poll);                 /* before MHD closes what it polls */
        MHD_stop_daemon(door->daemon);
        uv_close((uv_handle_t *)&door->poll, on_closed);
        uv_close((uv_handle_t *)&door->timer, on_closed);
    }
    for (size_t i = 0; i < PAGES_MAX; i++)
        if (web->answers[i].response != NULL)
            MHD_destroy_response(web->answers[i].response);
    if (web->handles == 0)
        free(web);
}
