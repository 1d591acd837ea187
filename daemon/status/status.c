/* status.c - the table of numbers, and what people get of it in the log. See status.h. */
#include "daemon/status/status.h"

#include "daemon/base/buf.h"
#include "daemon/base/log.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

const char *const flow_words[] = { [OUTLET_OPEN] = "open", [OUTLET_SPOOLING] = "spooling", [OUTLET_PAUSED] = "paused" };

#define SOURCE(member) offsetof(struct status_source, member)
#define ROUTE(member) offsetof(struct status_route, member)
#define SINK(member) offsetof(struct status_sink, member)
#define WHOLE(member) offsetof(struct status, member)

const struct status_row status_rows[] = {
    /* ---- Sources ---- */
    { STATUS_SOURCE, "records", "read", "penstock_records_read_total", STATUS_PLAIN, SOURCE(records),
      "Records read, whatever became of them.",
      "Stands still while there is something to read: see penstock_source_stalled_seconds." },
    { STATUS_SOURCE, "records", "events", "penstock_events_total", STATUS_PLAIN, SOURCE(events),
      "Events that parsers made of them; a flow record makes many.", NULL },
    { STATUS_SOURCE, "records", "unknown", "penstock_records_unknown_total", STATUS_PLAIN, SOURCE(unknown),
      "Records that travel as unknown: no parser claims them, or they are malformed.",
      "Try `penstock parse FILE`: perhaps a log family that wants a parser, or a source that names the wrong one." },
    { STATUS_SOURCE, "records", "malformed", "penstock_records_malformed_total", STATUS_PLAIN, SOURCE(malformed),
      "Of those, records that are not JSON, torn, or refused by their parser.",
      "The log names stream, position and reason (\"records that are not what they should be\")." },
    { STATUS_SOURCE, "records", "partly", "penstock_records_partly_total", STATUS_PLAIN, SOURCE(partly),
      "Records of which some events could not be made.", "As for malformed ones." },
    { STATUS_SOURCE, "records", "oversize", "penstock_records_oversize_total", STATUS_PLAIN, SOURCE(oversize),
      "Records above record_max; their beginning travels as unknown.", "Raise record_max, and memory with it." },
    { STATUS_SOURCE, "records", "cut", "penstock_messages_cut_total", STATUS_PLAIN, SOURCE(cut),
      "Messages of which a field was cut to what the far end takes.", "The message names the field." },
    { STATUS_SOURCE, NULL, "bytes", "penstock_source_read_bytes_total", STATUS_PLAIN, SOURCE(bytes),
      "Bytes read, unpacked.", NULL },
    { STATUS_SOURCE, "records", "streams", "penstock_source_streams", STATUS_PLAIN, SOURCE(streams),
      "Files, blobs or partitions that are open or not safe yet.", NULL },
    { STATUS_SOURCE, "records", "troubles", "penstock_source_troubles_total", STATUS_PLAIN, SOURCE(troubles),
      "Times that something could not be read or listed.", "The log says what and why, at each first time." },
    { STATUS_SOURCE, "lag", "newest", "penstock_source_newest_event_timestamp_seconds", STATUS_TIME, SOURCE(newest_ms),
      "Time of the newest event read, since 1970. Its age is the lag by event time.",
      "Azure itself writes some logs an hour late; what is older than that lies behind in Azure or here: see the next two." },
    { STATUS_SOURCE, "lag", "behind", "penstock_source_behind_bytes", STATUS_PLAIN, SOURCE(behind_bytes),
      "Bytes known to be there and not delivered or spooled yet.",
      "Grows: the source brings more than sinks take or processors parse; see penstock_memory_held_bytes and the sinks." },
    { STATUS_SOURCE, "lag", "behind", "penstock_source_behind_messages", STATUS_PLAIN, SOURCE(behind_messages),
      "The same for queues, in messages.", "As for bytes." },
    { STATUS_SOURCE, NULL, "stalled_ms", "penstock_source_stalled_seconds", STATUS_MS, SOURCE(stalled_ms),
      "For so long nothing was read though there is something, or it could not be read; 0 while all is well or idle.",
      "The log says why: rights, a mount that hangs, a container or a broker that is away." },
    { STATUS_SOURCE, NULL, "token_ms", "penstock_source_token_life_seconds", STATUS_MS, SOURCE(token_ms),
      "How long the source's token from Entra is good for; it is renewed when it is next needed.",
      "0 while there is something to read: no token can be had, and the log says why." },
    /* ---- Messages: taken = delivered + dead + dropped + held + spooled ---- */
    { STATUS_ROUTE, "messages", "taken", "penstock_messages_taken_total", STATUS_PLAIN, ROUTE(taken),
      "Messages of this source for this sink; always the sum of the next five.", NULL },
    { STATUS_ROUTE, "messages", "delivered", "penstock_messages_delivered_total", STATUS_PLAIN, ROUTE(delivered),
      "Messages that the far end has taken over.", NULL },
    { STATUS_ROUTE, "messages", "dead", "penstock_messages_dead_total", STATUS_PLAIN, ROUTE(dead),
      "Messages in the dead letters: the far end will never take them as they are.",
      "`penstock dead list SINK` says why; mend the cause, then `penstock dead resend SINK`." },
    { STATUS_ROUTE, "messages", "dropped", "penstock_messages_dropped_total", STATUS_PLAIN, ROUTE(dropped),
      "Messages dropped by a rule of yours (events, spool_full), or lost to a damaged disk.",
      "Unless a rule explains it, the log has an error about the spool." },
    { STATUS_ROUTE, "messages", "held", "penstock_messages_held", STATUS_PLAIN, ROUTE(held),
      "Messages in memory: in an open batch, waiting, or in flight.", NULL },
    { STATUS_ROUTE, "messages", "spooled", "penstock_messages_spooled", STATUS_PLAIN, ROUTE(spooled),
      "Messages on disk, not delivered yet.", "The sink is away or slow: see penstock_sink_refused and the answers." },
    /* ---- Sinks ---- */
    { STATUS_SINK, "sink", "flow", "penstock_sink_flow", STATUS_FLOW, SINK(flow),
      "0 open: batches go straight to the far end; 1 spooling: by way of the disk; 2 paused: the spool takes nothing more.",
      "1 passes by itself. 2: the spool is full or the disk is; raise spool_max, make room, or mend the far end." },
    { STATUS_SINK, "sink", "batches", "penstock_sink_batches_total", STATUS_PLAIN, SINK(batches),
      "Batches delivered.", NULL },
    { STATUS_SINK, "sink", "bytes", "penstock_sink_delivered_bytes_total", STATUS_PLAIN, SINK(bytes),
      "Bytes of messages delivered, before compression.", NULL },
    { STATUS_SINK, "sink", "submitted", "penstock_sink_submitted_total", STATUS_PLAIN, SINK(submitted),
      "Batches handed to the sink, those sent again included.", NULL },
    { STATUS_SINK, "sink", "retries", "penstock_sink_retries_total", STATUS_PLAIN, SINK(retries),
      "Answers that said: not now.", "penstock_sink_answers_total has them by status." },
    { STATUS_SINK, "sink", "refusals", "penstock_sink_refusals_total", STATUS_PLAIN, SINK(refusals),
      "Answers that said: not from you.", "See penstock_sink_refused." },
    { STATUS_SINK, "sink", "cuts", "penstock_sink_cuts_total", STATUS_PLAIN, SINK(cuts),
      "Batches cut in two, too large or with a message in them that was rejected.", NULL },
    { STATUS_ANSWER, NULL, NULL, "penstock_sink_answers_total", STATUS_PLAIN, 0,
      "Answers by outcome (delivered, retry, too_large, rejected, refused) and by the far end's own status.",
      "429: more than the far end allows. 5xx or none: it is away. 401, 403: rights. 400: what we send." },
    { STATUS_SINK, NULL, "refused", "penstock_sink_refused", STATUS_PLAIN, SINK(refused),
      "1: the far end refuses us or rejects every message. Nothing is lost, and nothing moves until it is mended.",
      "The log's last error about this sink says what to change: rights, secret, a name, a stream or topic." },
    { STATUS_SINK, NULL, "hold_ms", "penstock_sink_hold_seconds", STATUS_MS, SINK(hold_ms),
      "Time to the next try; 0 while nothing is held back.", NULL },
    { STATUS_SINK, NULL, "stalled_ms", "penstock_sink_stalled_seconds", STATUS_MS, SINK(stalled_ms),
      "For so long nothing came to its end though something waits; 0 while messages move or none waits.",
      "The far end is away or refuses us: the log and `penstock status` say which." },
    { STATUS_SINK, NULL, "paused_ms", "penstock_sink_paused_seconds", STATUS_MS, SINK(paused_ms),
      "For so long the spool has taken nothing, and the sources wait.", "As for penstock_sink_flow at 2." },
    { STATUS_SINK, NULL, "in_flight", "penstock_sink_in_flight_batches", STATUS_PLAIN, SINK(in_flight),
      "Batches at the far end, not answered yet.", NULL },
    { STATUS_SINK, NULL, "in_turn", "penstock_sink_queued_batches", STATUS_PLAIN, SINK(in_turn),
      "Batches in memory that are ready to be sent.", NULL },
    { STATUS_SINK, "sink", "spool_bytes", "penstock_spool_bytes", STATUS_PLAIN, SINK(spool_bytes),
      "The spool's size on disk.", "What it can still take is spool_max less this; at the present rate, for how long?" },
    { STATUS_SINK, NULL, "spool_max", "penstock_spool_max_bytes", STATUS_PLAIN, SINK(spool_max),
      "Its cap, spool_max.", NULL },
    { STATUS_SINK, "sink", "damaged", "penstock_spool_damaged_total", STATUS_PLAIN, SINK(damaged),
      "Damaged stretches passed over while the spool was read.", "The disk loses data: replace it; the log says where." },
    { STATUS_SINK, NULL, "dead_bytes", "penstock_dead_letters_bytes", STATUS_PLAIN, SINK(dead_bytes),
      "Size of the file of dead letters.", "`penstock dead list SINK`; at dead_max nothing more is sent." },
    { STATUS_SINK, NULL, "dead_max", "penstock_dead_letters_max_bytes", STATUS_PLAIN, SINK(dead_max),
      "Its cap, dead_max.", NULL },
    { STATUS_SINK, NULL, "token_ms", "penstock_sink_token_life_seconds", STATUS_MS, SINK(token_ms),
      "How long the sink's token from Entra is good for; it is renewed well before its end.",
      "0 while there is something to send: no token can be had, and the log says why." },
    { STATUS_SINK, NULL, "arrival_accepted", "penstock_arrival_accepted_rows", STATUS_PLAIN, SINK(arrival.accepted),
      "Rows that the sink's DCR accepted in the up to two hours that were compared last with its own count (dcr_resource_id).", NULL },
    { STATUS_SINK, NULL, "arrival_received", "penstock_arrival_received_rows", STATUS_PLAIN, SINK(arrival.received),
      "Rows that the DCR itself counted in the same time, others' among them.",
      "Fewer than accepted: rows are lost; see the table DCRLogErrors, and this machine's clock." },
    { STATUS_SINK, NULL, "arrival_dropped", "penstock_arrival_dropped_rows", STATUS_PLAIN, SINK(arrival.dropped),
      "Rows of them that the DCR dropped.", "A transformation in its data flows drops them." },
    { STATUS_SINK, NULL, "arrival_columns", "penstock_arrival_dropped_values", STATUS_PLAIN, SINK(arrival.columns),
      "Values of columns that the DCR does not know.", "Deploy what `penstock dcr` prints." },
    { STATUS_SINK, NULL, "arrival_errors", "penstock_arrival_transformation_errors", STATUS_PLAIN, SINK(arrival.errors),
      "Times that a transformation of the DCR failed, which loses what it was given.", "The table DCRLogErrors says why." },
    { STATUS_SINK, NULL, "arrival_differs", "penstock_arrival_differs", STATUS_PLAIN, SINK(arrival.differs),
      "1: not all has arrived that the DCR accepted, by one of the numbers above.", "The log's last error about this DCR says more." },
    { STATUS_SINK, NULL, "arrival_unknown_ms", "penstock_arrival_unknown_seconds", STATUS_MS, SINK(arrival.unknown_ms),
      "For so long the DCR's count could not be read; 0 while it can.",
      "The log says why: the app wants the role Monitoring Reader on the DCR." },
    /* ---- The whole ---- */
    { STATUS_WHOLE, NULL, NULL, "penstock_ready", STATUS_PLAIN, WHOLE(ready),
      "1: data moves or there is none, as /readyz has it.", "0: /readyz and `penstock status` say what stands still." },
    { STATUS_WHOLE, "memory", "held", "penstock_memory_held_bytes", STATUS_PLAIN, WHOLE(memory_held),
      "Bytes held against the budget.", "Near three quarters of the budget the sources wait: sinks are slower than sources." },
    { STATUS_WHOLE, "memory", "peak", "penstock_memory_peak_bytes", STATUS_PLAIN, WHOLE(memory_peak),
      "Its highest since the start.", NULL },
    { STATUS_WHOLE, "memory", "budget", "penstock_memory_budget_bytes", STATUS_PLAIN, WHOLE(memory_budget),
      "The budget, `memory`.", NULL },
    { STATUS_WHOLE, "memory", "flow", "penstock_flow", STATUS_FLOW, WHOLE(flow),
      "0 open; 2 paused: the sources wait until sinks or spools have taken what is in memory.",
      "Now and then is the budget at work; for minutes, see the sinks." },
    { STATUS_WHOLE, NULL, "jobs", "penstock_jobs", STATUS_PLAIN, WHOLE(jobs),
      "Workers that parse at this moment.", "At penstock_workers all the time: processors are what it wants." },
    { STATUS_WHOLE, NULL, "workers", "penstock_workers", STATUS_PLAIN, WHOLE(workers), "Workers there are.", NULL },
    { STATUS_WHOLE, NULL, "unsaved", "penstock_cursors_unsaved", STATUS_PLAIN, WHOLE(unsaved),
      "1: the cursors could not be saved; after a crash now, more would repeat.", "The disk of state_dir is full or broken." },
    { STATUS_WHOLE, NULL, "config_good", "penstock_config_last_reload_successful", STATUS_PLAIN, WHOLE(config_good),
      "1: the last reload of the configuration went well, or there was none yet.",
      "0: the configuration from before goes on. `penstock reload` says what is wrong with the new one; so does the log." },
    { STATUS_WHOLE, NULL, "config_loaded", "penstock_config_last_reload_success_timestamp_seconds", STATUS_TIME,
      WHOLE(config_loaded_ms), "When the configuration in effect was read, since 1970.", NULL },
    { STATUS_WHOLE, NULL, "reloads", "penstock_config_reloads_total", STATUS_PLAIN, WHOLE(reloads),
      "Reloads that were asked for, whatever came of them.", NULL },
    { STATUS_PROCESS, NULL, NULL, "penstock_build_info", STATUS_PLAIN, 0, "Always 1; its label is the version.", NULL },
    { STATUS_PROCESS, NULL, NULL, "process_start_time_seconds", STATUS_PLAIN, 0, "When the process began, since 1970.", NULL },
    { STATUS_PROCESS, NULL, NULL, "process_cpu_seconds_total", STATUS_PLAIN, 0,
      "Processor time used, the user's and the system's.", NULL },
    { STATUS_PROCESS, NULL, NULL, "process_resident_memory_bytes", STATUS_PLAIN, 0, "Memory in use, as the kernel counts.",
      "The budget and 16 MiB are expected; what goes far beyond is a defect worth a report." },
    { STATUS_PROCESS, NULL, NULL, "process_open_fds", STATUS_PLAIN, 0, "Open files and connections.",
      "Near the next one: too many files at work at once, or a defect worth a report." },
    { STATUS_PROCESS, NULL, NULL, "process_max_fds", STATUS_PLAIN, 0, "How many may be open, LimitNOFILE= of the unit.", NULL },
    /* ---- What only one type of source counts: metrics.c makes the names, and these must be them ---- */
    { STATUS_NUMBER, NULL, NULL, "penstock_source_requests_total", STATUS_PLAIN, 0, "azure-blob: requests to the service.", NULL },
    { STATUS_NUMBER, NULL, NULL, "penstock_source_fetched_total", STATUS_PLAIN, 0, "azure-blob: bytes of blobs downloaded.", NULL },
    { STATUS_NUMBER, NULL, NULL, "penstock_source_listed_total", STATUS_PLAIN, 0, "azure-blob: bytes of listings downloaded.",
      "Large beside the bytes fetched: narrow the source by prefix, or raise poll and relist." },
    { STATUS_NUMBER, NULL, NULL, "penstock_source_places", STATUS_PLAIN, 0, "azure-blob: prefixes with hours.", NULL },
    { STATUS_NUMBER, NULL, NULL, "penstock_source_blobs", STATUS_PLAIN, 0, "azure-blob: blobs that are remembered.", NULL },
    { STATUS_NUMBER, NULL, NULL, "penstock_source_waiting", STATUS_PLAIN, 0,
      "azure-blob: blobs in turn to be read; queues: bytes of messages in turn.", NULL },
    { STATUS_NUMBER, NULL, NULL, "penstock_source_partitions", STATUS_PLAIN, 0, "Queues: partitions that are ours to read.",
      "0 for long: more daemons than partitions, or the group's other members have them all." },
    { STATUS_NUMBER, NULL, NULL, "penstock_source_missing_total", STATUS_PLAIN, 0,
      "Queues: messages that were deleted before they were read.", "Lost. Lengthen the retention; see the lag." },
    { STATUS_NUMBER, NULL, NULL, "penstock_source_holes_total", STATUS_PLAIN, 0,
      "Queues: offsets without a message, of transactions or compacted away. No loss.", NULL },
    { STATUS_NUMBER, NULL, NULL, "penstock_source_notices_total", STATUS_PLAIN, 0,
      "azure-blob: notices of new blobs taken from the queue.", "Stands still while blobs come: see the queue's event subscription." },
    { STATUS_NUMBER, NULL, NULL, "penstock_source_hours_missing_total", STATUS_PLAIN, 0,
      "azure-blob: hours over without a blob, though nearly all of the day before had one.",
      "The log names prefix and hours: was the resource stopped, or its diagnostic setting taken away?" },
    { 0 }
};

/* ---- For people ---- */

#define PAIRS_MAX 64

/* A log line's keys and values, gathered. */
struct pairs {
    const char *words[PAIRS_MAX + 1];
    char text[PAIRS_MAX / 2][40];
    size_t count;
};

static void pairs_add(struct pairs *pairs, const char *key, const char *value)
{
    assert(pairs->count + 2 <= PAIRS_MAX);
    pairs->words[pairs->count++] = key;
    pairs->words[pairs->count++] = value;
    pairs->words[pairs->count] = NULL;
}

static void pairs_number(struct pairs *pairs, const char *key, uint64_t value)
{
    char *text = pairs->text[pairs->count / 2];

    (void)snprintf(text, sizeof(pairs->text[0]), "%" PRIu64, value);
    pairs_add(pairs, key, text);
}

static void pairs_time(struct pairs *pairs, const char *key, uint64_t ms)
{
    char *text = pairs->text[pairs->count / 2];
    struct buf buf = { 0 };

    buf_time(&buf, (int64_t)ms * 10000);
    (void)snprintf(text, sizeof(pairs->text[0]), "%.*s", (int)buf.size, buf.data);
    pairs_add(pairs, key, text);
    buf_free(&buf);
}

static void pairs_row(struct pairs *pairs, const struct status_row *row, uint64_t value)
{
    if (row->unit == STATUS_FLOW)
        pairs_add(pairs, row->key, flow_words[value]);
    else if (row->unit == STATUS_TIME && value == STATUS_NONE)
        pairs_add(pairs, row->key, "none");
    else if (row->unit == STATUS_TIME)
        pairs_time(pairs, row->key, value);
    else if (value != STATUS_NONE)
        pairs_number(pairs, row->key, value);
}

/* The rows of one line; pairs hold already what names it. */
static void pairs_rows(struct pairs *pairs, const char *line, const void *scope)
{
    for (const struct status_row *row = status_rows; row->metric != NULL; row++)
        if (row->line != NULL && strcmp(row->line, line) == 0)
            pairs_row(pairs, row, status_value(row, scope));
}

static void log_source(const struct status_source *source)
{
    struct pairs records = { 0 }, lag = { 0 };

    pairs_add(&records, "source", source->name);
    pairs_rows(&records, "records", source);
    log_pairs(LOG_NOTE, "records", records.words);
    pairs_add(&lag, "source", source->name);
    pairs_rows(&lag, "lag", source);
    for (size_t i = 0; i < source->number_count; i++)
        pairs_number(&lag, source->numbers[i].name, source->numbers[i].value);
    log_pairs(LOG_NOTE, "lag", lag.words);
}

static void log_route(const struct status_route *route)
{
    struct pairs pairs = { 0 };

    pairs_add(&pairs, "source", route->source);
    pairs_add(&pairs, "sink", route->sink);
    pairs_rows(&pairs, "messages", route);
    log_pairs(LOG_NOTE, "messages", pairs.words);
}

static void log_sink(const struct status_sink *sink)
{
    struct pairs pairs = { 0 };

    pairs_add(&pairs, "sink", sink->name);
    pairs_rows(&pairs, "sink", sink);
    log_pairs(LOG_NOTE, "sink", pairs.words);
}

void status_log(const struct status *status)
{
    struct pairs memory = { 0 };

    for (uint32_t i = 0; i < status->source_count; i++)
        log_source(&status->sources[i]);
    for (uint32_t i = 0; i < status->route_count; i++)
        log_route(&status->routes[i]);
    for (uint32_t i = 0; i < status->sink_count; i++)
        log_sink(&status->sinks[i]);
    pairs_rows(&memory, "memory", status);
    log_pairs(LOG_NOTE, "memory", memory.words);
}

void status_sentence(const struct status *status, char *out, size_t size)
{
    struct status_route all = { 0 };

    for (uint32_t i = 0; i < status->sink_count; i++) {
        const struct status_route *sink = &status->sinks[i].all;

        all.delivered += sink->delivered;
        all.held += sink->held;
        all.spooled += sink->spooled;
        all.dead += sink->dead;
    }
    (void)snprintf(out, size, "%" PRIu64 " delivered, %" PRIu64 " held, %" PRIu64 " spooled, %" PRIu64 " dead; flow %s",
                   all.delivered, all.held, all.spooled, all.dead, flow_words[status->flow]);
}

void status_free(struct status *status)
{
    free(status->sources);
    free(status->sinks);
    free(status->routes);
    *status = (struct status){ 0 };
}
