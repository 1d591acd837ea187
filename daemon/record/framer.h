/*
 * framer.h - cuts a stream's bytes into records.
 *
 * A framer is a pure function over one chunk: it starts at a record boundary with a state word, hands out whole records
 * one by one, and says how much it has consumed and which word belongs to that point. The caller brings the rest again
 * at the start of the next chunk, so nothing is carried in between and an idle stream costs no memory. The pair
 * (consumed, state) is what a cursor stores: never past the last whole record, hence never past the moving `]}` of a
 * PT1H.json.
 *
 * Shapes, by content: JSON lines; bare and concatenated objects; arrays; {"records":[…]}, {"value":[…]} and the same
 * nested up to FRAMER_NESTING deep; a BOM; CRLF. What is not JSON comes out as FRAMER_TEXT with a reason, and framing
 * goes on at the next record that can be made out.
 */
#ifndef DAEMON_FRAMER_H
#define DAEMON_FRAMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAMER_NESTING 4             /* envelopes and arrays open at once */
#define FRAMER_DEPTH 1024            /* brackets open inside one record */
#define FRAMER_RECORD_MIN 1024       /* the least record_max; less is taken as this */
#define FRAMER_HELD_MAX 4096         /* a moving end is two bytes and some blanks; what is held back beyond this is none */
#define FRAMER_BEGINNING 4096        /* what is kept of an oversize record */

enum framer_found {
    FRAMER_RECORD,                   /* one JSON object by its brackets; whether it parses is the caller's to see */
    FRAMER_TEXT,                     /* bytes that are no object: a text line, a torn or damaged piece; `why` says */
    FRAMER_OVERSIZE,                 /* longer than record_max and skipped; bytes are its beginning only; `why` says */
    FRAMER_MORE,                     /* no whole record in what is left: bring it again with more behind it */
    FRAMER_DONE,                     /* final chunk, nothing left */
};

struct framer_piece {
    const char *data;
    size_t size;
    uint64_t position;               /* of its first byte in the stream */
    const char *why;                 /* static sentence, or NULL */
};

enum framer_mode {                   /* what is being skipped, because it began before this chunk */
    FRAMER_AT_BOUNDARY,              /* nothing: between records */
    FRAMER_SKIP_RECORD,              /* an oversize record, to its closing bracket */
    FRAMER_SKIP_REST,                /* an oversize rest of an envelope, to its closing bracket */
    FRAMER_SKIP_LINE,                /* an oversize text line, to its end */
    FRAMER_SKIP_DAMAGE,              /* an oversize damaged piece, to the next record that can be made out */
};

struct framer_state {                /* the word, unpacked */
    enum framer_mode mode;
    unsigned levels;                 /* arrays of records open here, at most FRAMER_NESTING */
    unsigned envelopes;              /* bit n: level n lies in an object, which goes on after its `]` */
    bool joined;                     /* a comma or an opening bracket ties what comes next to the open level */
    uint16_t key;                    /* hash of the last record's first key, 0 for none; only kept inside arrays */
    uint32_t lines_until;            /* low bits of a position: no record spans line starts before it; 0 for none */
    bool in_string, escape;          /* while skipping */
    unsigned depth;
};

struct framer {                      /* all private but for the functions below */
    const char *data;                /* the chunk */
    size_t size, at;                 /* at: next byte to look at */
    uint64_t offset;                 /* position of data[0] in the stream */
    struct framer_state now;         /* the state at `at` */
    size_t consumed;
    uint64_t word;                   /* the state at `consumed` */
    size_t record_max;
    size_t line_next;                /* the next line start that a record must not span, once looked up */
    bool held;                       /* a level was closed since `consumed` */
    bool final;
};

/* A stream's beginning is offset 0 with word 0. `final`: nothing will ever follow the chunk. A chunk that can hold
 * record_max + 1 bytes behind closing brackets that are held, FRAMER_HELD_MAX at most, never starves. record_max is kept
 * within FRAMER_RECORD_MIN and 1 GiB. */
void framer_begin(struct framer *framer, uint64_t word, const char *data, size_t size, uint64_t offset, bool final,
                  size_t record_max);
enum framer_found framer_next(struct framer *framer, struct framer_piece *piece);
/* Bytes done with, and the word to store with offset + consumed. Both move when framer_next() returns a piece, over that
 * piece; a caller that did not use the piece must have noted them before the call. After FRAMER_MORE they may have moved
 * on over blanks, separators and skipped text, but not over closing brackets that a later append would replace. */
size_t framer_consumed(const struct framer *framer);
uint64_t framer_word(const struct framer *framer);

#endif
