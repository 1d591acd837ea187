/*
 * event_hub.c - reads an Azure event hub through its Kafka endpoint, or a topic of any Kafka, through librdkafka.
 *
 * A partition is a stream, a message's offset its position; each message is framed by itself: `{"records":[…]}`, a single
 * record, an array, or any of these in gzip. Small ones go through the pipeline several at a time.
 *
 * Whose cursor? The consumer group's committed offsets, because partitions move between the daemons of a group. An offset
 * is committed when everything before it is safe: every sink has answered, or the spool has it synced. We store such offsets
 * with librdkafka, which commits them: every second, when a partition is given up, and at the end. The stream's row in
 * state.db is only asked where the group has forgotten its offset (brokers do after a week without a daemon, and when the topic
 * is deleted), and tells a topic that we have read before from one that is new to us.
 *
 * What cannot be seen: a topic that was deleted and made anew while no daemon ran, and has grown past our offset since.
 *
 * Here are the settings, the turns and the contract with the pipeline; event_hub.h says where the rest is.
 */
#include "daemon/source/event_hub.h"
#include "daemon/remote/kafka_probe.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define TICK_MS         200
#define CLIENT_MEMORY   ((size_t)8 << 20)

static const struct pen_option hub_options[] = {
    KAFKA_CLIENT_BROKERS(struct hub, client, "bootstrap"),
    { "topic", PEN_TEXT, offsetof(struct hub, topic), .required = true, .help = "Event hub, or topic, to read." },
    { "group", PEN_TEXT, offsetof(struct hub, group), .fallback = "penstock",
      .help = "Consumer group: daemons of one group share the partitions. Event Hubs makes it by itself." },
    { "start", PEN_TEXT, offsetof(struct hub, start), .fallback = "earliest",
      .help = "Where a group that is new begins: earliest, latest, or a time such as 2026-11-22T09:00:00Z." },
    KAFKA_CLIENT_LOGIN(struct hub, client),
    KAFKA_CLIENT_PAIRS(struct hub, client),
    { 0 }
};

/* ---- Turns ------------------------------------------------------------------------------------------------------ */

void hub_wake(struct hub *hub)
{
    uint64_t one = 1;

    if (write(hub->fd, &one, sizeof(one)) < 0)
        assert(errno == EAGAIN);                   /* full: readable already */
}

static void on_tick(uv_timer_t *timer)
{
    struct hub *hub = timer->data;

    if (hub->state != HUB_RUNNING)
        return;
    hub_say_unreached(hub);
    hub_renew_when_due(hub);
    if (hub->state != HUB_RUNNING || hub->consumer == NULL)
        return;
    hub_poll(hub);
    hub_group_tick(hub);
}

static void on_wake(uv_poll_t *poll, int status, int events)
{
    struct hub *hub = poll->data;
    uint64_t count;

    (void)status;
    (void)events;
    if (read(hub->fd, &count, sizeof(count)) < 0)
        assert(errno == EAGAIN);
    hub_poll(hub);
}

/* ---- The contract ----------------------------------------------------------------------------------------------- */

static int hub_read_start(struct hub *hub, struct pen_error *err)
{
    int64_t ticks;

    if (strcmp(hub->start, "earliest") == 0) {
        hub->start_at = START_EARLIEST;
    } else if (strcmp(hub->start, "latest") == 0) {
        hub->start_at = START_LATEST;
    } else if (pen_time_read((struct pen_span){ hub->start, strlen(hub->start) }, &ticks)) {
        hub->start_at = START_TIME;
        hub->start_ms = ticks / 10000;
    } else {
        return pen_error_set(err, UV_EINVAL, "start: expected earliest, latest or a time such as 2026-11-22T09:00:00Z");
    }
    return 0;
}

/* All but the login, whose secret this machine need not have. */
static int hub_prove(const struct pen_conf *conf, struct pen_error *err)
{
    rd_kafka_conf_t *properties = rd_kafka_conf_new();
    struct hub hub = { 0 };
    int r = pen_conf_fill(conf, hub_options, &hub, err);

    if (r == 0)
        r = hub_read_start(&hub, err);
    if (r == 0)
        r = kafka_client_check(&hub.client, "bootstrap", err);
    if (r == 0)
        r = kafka_login_check(&hub.client, err);
    if (r == 0)
        r = hub_configure(properties, &hub, err);
    rd_kafka_conf_destroy(properties);
    return r;
}

static void hub_close(void *self)
{
    struct hub *hub = self;
    struct partition *partition;

    if (hub == NULL)
        return;
    assert(hub->jobs == 0 && hub->handles == 0);
    while ((partition = TAILQ_FIRST(&hub->partitions)) != NULL)
        partition_free(partition);
    if (hub->consumer != NULL)                     /* open() failed half-way, or nobody called start() */
        hub_end_unused(hub);
    hub_group_close(hub);
    kafka_login_close(hub->login);
    if (hub->fd >= 0)
        close(hub->fd);
    free(hub);
}

static int hub_open(void **self, struct source_host *host, const struct pen_conf *conf, struct pen_error *err)
{
    struct hub *hub = calloc(1, sizeof(*hub));
    int r;

    if (hub == NULL)
        abort();
    hub->host = host;
    hub->fd = -1;
    TAILQ_INIT(&hub->partitions);
    r = hub_prove(conf, err);
    if (r == 0)
        r = pen_conf_fill(conf, hub_options, hub, err);
    if (r == 0)
        r = hub_read_start(hub, err);
    if (r < 0)
        goto fail;
    hub->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (hub->fd < 0) {
        r = pen_error_set(err, -errno, "eventfd: %s", strerror(errno));
        goto fail;
    }
    r = kafka_login_new(&hub->login, &hub->client, source_http(host), source_loop(host), err);
    if (r < 0)
        goto fail;
    r = hub_connect(hub, err);                     /* begins to connect; finds a secret that cannot be read */
    if (r < 0)
        goto fail;
    source_reserve(host, CLIENT_MEMORY);
    *self = hub;
    return 0;
fail:
    hub_close(hub);
    return r;
}

static void on_known(void *arg, const struct cursor *cursor)
{
    known_note(arg, cursor->key, cursor->position);
}

static void hub_on_start(void *self)
{
    struct hub *hub = self;

    source_each_cursor(hub->host, on_known, hub);
    kafka_client_warn(&hub->client, "source", source_name(hub->host));
    hub_subscribe(hub);
    hub->state = HUB_RUNNING;
    hub->poll.data = hub->timer.data = hub;
    uv_poll_init(source_loop(hub->host), &hub->poll, hub->fd);
    uv_timer_init(source_loop(hub->host), &hub->timer);
    hub->handles = 2;
    uv_poll_start(&hub->poll, UV_READABLE, on_wake);
    uv_timer_start(&hub->timer, on_tick, TICK_MS, TICK_MS);
    hub_wake(hub);
}

static void hub_on_chunk(void *self, void *stream_self, struct chunk *chunk, size_t consumed)
{
    struct hub *hub = self;
    struct partition *partition = stream_self;

    (void)consumed;                                /* all of it, unless we stop: then it is read again */
    chunk_drop(hub->host, chunk);
    partition->out = false;
    partition_done(partition);
}

static void hub_on_flow(void *self)
{
    hub_next(self);
    hub_wake(self);
}

void hub_note_stopped(struct hub *hub)
{
    void (*stopped)(void *arg) = hub->stopped;

    if (hub->state != HUB_STOPPED || hub->jobs > 0 || stopped == NULL)
        return;
    hub->stopped = NULL;
    stopped(hub->stopped_arg);
}

/* The client lives on until settle(): it must stay in its group to commit what becomes safe meanwhile. */
static void hub_stop(void *self, void (*stopped)(void *arg), void *arg)
{
    struct hub *hub = self;
    struct partition *partition;

    hub->stopped = stopped;
    hub->stopped_arg = arg;
    TAILQ_FOREACH(partition, &hub->partitions, entry)
        partition_drop_waiting(partition);
    if (hub->handles > 0)
        uv_timer_stop(&hub->timer);
    hub_group_stop(hub);
    hub->state = HUB_STOPPED;
    hub_note_stopped(hub);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct hub *hub = handle->data;

    if (--hub->handles == 0)
        hub->settled(hub->settled_arg);
}

void hub_close_handles(struct hub *hub)
{
    uv_close((uv_handle_t *)&hub->poll, on_handle_closed);
    uv_close((uv_handle_t *)&hub->timer, on_handle_closed);
}

static size_t hub_numbers(void *self, struct source_number numbers[SOURCE_NUMBERS_MAX])
{
    const struct hub *hub = self;
    const struct partition *partition;
    uint64_t partitions = 0;
    size_t count = 0;

    TAILQ_FOREACH(partition, &hub->partitions, entry)
        partitions += !partition->leaving;
    numbers[count++] = (struct source_number){ "partitions", SOURCE_LEVEL, partitions, "Partitions that are ours to read." };
    numbers[count++] = (struct source_number){ "waiting", SOURCE_LEVEL, hub->waiting_bytes, "Bytes of messages in turn." };
    numbers[count++] = (struct source_number){ "missing", SOURCE_COUNT, hub->missing,
                                               "Messages that were deleted before they were read." };
    numbers[count++] = (struct source_number){ "holes", SOURCE_COUNT, hub->holes,
                                               "Offsets without a message: of transactions, or compacted away." };
    return count;
}

static uint64_t hub_token_ms(void *self)
{
    const struct hub *hub = self;

    return kafka_login_life_ms(hub->login);
}

const struct source_type event_hub_source = {
    .name = "event-hub", .options = hub_options, .open = hub_open, .start = hub_on_start, .on_chunk = hub_on_chunk,
    .on_flow = hub_on_flow, .stop = hub_stop, .settle = hub_settle, .close = hub_close, .prove = hub_prove,
    .numbers = hub_numbers, .token_ms = hub_token_ms, .by_message = true,
    .probe = kafka_source_probe,
};

/* The same under the name that users of another Kafka look for. */
const struct source_type kafka_source = {
    .name = "kafka", .options = hub_options, .open = hub_open, .start = hub_on_start, .on_chunk = hub_on_chunk,
    .on_flow = hub_on_flow, .stop = hub_stop, .settle = hub_settle, .close = hub_close, .prove = hub_prove,
    .numbers = hub_numbers, .token_ms = hub_token_ms, .by_message = true,
    .probe = kafka_source_probe,
};
