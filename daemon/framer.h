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

#define FRAMER_NESTING 4

enum framer_found {
    FRAMER_RECORD,                   /* one JSON object by its brackets; whether it parses is the caller's to see */
    FRAMER_TEXT,                     /* bytes that are no object: a text line, a torn or damaged piece; `why` says */
    FRAMER_OVERSIZE,                 /* a record past the bound was skipped; bytes are its beginning only; `why` says */
    FRAMER_MORE,                     /* no whole record in what is left: bring it again with more behind it */
    FRAMER_DONE,                     /* final chunk, nothing left */
};

struct framer_piece {
    const char *data;
    size_t size;
    uint64_t position;               /* of its first byte in the stream */
    const char *why;                 /* static sentence, or NULL */
};

struct framer {
    const char *data;                /* the chunk */
    size_t size, at;                 /* at: next byte to look at */
    uint64_t offset;                 /* position of data[0] in the stream */
    uint64_t word;                   /* the state at consumed */
    size_t consumed;
    size_t record_max;
    bool final;
    char scratch[64];                /* private */
};

/* A stream's beginning is offset 0 with word 0. `final`: nothing will ever follow the chunk. */
void framer_begin(struct framer *framer, uint64_t word, const char *data, size_t size, uint64_t offset, bool final,
                  size_t record_max);
enum framer_found framer_next(struct framer *framer, struct framer_piece *piece);
/* Bytes done with, and the word to store with offset + consumed. Both move when framer_next() returns a piece, over that
 * piece; a caller that did not use the piece must have noted them before the call. After FRAMER_MORE they may have moved
 * on over blanks, separators and skipped text, but not over closing brackets that a later append would replace. */
size_t framer_consumed(const struct framer *framer);
uint64_t framer_word(const struct framer *framer);

#endif
