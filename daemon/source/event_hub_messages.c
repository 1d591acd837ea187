/*
 * event_hub_messages.c - partitions, and what is on its way from librdkafka to the pipeline.
 *
 *   librdkafka's queue ──hub_poll──▶ waiting ──[unzip on the pool]──▶ offered, `out` ──partition_done──▶ the next one
 *
 * One chunk of a partition is out at a time, with one message or a few small ones; others wait behind it, counted in the
 * budget. Beyond WAITING_MAX, or while
 * the flow is closed, librdkafka is not asked for more; when that lasts, partitions are paused and it is asked all the same,
 * since a consumer that does not poll is put out of its group. Pausing throws away what was fetched ahead; resuming goes on
 * behind the last message that we took.
 *
 * librdkafka 2.0 has a habit to know about: a fetcher that found its queue full sleeps for up to a second, whatever happens to
 * the queue meanwhile. Any request to the partition's leader wakes it. So when the queue has run dry after we let it fill, we
 * ask for the partitions' ends at once (hub_survey), which we do from time to time in any case, for the lag.
 */
#include "daemon/source/event_hub.h"

#include "daemon/base/log.h"
#include "daemon/record/unpack.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAUSE_MS        2500         /* far below max.poll.interval.ms */
#define POLLS_PER_TURN  256
#define WAITING_MAX     ((size_t)1 << 20)
#define INFLATED_MAX    ((size_t)16 << 20)
/* Of messages that go out together. */
#define GATHERED_BYTES  ((size_t)64 << 10)
#define GATHERED_MAX    256

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

/* What one in turn costs us: there may be very many very small ones. */
static size_t waiting_cost(const struct waiting *waiting)
{
    return sizeof(*waiting) + sizeof(*waiting->chunk) + JSON_PADDING + waiting->chunk->capacity;
}

/* The first one is no longer in turn; its chunk is the caller's. */
static struct chunk *partition_shift(struct partition *partition)
{
    struct waiting *waiting = STAILQ_FIRST(&partition->waiting);
    struct chunk *chunk = waiting->chunk;

    STAILQ_REMOVE_HEAD(&partition->waiting, entry);
    partition->hub->waiting_bytes -= waiting_cost(waiting);
    free(waiting);
    return chunk;
}

void partition_drop_waiting(struct partition *partition)
{
    while (!STAILQ_EMPTY(&partition->waiting))
        chunk_drop(partition->hub->host, partition_shift(partition));
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

/* Offsets that nobody will see: up to where the partition begins now, they were deleted; behind that they are holes, as
 * compaction and transactions leave them. */
static void partition_note_gap(struct partition *partition, uint64_t expected, uint64_t offset)
{
    struct hub *hub = partition->hub;
    int64_t low = -1, high;
    uint64_t begin;

    rd_kafka_get_watermark_offsets(hub->consumer, partition->topic, partition->id, &low, &high);
    begin = low < 0 || (uint64_t)low > offset ? offset : (uint64_t)low > expected ? (uint64_t)low : expected;
    hub->missing += begin - expected;
    hub->holes += offset - begin;
    if (begin == expected || hub_now_ms(hub) < hub->gap_log_after_ms)
        return;
    hub->gap_log_after_ms = hub_now_ms(hub) + LOG_EVERY_MS;
    hub_note_deleted(hub, partition->key, expected, begin);
}

static void partition_begin_anew(struct partition *partition, uint64_t offset)
{
    log_line(LOG_ERROR, "the partition begins anew: its topic was deleted and made again, or cut short; reading from its "
             "beginning", "source", source_name(partition->hub->host), "partition", partition->key, "expected",
             log_number(stream_position(partition->stream)), "offset", log_number(offset), NULL);
    stream_close(partition->stream, false);
    partition_open_stream(partition, offset);
    partition_commit(partition);
}

static void partition_offer(struct partition *partition, struct chunk *chunk)
{
    uint64_t expected = stream_position(partition->stream);

    if (chunk->offset < expected)
        partition_begin_anew(partition, expected = chunk->offset);
    for (uint32_t i = 0; i < chunk->message_count; i++) {
        if (chunk->messages[i].number > expected)
            partition_note_gap(partition, expected, chunk->messages[i].number);
        expected = chunk->messages[i].number + 1;
    }
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
        plain = chunk_take_messages(hub->host, unzip->size, 1);
        chunk_add(plain, chunk->offset, unzip->plain, unzip->size);
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

/* How many at the front go out together: small ones that are not packed, with rising offsets. */
static uint32_t partition_gather_count(const struct partition *partition, size_t *size)
{
    const struct waiting *waiting;
    uint64_t before = 0;
    uint32_t count = 0;

    *size = 0;
    STAILQ_FOREACH(waiting, &partition->waiting, entry) {
        const struct chunk *chunk = waiting->chunk;

        if (count > 0 && (waiting->packed || chunk->offset <= before || count == GATHERED_MAX ||
                          *size + chunk->size > GATHERED_BYTES))
            break;
        *size += chunk->size;
        before = chunk->offset;
        count++;
    }
    return count;
}

/* A message each would cost a job each, which is far more than small ones cost themselves. */
static struct chunk *partition_gather(struct partition *partition)
{
    struct source_host *host = partition->hub->host;
    size_t size;
    uint32_t count = partition_gather_count(partition, &size);
    struct chunk *all, *one;

    if (count == 1)
        return partition_shift(partition);
    all = chunk_take_messages(host, size, count);
    while (all->message_count < count) {
        one = partition_shift(partition);
        chunk_add(all, one->offset, one->data, one->size);
        chunk_drop(host, one);
    }
    return all;
}

static void partition_next(struct partition *partition)
{
    struct hub *hub = partition->hub;
    struct waiting *waiting = STAILQ_FIRST(&partition->waiting);

    if (partition->out || partition->leaving || hub->state != HUB_RUNNING || waiting == NULL)
        return;
    if (!waiting->packed)
        partition_offer(partition, partition_gather(partition));
    else if (!hub->unzipping && flow_is_open(hub->host))       /* one at a time, since nobody knows what comes out */
        partition_unzip(partition, partition_shift(partition));
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
    waiting->chunk = chunk_take_messages(hub->host, message->len, 1);
    chunk_add(waiting->chunk, (uint64_t)message->offset, payload, message->len);   /* a tombstone has no payload, but a place */
    waiting->packed = message->len > 2 && payload[0] == 0x1f && payload[1] == 0x8b;
    hub->waiting_bytes += waiting_cost(waiting);
    STAILQ_INSERT_TAIL(&partition->waiting, waiting, entry);
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

/* Takes what there is, within the turn and the room. False: there is no more. Callbacks (rebalance, commits, errors, log lines)
 * run inside rd_kafka_consumer_poll(). */
static bool hub_poll_turn(struct hub *hub)
{
    rd_kafka_message_t *message;

    for (int i = 0; i < POLLS_PER_TURN && (hub->paused || hub_wants(hub)); i++) {
        hub->polled_ms = hub_now_ms(hub);
        message = rd_kafka_consumer_poll(hub->consumer, 0);
        if (message == NULL)
            return false;
        hub_take_event(hub, message);
    }
    return true;
}

void hub_poll(struct hub *hub)
{
    if (hub->state != HUB_RUNNING || hub->consumer == NULL)
        return;
    if (hub->paused && hub_wants(hub))
        hub_pause(hub, false);
    if (!hub->paused && !hub_wants(hub) && hub_now_ms(hub) - hub->polled_ms > PAUSE_MS)
        hub_pause(hub, true);
    hub->more = hub_poll_turn(hub);
    hub_next(hub);                                 /* only now, so that small messages go together */
    if (hub->more && hub_wants(hub)) {
        hub_wake(hub);                             /* the others get their turn, then we go on */
        return;
    }
    if (!hub->more && hub->held_back)
        hub_survey(hub);
    hub->held_back = hub->more;
}
