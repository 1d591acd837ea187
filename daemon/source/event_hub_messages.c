/*
 * event_hub_messages.c - partitions, and what is on its way from librdkafka to the pipeline.
 *
 *   librdkafka's queue ──hub_poll──▶ waiting ──[unzip on the pool]──▶ offered, `out` ──partition_done──▶ the next one
 *
 * One message of a partition is out at a time; a few wait behind it, counted in the budget. Beyond WAITING_MAX, or while
 * the flow is closed, librdkafka is not asked for more; when that lasts, partitions are paused and it is asked all the same,
 * since a consumer that does not poll is put out of its group. Pausing throws away what was fetched ahead; resuming goes on
 * behind the last message that we took.
 *
 * librdkafka 2.0 has a habit to know about: a fetcher that found its queue full sleeps for up to a second, whatever happens to
 * the queue meanwhile. Any request to the partition's leader wakes it. So when the queue has run dry after we let it fill, we
 * ask for the partitions' ends at once (hub_survey), which we do from time to time in any case, for the lag.
 */
#include "daemon/source/event_hub.h"

#include "daemon/log.h"
#include "daemon/unpack.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAUSE_MS        2500         /* far below max.poll.interval.ms */
#define POLLS_PER_TURN  256
#define WAITING_MAX     ((size_t)1 << 20)
#define INFLATED_MAX    ((size_t)16 << 20)

struct waiting {
    STAILQ_ENTRY(waiting) entry;
    struct chunk *chunk;
    bool packed;
};

struct unzip {
    uv_work_t work;
    struct partition *partition;
    struct chunk *packed;
    char *plain;
    size_t size;
    const char *why;                 /* NULL: it went well */
};

static void partition_next(struct partition *partition);

/* ---- Partitions ------------------------------------------------------------------------------------------------- */

char *partition_key(const char *topic, int32_t id)
{
    char *key;

    if (asprintf(&key, "%s/%" PRId32, topic, id) < 0)
        abort();
    return key;
}

struct partition *partition_find(struct hub *hub, const char *topic, int32_t id)
{
    struct partition *partition;

    TAILQ_FOREACH(partition, &hub->partitions, entry)
        if (partition->id == id && !partition->leaving && strcmp(partition->topic, topic) == 0)
            return partition;
    return NULL;
}

static void partition_open_stream(struct partition *partition, uint64_t offset)
{
    struct cursor cursor = { .key = partition->key, .attrs = "", .position = offset };

    partition->stream = stream_open(partition->hub->host, partition->key, &cursor, partition);
    partition->stored = UINT64_MAX;
}

void partition_new(struct hub *hub, const char *topic, int32_t id, uint64_t offset)
{
    struct partition *partition = calloc(1, sizeof(*partition));

    if (partition == NULL || (partition->topic = strdup(topic)) == NULL)
        abort();
    partition->hub = hub;
    partition->id = id;
    partition->key = partition_key(topic, id);
    STAILQ_INIT(&partition->waiting);
    TAILQ_INSERT_TAIL(&hub->partitions, partition, entry);
    partition_open_stream(partition, offset);
}

void partition_drop_waiting(struct partition *partition)
{
    struct waiting *waiting;

    while ((waiting = STAILQ_FIRST(&partition->waiting)) != NULL) {
        STAILQ_REMOVE_HEAD(&partition->waiting, entry);
        partition->hub->waiting_bytes -= waiting->chunk->capacity;
        chunk_drop(partition->hub->host, waiting->chunk);
        free(waiting);
    }
}

void partition_free(struct partition *partition)
{
    partition_drop_waiting(partition);
    TAILQ_REMOVE(&partition->hub->partitions, partition, entry);
    free(partition->topic);
    free(partition->key);
    free(partition);
}

/* Now, and also where it is a step back, which librdkafka would not take by itself. */
static void partition_commit(const struct partition *partition)
{
    rd_kafka_topic_partition_list_t *parts = rd_kafka_topic_partition_list_new(1);

    rd_kafka_topic_partition_list_add(parts, partition->topic, partition->id)->offset =
        (int64_t)stream_safe_position(partition->stream);
    rd_kafka_commit(partition->hub->consumer, parts, 1);
    rd_kafka_topic_partition_list_destroy(parts);
}

void hub_note_deleted(struct hub *hub, const char *key, uint64_t from, uint64_t to)
{
    log_line(LOG_ERROR, "messages were deleted before we read them: a longer retention keeps them, or more daemons in the "
             "group are faster", "source", source_name(hub->host), "partition", key, "from", log_number(from), "to",
             log_number(to), NULL);
}

/* The broker gave us an offset that is not the next one. Holes that compaction or transactions leave are no news. */
static void partition_note_jump(struct partition *partition, uint64_t offset)
{
    struct hub *hub = partition->hub;
    uint64_t expected = stream_position(partition->stream);
    int64_t low = -1, high;

    if (offset < expected) {
        log_line(LOG_ERROR, "the partition begins anew: its topic was deleted and made again, or cut short; reading from its "
                 "beginning", "source", source_name(hub->host), "partition", partition->key, "expected",
                 log_number(expected), "offset", log_number(offset), NULL);
        stream_close(partition->stream, false);
        partition_open_stream(partition, offset);
        partition_commit(partition);
        return;
    }
    rd_kafka_get_watermark_offsets(hub->consumer, partition->topic, partition->id, &low, &high);
    if (low >= 0 && (uint64_t)low <= expected)
        return;
    hub->missing += (low >= 0 && (uint64_t)low < offset ? (uint64_t)low : offset) - expected;
    if (hub_now_ms(hub) < hub->gap_log_after_ms)
        return;
    hub->gap_log_after_ms = hub_now_ms(hub) + LOG_EVERY_MS;
    hub_note_deleted(hub, partition->key, expected, offset);
}

static void partition_offer(struct partition *partition, struct chunk *chunk)
{
    if (chunk->offset != stream_position(partition->stream))
        partition_note_jump(partition, chunk->offset);
    partition->out = true;
    stream_offer(partition->stream, chunk);
}

/* ---- gzip ------------------------------------------------------------------------------------------------------- */

/* What comes out is bounded, whatever goes in. */
static void on_unzip_work(uv_work_t *work)
{
    struct unzip *unzip = work->data;
    size_t capacity = unzip->packed->size * 4 + 4096;
    struct pen_error err = { 0 };
    struct unpack *unpack;
    ssize_t got;

    unzip->plain = malloc(capacity);
    if (unzip->plain == NULL || unpack_new_fed(&unpack, unzip->packed->data, unzip->packed->size, &err) < 0)
        abort();
    do {
        if (unzip->size == capacity) {
            capacity *= 2;
            unzip->plain = realloc(unzip->plain, capacity);
            if (unzip->plain == NULL)
                abort();
        }
        got = unpack_read(unpack, unzip->plain + unzip->size, capacity - unzip->size, &err);
        unzip->size += got > 0 ? (size_t)got : 0;
    } while (got > 0 && unzip->size < INFLATED_MAX);
    if (got < 0 || !unpack_complete(unpack))
        unzip->why = got > 0 ? "it holds more than 16 MiB" : "it is damaged or cut off";
    unpack_free(unpack);
}

static void on_unzipped(uv_work_t *work, int status)
{
    struct unzip *unzip = work->data;
    struct partition *partition = unzip->partition;
    struct hub *hub = partition->hub;
    struct chunk *chunk = unzip->packed, *plain;

    (void)status;
    hub->jobs--;
    partition->out = hub->unzipping = false;
    if (unzip->why != NULL) {
        log_line(LOG_WARN, "a gzip message cannot be unpacked; it travels as it is", "source", source_name(hub->host),
                 "partition", partition->key, "offset", log_number(chunk->offset), "why", unzip->why, NULL);
    } else {
        plain = chunk_take(hub->host, unzip->size);
        memcpy(plain->data, unzip->plain, unzip->size);
        plain->size = unzip->size;
        plain->offset = chunk->offset;
        plain->whole = true;
        chunk_drop(hub->host, chunk);
        chunk = plain;
    }
    if (partition->leaving || hub->state != HUB_RUNNING) {
        chunk_drop(hub->host, chunk);
        partition_done(partition);
    } else {
        partition_offer(partition, chunk);
    }
    free(unzip->plain);
    free(unzip);
    hub_next(hub);
    hub_note_stopped(hub);
}

static void partition_unzip(struct partition *partition, struct chunk *packed)
{
    struct hub *hub = partition->hub;
    struct unzip *unzip = calloc(1, sizeof(*unzip));

    if (unzip == NULL)
        abort();
    unzip->partition = partition;
    unzip->packed = packed;
    unzip->work.data = unzip;
    partition->out = hub->unzipping = true;
    hub->jobs++;
    uv_queue_work(source_loop(hub->host), &unzip->work, on_unzip_work, on_unzipped);
}

/* ---- In turn ---------------------------------------------------------------------------------------------------- */

static bool hub_wants(const struct hub *hub)
{
    return hub->state == HUB_RUNNING && flow_is_open(hub->host) && hub->waiting_bytes < WAITING_MAX;
}

static void partition_next(struct partition *partition)
{
    struct hub *hub = partition->hub;
    struct waiting *waiting = STAILQ_FIRST(&partition->waiting);

    if (partition->out || partition->leaving || hub->state != HUB_RUNNING || waiting == NULL)
        return;
    if (waiting->packed && (hub->unzipping || !flow_is_open(hub->host)))
        return;                                    /* one at a time, since nobody knows what comes out */
    STAILQ_REMOVE_HEAD(&partition->waiting, entry);
    hub->waiting_bytes -= waiting->chunk->capacity;
    if (waiting->packed)
        partition_unzip(partition, waiting->chunk);
    else
        partition_offer(partition, waiting->chunk);
    free(waiting);
}

/* Those that may have waited for the only unzip, or for the flow. */
void hub_next(struct hub *hub)
{
    struct partition *partition;

    TAILQ_FOREACH(partition, &hub->partitions, entry)
        partition_next(partition);
}

/* A message came back; or the partition is on its way out. */
void partition_done(struct partition *partition)
{
    struct hub *hub = partition->hub;

    if (partition->out)
        return;
    if (partition->gone) {
        stream_close(partition->stream, false);
        partition_free(partition);
    } else if (!partition->leaving) {
        partition_next(partition);
    }
    if (hub->more && hub_wants(hub)) {
        hub->more = false;
        hub_wake(hub);
    }
}

/* ---- From librdkafka -------------------------------------------------------------------------------------------- */

static void hub_take(struct hub *hub, const rd_kafka_message_t *message)
{
    struct partition *partition = partition_find(hub, rd_kafka_topic_name(message->rkt), message->partition);
    const unsigned char *payload = message->payload;
    struct waiting *waiting;

    if (partition == NULL)                         /* given up meanwhile: its next owner reads it */
        return;
    hub_well(hub);
    waiting = malloc(sizeof(*waiting));
    if (waiting == NULL)
        abort();
    waiting->chunk = chunk_take(hub->host, message->len);
    if (message->len > 0)                          /* a tombstone has no payload, and a place like any other */
        memcpy(waiting->chunk->data, payload, message->len);
    waiting->chunk->size = message->len;
    waiting->chunk->offset = (uint64_t)message->offset;
    waiting->chunk->whole = true;
    waiting->packed = message->len > 2 && payload[0] == 0x1f && payload[1] == 0x8b;
    hub->waiting_bytes += waiting->chunk->capacity;
    STAILQ_INSERT_TAIL(&partition->waiting, waiting, entry);
    partition_next(partition);
}

static void hub_take_event(struct hub *hub, rd_kafka_message_t *message)
{
    if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        hub->paused = false;                       /* or it would not be here: pause again */
        hub_take(hub, message);
    } else if (message->err != RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        hub_trouble(hub, message->err, rd_kafka_message_errstr(message));
    }
    rd_kafka_message_destroy(message);
}

void hub_pause(struct hub *hub, bool pause)
{
    rd_kafka_topic_partition_list_t *parts;

    if (rd_kafka_assignment(hub->consumer, &parts) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    if (pause)
        rd_kafka_pause_partitions(hub->consumer, parts);
    else
        rd_kafka_resume_partitions(hub->consumer, parts);
    rd_kafka_topic_partition_list_destroy(parts);
    hub->paused = pause;
}

/* Callbacks (rebalance, commits, errors, log lines) run inside rd_kafka_consumer_poll(). */
void hub_poll(struct hub *hub)
{
    rd_kafka_message_t *message;

    if (hub->state != HUB_RUNNING || hub->consumer == NULL)
        return;
    if (hub->paused && hub_wants(hub))
        hub_pause(hub, false);
    if (!hub->paused && !hub_wants(hub) && hub_now_ms(hub) - hub->polled_ms > PAUSE_MS)
        hub_pause(hub, true);
    for (int i = 0; i < POLLS_PER_TURN && (hub->paused || hub_wants(hub)); i++) {
        hub->polled_ms = hub_now_ms(hub);
        message = rd_kafka_consumer_poll(hub->consumer, 0);
        if (message == NULL) {
            hub->more = false;
            if (hub->held_back)
                hub_survey(hub);
            hub->held_back = false;
            return;
        }
        hub_take_event(hub, message);
    }
    hub->more = true;
    if (hub_wants(hub))
        hub_wake(hub);                             /* the others get their turn, then we go on */
    else
        hub->held_back = true;
}
