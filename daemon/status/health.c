/* health.c - see health.h. */
#include "daemon/status/health.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOVING_MS 10000u             /* whoever got on not longer ago is at work */
#define SLOW_MS 10000u               /* standing still for so long is worth a look, … */
#define STALLED_MS 60000u            /* … and for so long is bad; /readyz has its own patience */

static bool is_moving(uint64_t moved_ms, uint64_t now_ms)
{
    return moved_ms > 0 && now_ms - moved_ms < MOVING_MS;
}

static struct status_state source_state(const struct status *status, const struct status_source *source, bool moving)
{
    if (source->stalled_ms >= STALLED_MS)
        return (struct status_state){ MOOD_BAD, "stands still" };
    if (status->flow == OUTLET_PAUSED && source->unread > 0)
        return (struct status_state){ MOOD_WARN, "waits" };
    if (source->stalled_ms >= SLOW_MS)
        return (struct status_state){ MOOD_WARN, "slow" };
    return moving ? (struct status_state){ MOOD_OK, "reading" } : (struct status_state){ MOOD_IDLE, "idle" };
}

/* What is worst comes first: the rights that a human must give, then the disk, then a far end that is away. */
static struct status_state sink_state(const struct status_sink *sink, bool moving)
{
    if (sink->refused)
        return (struct status_state){ MOOD_BAD, "refuses us" };
    if (sink->flow == OUTLET_PAUSED)
        return (struct status_state){ MOOD_BAD, "spool full" };
    if (sink->dead_bytes >= sink->dead_max)
        return (struct status_state){ MOOD_BAD, "dead letters full" };
    if (sink->stalled_ms >= STALLED_MS)
        return (struct status_state){ MOOD_BAD, "away" };
    if (sink->arrival.differs == 1)
        return (struct status_state){ MOOD_BAD, "not all arrives" };
    if (sink->trouble != NULL)
        return (struct status_state){ MOOD_WARN, "busy or away" };
    if (sink->flow == OUTLET_SPOOLING && sink->all.spooled > 0)
        return (struct status_state){ MOOD_WARN, "by way of the disk" };
    if (sink->all.dead > 0 || sink->dead_bytes > 0)
        return (struct status_state){ MOOD_WARN, "dead letters" };
    return moving ? (struct status_state){ MOOD_OK, "delivering" } : (struct status_state){ MOOD_IDLE, "idle" };
}

static uint64_t sink_ended(const struct status_sink *sink)
{
    return sink->all.delivered + sink->all.dead + sink->all.dropped;
}

static void sink_look(struct health_sink *past, struct status_sink *sink, uint64_t now_ms)
{
    if (sink_ended(sink) != past->ended)
        past->moved_ms = now_ms;
    if (sink_ended(sink) != past->ended || !sink->waiting)
        past->since_ms = now_ms;
    past->ended = sink_ended(sink);
    if (sink->flow != OUTLET_PAUSED)
        past->paused_ms = now_ms;
    sink->stalled_ms = now_ms - past->since_ms;
    sink->paused_ms = now_ms - past->paused_ms;
    sink->state = sink_state(sink, is_moving(past->moved_ms, now_ms));
}

/* More has come than a record that is not whole yet, or something came or failed not long ago. A line that was begun and a
 * listing that failed once must not haunt a source that has nothing to do ever after. */
static bool source_is_stuck(const struct health *health, const struct health_source *past, const struct status_source *source,
                            uint64_t now_ms)
{
    bool recently = now_ms - past->worse_ms < health->stalled_after_ms || past->worse_ms == now_ms;

    if (source->ailing || source->unread > past->unread + health->record_max)
        return true;
    return recently && (source->unread > past->unread || source->troubles > past->troubles);
}

static void source_look(const struct health *health, struct health_source *past, struct status_source *source,
                        uint64_t now_ms)
{
    if (source->bytes != past->bytes)
        past->moved_ms = now_ms;
    if (source->bytes != past->bytes || source->unread < past->unread) {
        past->bytes = source->bytes;
        past->unread = source->unread;
        past->troubles = source->troubles;
        if (!source->ailing)         /* else the rest of it moves, and that is no comfort */
            past->since_ms = now_ms;
    }
    if (source->unread > past->seen_unread || source->troubles > past->seen_troubles)
        past->worse_ms = now_ms;
    past->seen_unread = source->unread;
    past->seen_troubles = source->troubles;
    if (!source_is_stuck(health, past, source, now_ms))
        past->since_ms = now_ms;
    source->stalled_ms = now_ms - past->since_ms;
}

/* Where the names are no longer those of the last look, each finds its own past again, and who is new begins. */
static void sources_follow(struct health *health, const struct status *status, uint64_t now_ms)
{
    struct health_source *past = malloc(sizeof(health->sources));

    if (past == NULL)
        abort();
    memcpy(past, health->sources, sizeof(health->sources));
    for (uint32_t i = 0; i < status->source_count; i++) {
        const struct status_source *source = &status->sources[i];
        size_t at = 0;

        while (at < SETTINGS_SOURCES_MAX && strcmp(past[at].name, source->name) != 0)
            at++;
        if (at < SETTINGS_SOURCES_MAX) {
            health->sources[i] = past[at];
            continue;
        }
        health->sources[i] = (struct health_source){ .bytes = source->bytes, .unread = source->unread, .since_ms = now_ms,
                                                     .worse_ms = now_ms };
        (void)snprintf(health->sources[i].name, HEALTH_NAME_BYTES, "%s", source->name);
    }
    for (size_t i = status->source_count; i < SETTINGS_SOURCES_MAX; i++)
        health->sources[i].name[0] = '\0';
    free(past);
}

static void sinks_follow(struct health *health, const struct status *status, uint64_t now_ms)
{
    struct health_sink past[SETTINGS_SINKS_MAX];

    memcpy(past, health->sinks, sizeof(past));
    for (uint32_t i = 0; i < status->sink_count; i++) {
        size_t at = 0;

        while (at < SETTINGS_SINKS_MAX && strcmp(past[at].name, status->sinks[i].name) != 0)
            at++;
        if (at < SETTINGS_SINKS_MAX) {
            health->sinks[i] = past[at];
            continue;
        }
        health->sinks[i] = (struct health_sink){ .since_ms = now_ms, .paused_ms = now_ms };
        (void)snprintf(health->sinks[i].name, HEALTH_NAME_BYTES, "%s", status->sinks[i].name);
    }
    for (size_t i = status->sink_count; i < SETTINGS_SINKS_MAX; i++)
        health->sinks[i].name[0] = '\0';
}

/* And nobody else: who left and comes again begins anew. */
static bool health_knows(const struct health *health, const struct status *status)
{
    if (status->source_count < SETTINGS_SOURCES_MAX && health->sources[status->source_count].name[0] != '\0')
        return false;
    if (status->sink_count < SETTINGS_SINKS_MAX && health->sinks[status->sink_count].name[0] != '\0')
        return false;
    for (uint32_t i = 0; i < status->source_count; i++)
        if (strcmp(health->sources[i].name, status->sources[i].name) != 0)
            return false;
    for (uint32_t i = 0; i < status->sink_count; i++)
        if (strcmp(health->sinks[i].name, status->sinks[i].name) != 0)
            return false;
    return true;
}

static bool too_long(const struct health *health, uint64_t ms)
{
    return health->stalled_after_ms > 0 && ms >= health->stalled_after_ms;
}

void health_look(struct health *health, struct status *status, uint64_t now_ms)
{
    if (!health_knows(health, status)) {
        sources_follow(health, status, now_ms);
        sinks_follow(health, status, now_ms);
    }
    status->ready = 1;
    for (uint32_t i = 0; i < status->source_count; i++) {
        source_look(health, &health->sources[i], &status->sources[i], now_ms);
        status->sources[i].state = source_state(status, &status->sources[i], is_moving(health->sources[i].moved_ms, now_ms));
        if (too_long(health, status->sources[i].stalled_ms))
            status->ready = 0;
    }
    for (uint32_t i = 0; i < status->sink_count; i++) {
        sink_look(&health->sinks[i], &status->sinks[i], now_ms);
        if (too_long(health, status->sinks[i].stalled_ms) || too_long(health, status->sinks[i].paused_ms))
            status->ready = 0;
    }
}

void health_reasons(const struct health *health, const struct status *status, struct buf *out)
{
    for (uint32_t i = 0; i < status->source_count; i++) {
        const struct status_source *source = &status->sources[i];

        if (too_long(health, source->stalled_ms))
            buf_text(out, "source %s: %s for %" PRIu64 " s%s; the log says why\n", source->name,
                     source->ailing ? "it, or some of it, cannot be read" : "nothing was read", source->stalled_ms / 1000,
                     source->ailing ? "" : " although there is something to read");
    }
    for (uint32_t i = 0; i < status->sink_count; i++) {
        const struct status_sink *sink = &status->sinks[i];

        if (too_long(health, sink->stalled_ms))
            buf_text(out, "sink %s: nothing was delivered for %" PRIu64 " s although %" PRIu64 " messages wait%s\n", sink->name,
                     sink->stalled_ms / 1000, sink->all.held + sink->all.spooled,
                     sink->refused ? "; the far end refuses us: the log says what to change" : "");
        if (too_long(health, sink->paused_ms))
            buf_text(out, "sink %s: its spool has taken nothing more for %" PRIu64 " s, and the sources wait: raise spool_max, "
                     "make room on the disk, or mend the far end\n", sink->name, sink->paused_ms / 1000);
    }
}
