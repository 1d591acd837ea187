/* burial.c - see burial.h. */
#include "daemon/outlet/burial.h"

#include "daemon/base/log.h"
#include "daemon/disk/io.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define RETRY_MS 2000u
#define BUSY_RETRY_MS 200u           /* a command reads or rewrites the file: seconds at most, unless somebody stopped it */
#define BUSY_ALARM_MS 30000u
#define SAY_EVERY_MS 10000u

static uint64_t now_ms(const struct burial *burial)
{
    return uv_now(burial->conf.loop);
}

void burial_init(struct burial *burial, const struct burial_conf *conf)
{
    *burial = (struct burial){ .conf = *conf };
    TAILQ_INIT(&burial->waiting);
    if (asprintf(&burial->path, "%s/dead/%s.jsonl", conf->state_dir, conf->stamp.sink) < 0)
        abort();
    burial->work.data = burial;
}

void burial_free(struct burial *burial)
{
    assert(burial->since_ms == 0);
    free(burial->path);
}

/* The first at once, then sums: a stream of bad messages must not become a stream of lines. */
static void burial_say(struct burial *burial, const struct part *part)
{
    const struct pen_message *message = &part->lent.messages[0];

    burial->unsaid += part->lent.count;
    if (burial->said_ms > 0 && now_ms(burial) - burial->said_ms < SAY_EVERY_MS)
        return;
    log_line(LOG_WARN, "messages that can never be delivered as they are go to the dead letters; see `penstock dead list`",
             "sink", burial->conf.stamp.sink, "messages", log_number(burial->unsaid), "stream",
             part->lent.streams[message->stream], "position", log_number(message->position), "why", part->why, NULL);
    burial->unsaid = 0;
    burial->said_ms = now_ms(burial);
}

void burial_add(struct burial *burial, struct part *part, const char *why)
{
    char *copy = strdup(why);

    if (copy == NULL)
        abort();
    free((char *)part->why);
    part->why = copy;
    TAILQ_INSERT_TAIL(&burial->waiting, part, entry);
    burial->waiting_count++;
    burial_say(burial, part);
}

uint64_t burial_bytes(const struct burial *burial)
{
    struct stat st;

    return lstat(burial->path, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
}

/* ---- The job ---- */

static void on_work(uv_work_t *work)
{
    struct burial *burial = work->data;

    burial->result = dead_append(burial->path, &burial->stamp, burial->parts, burial->count, burial->bytes_max);
}

static void burial_succeeded(struct burial *burial)
{
    if (burial->alarmed)
        log_line(LOG_NOTE, "dead letters are written again", "sink", burial->conf.stamp.sink, NULL);
    burial->trouble = burial->alarmed = false;
    for (uint32_t i = 0; i < burial->count; i++)
        burial->conf.on_buried(burial->parts[i]);
}

static void burial_failed(struct burial *burial)
{
    uint64_t now = now_ms(burial);
    bool busy = burial->result == UV_EAGAIN;

    for (uint32_t i = burial->count; i > 0; i--)
        TAILQ_INSERT_HEAD(&burial->waiting, burial->parts[i - 1], entry);
    burial->waiting_count += burial->count;
    if (!burial->trouble)
        burial->busy_until_ms = now + BUSY_ALARM_MS;
    burial->trouble = true;
    burial->hold_until_ms = now + (busy ? BUSY_RETRY_MS : RETRY_MS);
    if (burial->alarmed || (busy && now < burial->busy_until_ms))
        return;
    burial->alarmed = true;
    log_line(LOG_ERROR, burial->result == UV_EFBIG
             ? "the dead letters are full: nothing is lost, but a few letters on nothing more is sent; resend or drop some with "
               "`penstock dead`, or raise dead_max"
             : busy
             ? "a command has the dead letters and does not end: end it; nothing is lost, but a few letters on nothing more is sent"
             : "dead letters cannot be written: nothing is lost, but a few letters on nothing more is sent until this is mended",
             "sink", burial->conf.stamp.sink, "file", burial->path, "error", uv_strerror(burial->result), NULL);
}

static void on_done(uv_work_t *work, int status)
{
    struct burial *burial = work->data;

    (void)status;
    burial->since_ms = 0;
    if (burial->result == 0)
        burial_succeeded(burial);
    else
        burial_failed(burial);
    burial->conf.on_done(burial->conf.arg);
}

void burial_pump(struct burial *burial)
{
    struct part *part;

    if (burial->since_ms > 0 || TAILQ_EMPTY(&burial->waiting) || now_ms(burial) < burial->hold_until_ms)
        return;
    burial->count = 0;
    while (burial->count < BURIAL_PARTS_MAX && (part = TAILQ_FIRST(&burial->waiting)) != NULL) {
        TAILQ_REMOVE(&burial->waiting, part, entry);
        burial->parts[burial->count++] = part;
    }
    burial->waiting_count -= burial->count;
    burial->since_ms = now_ms(burial);
    burial->stamp = burial->conf.stamp;
    burial->stamp.ticks = io_now_ticks();
    burial->bytes_max = burial->conf.bytes_max;
    uv_queue_work(burial->conf.loop, &burial->work, on_work, on_done);
}
