/*
 * event_hub_group.c - the consumer group: where partitions begin, how they are handed over, what is committed.
 *
 *   assigned ──▶ locating (pool: committed offsets, bounds) ──▶ reading ──revoked──▶ draining ──▶ handed over
 *
 *   locating  decides where each partition begins, in partition_begin(); nothing is read from anywhere by default. A place
 *             that the group did not have is committed before the first message is asked for: whoever comes after us, if we
 *             die now, begins there and not at a later "latest"
 *   draining  nothing more is offered; what is out gets DRAIN_MS to become safe, its offsets are committed, and the partition
 *             is given up. What was not safe by then is read again by the next owner, with the same event ids. Partitions
 *             that stay (assignment is cooperative) go on meanwhile.
 *
 * A partition that has no leader at all holds back those that were given to us together with it.
 */
#include "daemon/source/event_hub.h"

#include "daemon/base/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define DRAIN_MS        10000
#define RELOCATE_MS     2000
#define SURVEY_MS       10000

/* Where partitions begin, asked on the pool. */
struct locate {
    uv_work_t work;
    struct hub *hub;
    rd_kafka_t *consumer;
    enum { LOCATE_ASK, LOCATE_COMMIT } step;
    rd_kafka_topic_partition_list_t *parts;        /* with the group's offsets, then with those we begin at */
    rd_kafka_topic_partition_list_t *low, *high;
    rd_kafka_topic_partition_list_t *times;        /* with the offsets of start_ms; NULL: not asked */
    rd_kafka_topic_partition_list_t *fresh;        /* those of `parts` that the group does not have */
    rd_kafka_resp_err_t error;
    uint64_t again_ms;               /* 0: the pool is at it */
};

struct bounds { int64_t low, high; };

struct known {
    char *key;
    uint64_t position;
};

/* ---- What we know ourselves ------------------------------------------------------------------------------------- */

static struct known *known_find(const struct hub *hub, const char *key)
{
    for (size_t i = 0; i < hub->known_count; i++)
        if (strcmp(hub->known[i].key, key) == 0)
            return &hub->known[i];
    return NULL;
}

/* How far we have read: of use only where the group has no offset, and a place too early then is better than a guess. */
void known_note(struct hub *hub, const char *key, uint64_t position)
{
    struct known *known = known_find(hub, key);

    if (known == NULL) {
        hub->known = realloc(hub->known, (hub->known_count + 1) * sizeof(*hub->known));
        if (hub->known == NULL)
            abort();
        known = &hub->known[hub->known_count++];
        known->key = strdup(key);
        if (known->key == NULL)
            abort();
    }
    known->position = position;
}

/* ---- Commits ---------------------------------------------------------------------------------------------------- */

/* What is safe by now is stored with librdkafka, which commits it every second and when a partition is given up, but never
 * amid a rebalance: a commit that meets the group between two generations costs the whole assignment. */
void hub_store(struct hub *hub)
{
    rd_kafka_topic_partition_list_t *parts = rd_kafka_topic_partition_list_new(8);
    struct partition *partition;

    TAILQ_FOREACH(partition, &hub->partitions, entry) {
        uint64_t safe = stream_safe_position(partition->stream);

        if (partition->gone || safe == partition->stored)
            continue;
        rd_kafka_topic_partition_list_add(parts, partition->topic, partition->id)->offset = (int64_t)safe;
        partition->stored = safe;
    }
    if (parts->cnt > 0)
        rd_kafka_offsets_store(hub->consumer, parts);
    rd_kafka_topic_partition_list_destroy(parts);
}

/* The group has gone on without us, as librdkafka tells by the partitions that it takes: nothing to try again for. */
static bool is_too_late(rd_kafka_resp_err_t error)
{
    return error == RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID || error == RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION ||
        error == RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS || error == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID ||
        error == RD_KAFKA_RESP_ERR__ASSIGNMENT_LOST;
}

/* librdkafka tries again by itself. */
void on_commit(rd_kafka_t *consumer, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t *parts, void *arg)
{
    struct hub *hub = arg;

    (void)consumer, (void)parts;
    if (hub->reaping || error == RD_KAFKA_RESP_ERR__NO_OFFSET)
        return;
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
        hub_well(hub);
    else if (!hub->commit_failed && !hub->trouble && !is_too_late(error))
        log_line(LOG_WARN, "offsets could not be committed, trying on: after a crash now, more would repeat", "source",
                 source_name(hub->host), "error", rd_kafka_err2name(error), NULL);
    hub->commit_failed = error != RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* ---- Given to us: where to begin -------------------------------------------------------------------------------- */

static void locate_free(struct locate *locate)
{
    rd_kafka_topic_partition_list_t *lists[] = { locate->parts, locate->low, locate->high, locate->times, locate->fresh };

    for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
        if (lists[i] != NULL)
            rd_kafka_topic_partition_list_destroy(lists[i]);
    free(locate);
}

/* A list's offsets at a time, in milliseconds or one of -2 (the beginning) and -1 (the end). Blocks. */
static rd_kafka_resp_err_t offsets_ask(rd_kafka_t *consumer, rd_kafka_topic_partition_list_t *parts, int64_t time)
{
    rd_kafka_resp_err_t error;

    for (int i = 0; i < parts->cnt; i++)
        parts->elems[i].offset = time;
    error = rd_kafka_offsets_for_times(consumer, parts, REQUEST_MS);
    for (int i = 0; i < parts->cnt && error == 0; i++)
        error = parts->elems[i].err;
    return error;
}

/* rd_kafka_commit() with an end. */
static rd_kafka_resp_err_t offsets_commit(rd_kafka_t *consumer, const rd_kafka_topic_partition_list_t *parts)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_new(consumer);
    rd_kafka_resp_err_t error = rd_kafka_commit_queue(consumer, parts, queue, NULL, NULL);
    rd_kafka_event_t *event = error == 0 ? rd_kafka_queue_poll(queue, REQUEST_MS) : NULL;

    if (error == 0)
        error = event != NULL ? rd_kafka_event_error(event) : RD_KAFKA_RESP_ERR__TIMED_OUT;
    if (event != NULL)
        rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    return error;
}

static bool hub_is_leaving(const struct hub *hub)
{
    return __atomic_load_n(&hub->leaving, __ATOMIC_RELAXED);
}

static void locate_ask(struct locate *locate)
{
    struct hub *hub = locate->hub;

    locate->error = rd_kafka_committed(locate->consumer, locate->parts, REQUEST_MS);
    for (int i = 0; i < locate->parts->cnt && locate->error == 0; i++)
        locate->error = locate->parts->elems[i].err;
    if (locate->error == 0 && !hub_is_leaving(hub))
        locate->error = offsets_ask(locate->consumer, locate->low, -2);
    if (locate->error == 0 && !hub_is_leaving(hub))
        locate->error = offsets_ask(locate->consumer, locate->high, -1);
    if (locate->error == 0 && !hub_is_leaving(hub) && locate->times != NULL)
        locate->error = offsets_ask(locate->consumer, locate->times, hub->start_ms);
    for (int i = 0; i < locate->parts->cnt && locate->error == 0; i++)
        if (locate->low->elems[i].offset < 0 || locate->high->elems[i].offset < locate->low->elems[i].offset)
            locate->error = RD_KAFKA_RESP_ERR__PARTIAL;
}

static void on_locate_work(uv_work_t *work)
{
    struct locate *locate = work->data;

    if (locate->step == LOCATE_ASK)
        locate_ask(locate);
    else
        locate->error = offsets_commit(locate->consumer, locate->fresh);
}

static void on_located(uv_work_t *work, int status);

static void hub_locate(struct hub *hub)
{
    struct locate *locate = hub->locate;

    locate->again_ms = 0;
    hub->jobs++;
    uv_queue_work(source_loop(hub->host), &locate->work, on_locate_work, on_located);
}

/* For a partition that neither the group nor we have read before. */
static int64_t hub_start(const struct hub *hub, const struct bounds *bounds, int64_t at_time)
{
    switch (hub->start_at) {
    case START_EARLIEST:
        return bounds->low;
    case START_LATEST:
        return bounds->high;
    case START_TIME:
        return at_time >= bounds->low && at_time <= bounds->high ? at_time : bounds->high;   /* none: younger than all */
    }
    return bounds->low;
}

/* The one place that decides where a partition begins. */
static int64_t partition_begin(struct hub *hub, const char *key, int64_t committed, const struct bounds *bounds,
                               int64_t at_time)
{
    const struct known *known = known_find(hub, key);
    int64_t place = committed >= 0 ? committed : known != NULL ? (int64_t)known->position : hub_start(hub, bounds, at_time);

    if (place >= bounds->low && place <= bounds->high)
        return place;
    if (place > bounds->high) {
        log_line(LOG_ERROR, "the partition ends before our place: its topic was deleted and made again; reading from its "
                 "beginning", "source", source_name(hub->host), "partition", key, "place",
                 log_number((unsigned long long)place), "end", log_number((unsigned long long)bounds->high), NULL);
    } else {
        hub->missing += (uint64_t)(bounds->low - place);
        hub_note_deleted(hub, key, (uint64_t)place, (uint64_t)bounds->low);
    }
    return bounds->low;
}

/* What was asked is here: where each partition begins, and what of that the group does not know yet. */
static void locate_decide(struct locate *locate)
{
    struct hub *hub = locate->hub;

    locate->fresh = rd_kafka_topic_partition_list_new(locate->parts->cnt);
    for (int i = 0; i < locate->parts->cnt; i++) {
        rd_kafka_topic_partition_t *part = &locate->parts->elems[i];
        struct bounds bounds = { locate->low->elems[i].offset, locate->high->elems[i].offset };
        char *key = partition_key(part->topic, part->partition);
        int64_t place = partition_begin(hub, key, part->offset, &bounds,
                                        locate->times != NULL ? locate->times->elems[i].offset : -1);

        if (place != part->offset)
            rd_kafka_topic_partition_list_add(locate->fresh, part->topic, part->partition)->offset = place;
        part->offset = place;
        free(key);
    }
}

static void kafka_failed(struct hub *hub, rd_kafka_error_t *error)
{
    if (error == NULL)
        return;
    hub_trouble(hub, rd_kafka_error_code(error), rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
}

static void locate_done(struct locate *locate)
{
    struct hub *hub = locate->hub;

    for (int i = 0; i < locate->parts->cnt; i++)
        partition_new(hub, locate->parts->elems[i].topic, locate->parts->elems[i].partition,
                      (uint64_t)locate->parts->elems[i].offset);
    kafka_failed(hub, rd_kafka_incremental_assign(hub->consumer, locate->parts));
    if (hub->paused)
        hub_pause(hub, true);
    hub->locate = NULL;
    hub->survey.next_ms = 0;
    locate_free(locate);
    hub_well(hub);
    hub_wake(hub);
}

static void on_located(uv_work_t *work, int status)
{
    struct locate *locate = work->data;
    struct hub *hub = locate->hub;

    (void)status;
    hub->jobs--;
    if (hub->state != HUB_RUNNING) {               /* hub_settle() gives librdkafka the answer that it waits for */
        hub->locate = NULL;
        locate_free(locate);
        hub_note_stopped(hub);
    } else if (locate->error != 0 && !(locate->step == LOCATE_COMMIT && is_too_late(locate->error))) {
        locate->again_ms = hub_now_ms(hub) + RELOCATE_MS;
        hub_trouble(hub, locate->error, "where our partitions begin cannot be asked");
    } else if (locate->step == LOCATE_COMMIT) {
        locate_done(locate);
    } else {
        locate_decide(locate);
        if (locate->fresh->cnt == 0) {
            locate_done(locate);
        } else {
            locate->step = LOCATE_COMMIT;
            hub_locate(hub);
        }
    }
}

static void hub_assigned(struct hub *hub, const rd_kafka_topic_partition_list_t *parts)
{
    struct locate *locate = calloc(1, sizeof(*locate));

    assert(hub->locate == NULL);                   /* librdkafka waits for our answer before it says more */
    if (locate == NULL)
        abort();
    locate->hub = hub;
    locate->consumer = hub->consumer;
    locate->work.data = locate;
    locate->parts = rd_kafka_topic_partition_list_copy(parts);
    locate->low = rd_kafka_topic_partition_list_copy(parts);
    locate->high = rd_kafka_topic_partition_list_copy(parts);
    if (hub->start_at == START_TIME)
        locate->times = rd_kafka_topic_partition_list_copy(parts);
    hub->locate = locate;
    if (parts->cnt > 0)
        hub_locate(hub);
    else
        locate_done(locate);
}

/* ---- Where the partitions end ----------------------------------------------------------------------------------- */

static void on_survey_work(uv_work_t *work)
{
    struct hub *hub = work->data;

    hub->survey.error = offsets_ask(hub->consumer, hub->survey.ends, -1);
}

static void on_surveyed(uv_work_t *work, int status)
{
    struct hub *hub = work->data;
    rd_kafka_topic_partition_list_t *ends = hub->survey.ends;
    struct partition *partition;

    (void)status;
    hub->jobs--;
    hub->survey.ends = NULL;
    for (int i = 0; i < ends->cnt && hub->survey.error == 0 && hub->state == HUB_RUNNING; i++) {
        partition = partition_find(hub, ends->elems[i].topic, ends->elems[i].partition);
        if (partition != NULL && ends->elems[i].offset >= 0)
            stream_set_end(partition->stream, (uint64_t)ends->elems[i].offset);
    }
    if (hub->survey.error == 0 && hub->state == HUB_RUNNING)
        hub_well(hub);
    rd_kafka_topic_partition_list_destroy(ends);
    hub_note_stopped(hub);
}

void hub_survey(struct hub *hub)
{
    struct survey *survey = &hub->survey;
    const struct partition *partition;

    if (survey->ends != NULL)
        return;
    survey->next_ms = hub_now_ms(hub) + SURVEY_MS;
    survey->ends = rd_kafka_topic_partition_list_new(8);
    TAILQ_FOREACH(partition, &hub->partitions, entry)
        if (!partition->leaving)
            rd_kafka_topic_partition_list_add(survey->ends, partition->topic, partition->id);
    if (survey->ends->cnt == 0) {
        rd_kafka_topic_partition_list_destroy(survey->ends);
        survey->ends = NULL;
        return;
    }
    survey->work.data = hub;
    hub->jobs++;
    uv_queue_work(source_loop(hub->host), &survey->work, on_survey_work, on_surveyed);
}

/* ---- Taken from us ---------------------------------------------------------------------------------------------- */

static void hub_give_up(struct hub *hub)
{
    rd_kafka_topic_partition_list_t *parts = hub->revoked;
    struct partition *partition, *next;

    hub->revoked = NULL;
    hub_store(hub);
    kafka_failed(hub, rd_kafka_incremental_unassign(hub->consumer, parts));
    rd_kafka_topic_partition_list_destroy(parts);
    for (partition = TAILQ_FIRST(&hub->partitions); partition != NULL; partition = next) {
        next = TAILQ_NEXT(partition, entry);
        if (!partition->leaving)
            continue;
        known_note(hub, partition->key, stream_safe_position(partition->stream));
        partition->gone = true;
        partition_done(partition);
    }
}

/* Gives the revoked partitions up as soon as all that was read of them is safe, or time is over. */
static void hub_drain(struct hub *hub)
{
    const struct partition *partition;

    if (hub->revoked == NULL)
        return;
    TAILQ_FOREACH(partition, &hub->partitions, entry)
        if (partition->leaving && !partition->gone && hub_now_ms(hub) < hub->drain_until_ms &&
            (partition->out || stream_safe_position(partition->stream) < stream_position(partition->stream)))
            return;
    hub_give_up(hub);
}

static void hub_revoked(struct hub *hub, const rd_kafka_topic_partition_list_t *parts)
{
    bool lost = rd_kafka_assignment_lost(hub->consumer);

    assert(hub->revoked == NULL);
    hub->revoked = rd_kafka_topic_partition_list_copy(parts);
    for (int i = 0; i < parts->cnt; i++) {
        struct partition *partition = partition_find(hub, parts->elems[i].topic, parts->elems[i].partition);

        if (partition == NULL)
            continue;
        partition->leaving = true;
        partition_drop_waiting(partition);
    }
    hub->drain_until_ms = lost ? 0 : hub_now_ms(hub) + DRAIN_MS;
    hub_drain(hub);
}

void on_rebalance(rd_kafka_t *consumer, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t *parts, void *arg)
{
    struct hub *hub = arg;

    if (hub->reaping) {                            /* on the pool, while it closes: the loop's things are not ours to touch */
        rd_kafka_error_t *failed = error == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS
            ? rd_kafka_incremental_assign(consumer, parts) : rd_kafka_incremental_unassign(consumer, parts);

        if (failed != NULL)
            rd_kafka_error_destroy(failed);
        return;
    }
    if (parts->cnt > 0)
        log_line(LOG_NOTE, error == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS ? "partitions are given to us" :
                 "partitions are taken from us", "source", source_name(hub->host), "topic", hub->topic, "partitions",
                 log_number((unsigned)parts->cnt), NULL);
    if (error == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS)
        hub_assigned(hub, parts);
    else
        hub_revoked(hub, parts);
}

/* ---- Time, and the end ------------------------------------------------------------------------------------------ */

void hub_group_tick(struct hub *hub)
{
    if (hub->locate != NULL && hub->locate->again_ms > 0 && hub_now_ms(hub) >= hub->locate->again_ms)
        hub_locate(hub);
    hub_drain(hub);
    if (hub_now_ms(hub) >= hub->survey.next_ms)
        hub_survey(hub);
    hub_store(hub);
}

void hub_group_stop(struct hub *hub)
{
    if (hub->locate != NULL && hub->locate->again_ms > 0) {
        locate_free(hub->locate);
        hub->locate = NULL;
    }
    __atomic_store_n(&hub->leaving, true, __ATOMIC_RELAXED);
}

void hub_group_drop(struct hub *hub)
{
    struct partition *partition, *next;

    if (hub->locate != NULL)
        locate_free(hub->locate);
    hub->locate = NULL;
    for (partition = TAILQ_FIRST(&hub->partitions); partition != NULL; partition = next) {
        next = TAILQ_NEXT(partition, entry);
        known_note(hub, partition->key, stream_safe_position(partition->stream));
        partition->leaving = partition->gone = true;
        partition_drop_waiting(partition);
        partition_done(partition);
    }
    if (hub->revoked != NULL)
        rd_kafka_topic_partition_list_destroy(hub->revoked);
    hub->revoked = NULL;
}

void hub_group_close(struct hub *hub)
{
    if (hub->revoked != NULL)
        rd_kafka_topic_partition_list_destroy(hub->revoked);
    for (size_t i = 0; i < hub->known_count; i++)
        free(hub->known[i].key);
    free(hub->known);
}
