/*
 * azure.h - what the parsers of several Azure families share: objects whose leftovers are kept, resource ids, and the
 * question whether a record belongs to the Activity Log.
 */
#ifndef PARSERS_AZURE_H
#define PARSERS_AZURE_H

#include "parsers/parser.h"

/*
 * One JSON object, with a note of which members the mapping has used. azure_keep() puts all others into the event's
 * additional fields: what a mapping does not mention is kept without being listed anywhere.
 *
 * Azure spells one name in three ways: operationName, OperationName, operation_name. A lookup finds each, and prefers
 * the spelling asked for; a second member that differs in spelling only is a leftover like any other.
 */
struct azure_member {
    struct pen_span name;
    struct pen_json value;
    bool used;
};

struct azure_object {
    struct pen_out *out;
    struct azure_member *members;
    size_t count;
    uint32_t initials;               /* azure.c's: which lookups may find something */
};

/* An object with more members is nobody's log record but an attack on our memory: it is not opened, and travels whole. */
#define AZURE_MEMBERS_MAX 8192

/* Opens the node: an object, or a text that holds one as JSON, quoted once more maybe. False, and an object without
 * members, for all else. */
bool azure_open(struct azure_object *object, struct pen_out *out, const struct pen_json *node);
/* Opens a member as an object, and counts it as used where that worked. */
bool azure_open_member(struct azure_object *inner, struct azure_object *object, const char *name);
/* Opens the record's `properties`. Newer exports nest what older ones wrote flat: what `eventProperties` holds counts as a
 * member of properties, so that one mapping serves both. */
bool azure_open_properties(struct azure_object *properties, struct azure_object *record);
/* The member, without counting it as used, or missing. */
struct pen_json azure_peek(const struct azure_object *object, const char *name);
void azure_use(struct azure_object *object, const char *name);
/* Takes that back: what one event of a record says elsewhere, another may have to keep. */
void azure_unuse(struct azure_object *object, const char *name);
/* A member's text: of a text or another scalar, or of the `value` in {"value":…,"localizedValue":…}. Used where there is
 * one. Empty texts and nulls are none, but used. */
struct pen_span azure_text(struct azure_object *object, const char *name);
/* The first of the names that has a text; the names end with NULL. */
struct pen_span azure_text_of(struct azure_object *object, const char *const *names);
/* pen_take() for a member. */
bool azure_take(struct azure_object *object, struct pen_event *event, enum pen_field field, const char *name);
/* The first of the names that is set. */
bool azure_take_of(struct azure_object *object, struct pen_event *event, enum pen_field field, const char *const *names);
/* All members that were not used, as additional fields of the event; null, [] and {} say nothing. */
void azure_keep(const struct azure_object *object, struct pen_event *event);

/* The node's member in any of the spellings, for claims(), which has no pen_out. */
struct pen_json azure_find(const struct pen_json *node, const char *name);
/* Its text, or that of its `value`. */
struct pen_span azure_find_text(const struct pen_json *node, const char *name);

/* Equal but for the case of ASCII letters, as ids of Azure are. */
bool azure_is_same(struct pen_span a, struct pen_span b);

/* A resource id's parts, borrowed from it; `type` is built. Absent parts are empty. */
struct azure_id {
    struct pen_span subscription, group;
    struct pen_span provider;        /* of the last /providers/: an extension resource's own */
    struct pen_span type;            /* Microsoft.Web/sites/config */
    struct pen_span name;            /* the last one */
};
struct azure_id azure_id_split(struct pen_out *out, struct pen_span id);
/* SUBSCRIPTION_ID, RESOURCE_GROUP, RESOURCE_PROVIDER and RESOURCE_TYPE from the id, where not set already. */
void azure_id_set(struct pen_event *event, const struct azure_id *id);

/* A time that a relay or a store has turned into a count since 1970, of seconds or of milliseconds; a number or text. */
bool azure_take_count(struct azure_object *object, struct pen_event *event, enum pen_field field, const char *name,
                      int64_t *ticks);
/* "192.0.2.1:443", "[2001:db8::1]:443" and "[2001:db8::1]" too; a port goes to `port`. False, and nothing set, for
 * what is no address. */
bool azure_ip_set(struct pen_event *event, enum pen_field ip, enum pen_field port, struct pen_span text);

/* EventStartTime, EventEndTime from TimeGenerated, or from the arrival where there is none. */
void azure_times_fill(struct pen_event *event, const struct pen_record *record, int64_t ticks, bool known);

/* Which flow log the record belongs to. Flow logs come first: what they claim is nobody else's. */
enum azure_flow { AZURE_NO_FLOW, AZURE_NSG_FLOW, AZURE_VNET_FLOW };
enum azure_flow azure_flow(const struct pen_json *json);

/* The Activity Log's record inside `json` in whichever of its envelopes, or missing where it is none. */
struct pen_json azure_activity(const struct pen_json *json);
/* The same, of what is known to be the Activity Log's: which envelope it has is all that is asked once more. */
struct pen_json azure_activity_claimed(const struct pen_json *json);
/* What its envelope, the webhook of an alert rule, says around it. */
void azure_keep_envelope(struct pen_event *event, struct pen_out *out, const struct pen_json *json);
/* Whether such a record is a Defender alert in miniature (category Security). */
bool azure_activity_is_alert(const struct pen_json *activity);

/* Case-insensitive search for a word. */
bool azure_contains(struct pen_span text, const char *word);
bool azure_ends_with(struct pen_span text, const char *end);

/* A row of a table of words; tables end with an empty row. */
struct azure_word {
    const char *from;                /* compared without case */
    const char *to;
};
/* NULL where the table has no such word. */
const char *azure_word(const struct azure_word *table, struct pen_span text);
void azure_set(struct pen_event *event, enum pen_field field, const char *text);   /* NULL sets nothing */

#endif
