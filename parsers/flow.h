/*
 * flow.h - what NSG and VNet flow logs have in common: one record holds many tuples, each becomes one event.
 *
 * Flows are paid for by the byte, thousands of events to a record: what is cut out of a resource's id elsewhere (group, provider,
 * type) is not told beside that id here.
 *
 * What all events of a record share is set once; between two emissions only the tuple's own fields change. This is the
 * busiest loop of the program. But a record may come in several passes (pen_out_skip()), so what an event says must never
 * depend on which tuples were made before it. A tuple that cannot be read costs itself only: it travels as an unknown event that holds
 * its text and says where it was, and its neighbours go on.
 */
#ifndef PARSERS_FLOW_H
#define PARSERS_FLOW_H

#include "parsers/azure.h"

#define FLOW_COUNTERS 4              /* packets, bytes there; packets, bytes back */
#define FLOW_FIELDS_MAX 16
#define FLOW_NOT_GIVEN (-1)

struct flow_tuple {
    struct pen_span fields[FLOW_FIELDS_MAX];
    size_t count;                    /* fields in the tuple, those beyond the maximum included */
    size_t known;                    /* of them, those that the format defines: set by flow_read */
    int64_t ticks;
    int64_t src_port, dst_port;      /* or FLOW_NOT_GIVEN */
    int64_t protocol;                /* IANA's number, or FLOW_NOT_GIVEN */
    bool inbound;
    enum flow_decision { FLOW_UNDECIDED, FLOW_ALLOWED, FLOW_DENIED } decision;
    struct pen_span src_ip, dst_ip, state, encryption, protocol_text;
    int64_t counters[FLOW_COUNTERS]; /* or FLOW_NOT_GIVEN */
};

struct flow;

/* Reads a tuple that has been split into its fields; NULL, or a static sentence about what is wrong with it, addresses aside: these
 * are looked at when they are set. Where it answers NULL it has set all members but `decision`, `state`, `encryption` and the counters, which stand at "not given" before. */
typedef const char *(*flow_read)(struct flow_tuple *tuple);
/* Sets what all events of the record share. */
typedef void (*flow_describe)(struct flow *flow, struct pen_event *event);

struct flow {
    struct pen_out *out;
    const struct pen_record *record;
    flow_read read;
    flow_describe describe;
    struct azure_object top;         /* the record */
    struct azure_object properties;  /* NSG only */
    struct pen_event *event;         /* NULL: to be made anew for the next tuple */
    struct pen_span mac;             /* of the interface, as a MAC field holds it, or as written where it is none */
    struct pen_json mac_of_record;   /* NSG: what the group's own may differ from */
    bool mac_bad, mac_differs;       /* the present group's */
    enum pen_field mac_at;           /* where the event has the MAC; PEN_FIELDS: not yet */
    int version;                     /* of the event's addresses; 0: not yet */
    struct pen_span rule, acl;
    struct pen_json element_node, group_node;   /* for the members nobody knows */
    bool odd;                        /* the present group or its element has such members */
    size_t element, group, tuple;    /* where we are, for blames */
    enum pen_parsed parsed;
    bool full;                       /* the daemon takes no more in this pass */
};

void flow_begin(struct flow *flow, const struct pen_record *record, struct pen_out *out, flow_read read,
                flow_describe describe);
/* A new group begins: its members and its element's, but for those that carry the structure, go with its events. */
void flow_begin_group(struct flow *flow, const struct pen_json *element, const struct pen_json *group);
/* The member's text. Relays make a number of what looks like one: its digits then. */
struct pen_span flow_name(const struct flow *flow, const struct pen_json *node, const char *name);
/* Emits an array of tuples under the rule, ACL and MAC of the moment. */
void flow_emit_tuples(struct flow *flow, const struct pen_json *tuples);
/* A piece that could not be read: blamed, and emitted as unknown. */
void flow_emit_broken(struct flow *flow, const struct pen_json *piece, const char *why);
void flow_set_mac(struct flow *flow, struct pen_span mac);
/* FlowLogVersion, and in EventProductVersion the true name of the log: "VNet flow log 4". */
void flow_take_version(struct flow *flow, struct pen_event *event, struct azure_object *object, const char *name,
                       const char *kind);

/* The fields that both kinds of tuple have in the same place: addresses and ports from `first` on. What is wrong with an address
 * is said before what is wrong with anything that is read afterwards. */
const char *flow_read_ends(struct flow_tuple *tuple, size_t first);
const char *flow_read_direction(struct flow_tuple *tuple, struct pen_span word);
const char *flow_read_protocol(struct flow_tuple *tuple, struct pen_span word);
const char *flow_read_counters(struct flow_tuple *tuple, size_t first);
/* Unix time, in seconds or in milliseconds: decided by magnitude, as relays and the docs mix them up. */
bool flow_read_time(struct flow_tuple *tuple, struct pen_span text);
/* The letter, given in lower case, in either case. */
static inline bool flow_is_letter(struct pen_span word, char letter)
{
    return word.size == 1 && (word.data[0] | 0x20) == letter;
}
/* Digits only, no sign, no blanks. */
bool flow_read_number(struct pen_span text, int64_t *number);

#endif
