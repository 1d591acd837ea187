/*
 * server.h - a small HTTP server inside the test's own loop: it plays the turns it was given, one per request, and keeps
 * what it was asked. Past the last turn it repeats that one.
 */
#ifndef TESTS_UNIT_SERVER_H
#define TESTS_UNIT_SERVER_H

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <uv.h>

enum server_then {
    SERVER_KEEP,                     /* reply, and keep the connection */
    SERVER_HANG_UP,                  /* reply, then close */
    SERVER_RESET,                    /* reply (or nothing), then a reset */
    SERVER_RESET_EARLY,              /* a reset as soon as the headers and 1 KiB of body are in */
    SERVER_SILENT,                   /* never a word */
};

struct server_turn {
    const char *reply;               /* whole answer, headers and all; NULL: none */
    enum server_then then;
};

struct server_request {
    char *head;                      /* up to and with the blank line */
    char *body;
    size_t body_size;
};

struct server {
    uv_loop_t *loop;
    uv_tcp_t tcp;
    int port;
    const struct server_turn *turns;
    size_t turn_count, turn;
    struct server_request requests[256];
    size_t request_count;
    unsigned connections;            /* accepted so far */
    struct server_line *lines;
};

struct server_line {
    struct server *server;
    struct server_line *next;
    uv_tcp_t tcp;
    uv_write_t write;
    enum server_then then;
    bool closed;
    char *data;
    size_t size;
};

static void on_server_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
    (void)handle;
    *buf = uv_buf_init(malloc(size), (unsigned)size);
}

static void on_server_line_closed(uv_handle_t *handle)
{
    struct server_line *line = handle->data, **at = &line->server->lines;

    while (*at != line)
        at = &(*at)->next;
    *at = line->next;
    free(line->data);
    free(line);
}

static void server_line_close(struct server_line *line, bool reset)
{
    if (line->closed)
        return;
    line->closed = true;
    if (!reset || uv_tcp_close_reset(&line->tcp, on_server_line_closed) < 0)
        uv_close((uv_handle_t *)&line->tcp, on_server_line_closed);
}

static void on_server_written(uv_write_t *write, int status)
{
    struct server_line *line = write->data;

    (void)status;
    if (line->then == SERVER_HANG_UP || line->then == SERVER_RESET)
        server_line_close(line, line->then == SERVER_RESET);
}

static void server_line_play(struct server_line *line)
{
    struct server *server = line->server;
    const struct server_turn *turn = &server->turns[server->turn];
    uv_buf_t buf;

    if (server->turn + 1 < server->turn_count)
        server->turn++;
    line->then = turn->then;
    if (turn->then == SERVER_SILENT)
        return;
    if (!turn->reply) {
        server_line_close(line, turn->then != SERVER_HANG_UP);
        return;
    }
    buf = uv_buf_init((char *)turn->reply, (unsigned)strlen(turn->reply));
    line->write.data = line;
    uv_write(&line->write, (uv_stream_t *)&line->tcp, &buf, 1, on_server_written);
}

/* Takes one whole request off the line's bytes, if there is one, and plays its turn. */
static void server_line_step(struct server_line *line)
{
    struct server *server = line->server;
    struct server_request *request = &server->requests[server->request_count];
    char *end = line->size ? memmem(line->data, line->size, "\r\n\r\n", 4) : NULL;
    size_t head_size, body_size = 0;
    char *length;

    if (!end)
        return;
    head_size = (size_t)(end - line->data) + 4;
    request->head = strndup(line->data, head_size);
    length = strcasestr(request->head, "\r\nContent-Length:");
    if (length)
        body_size = strtoul(length + 17, NULL, 10);
    if (server->turns[server->turn].then == SERVER_RESET_EARLY && line->size > head_size + 1024) {
        server->turn += server->turn + 1 < server->turn_count;
        free(request->head);
        server_line_close(line, true);
        return;
    }
    if (line->size < head_size + body_size) {
        free(request->head);
        return;
    }
    request->body = malloc(body_size + 1);
    memcpy(request->body, line->data + head_size, body_size);
    request->body[body_size] = '\0';
    request->body_size = body_size;
    server->request_count++;
    assert(server->request_count < 256);
    line->size -= head_size + body_size;
    memmove(line->data, line->data + head_size + body_size, line->size);
    server_line_play(line);
}

static void on_server_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    struct server_line *line = stream->data;

    if (size < 0) {
        server_line_close(line, false);
    } else if (size > 0) {
        line->data = realloc(line->data, line->size + (size_t)size);
        memcpy(line->data + line->size, buf->base, (size_t)size);
        line->size += (size_t)size;
        server_line_step(line);
    }
    free(buf->base);
}

static void on_server_connection(uv_stream_t *stream, int status)
{
    struct server *server = stream->data;
    struct server_line *line = calloc(1, sizeof(*line));

    assert(status == 0);
    line->server = server;
    line->next = server->lines;
    server->lines = line;
    server->connections++;
    uv_tcp_init(server->loop, &line->tcp);
    line->tcp.data = line;
    uv_accept(stream, (uv_stream_t *)&line->tcp);
    uv_read_start((uv_stream_t *)&line->tcp, on_server_alloc, on_server_read);
}

static void server_open(struct server *server, uv_loop_t *loop, const struct server_turn *turns, size_t turn_count)
{
    struct sockaddr_in address;
    int size = sizeof(address), r;

    memset(server, 0, sizeof(*server));
    server->loop = loop;
    server->turns = turns;
    server->turn_count = turn_count;
    uv_ip4_addr("127.0.0.1", 0, &address);
    uv_tcp_init(loop, &server->tcp);
    server->tcp.data = server;
    uv_tcp_bind(&server->tcp, (struct sockaddr *)&address, 0);
    r = uv_listen((uv_stream_t *)&server->tcp, 64, on_server_connection);
    assert(r == 0);
    uv_tcp_getsockname(&server->tcp, (struct sockaddr *)&address, &size);
    server->port = ntohs(address.sin_port);
}

/* The handles go with the next turns of the loop. */
static void server_close(struct server *server)
{
    uv_close((uv_handle_t *)&server->tcp, NULL);
    for (struct server_line *line = server->lines; line; line = line->next)
        server_line_close(line, false);
    for (size_t i = 0; i < server->request_count; i++) {
        free(server->requests[i].head);
        free(server->requests[i].body);
    }
}

#endif
