/*
 * framer.c - cuts a stream's bytes into records.
 *
 * Between records the framer stands at a boundary, inside zero to four *levels*. A level is an open array of records: a
 * bare `[`, or one that an envelope's key opened (`{"records":[`). What follows an envelope's `]` up to its `}` is its
 * *rest* (`,"nextLink":"…"`) and is passed over. Blanks, commas, NULs and a BOM separate records everywhere.
 *
 *      boundary ── { ──▶ scan ──▶ whole: a record          boundary ── ] ──▶ the level ends, scan the rest
 *                         ├─────▶ "records":[ at depth 1: one level more
 *                         ├─────▶ damaged: text up to the next record that can be made out
 *                         └─────▶ the chunk ends: more. Past record_max: oversize, and skip
 *
 * What must hold:
 *
 * - Cutting the stream elsewhere changes nothing. Each decision depends on the bytes since the last boundary and the
 *   state there, never on where the chunk ends: what is undecided at its end waits for more.
 * - `consumed` is never past a `]` that may be the file's moving end: a growing PT1H.json replaces its last two bytes,
 *   `]}`, by `,{`. So closing a level sets `held`, and only a piece, or something that is no closing bracket, moves it on.
 * - Time is linear, whatever the input. A damaged object is scanned again only from a line start inside it, and then, up
 *   to where the damage was found (`lines_until`), no record may span a line start again. A search that fails
 *   consumes what it searched.
 *
 * Damage. A torn line swallows good ones that follow it until the grammar breaks, so the next record is looked for from
 * the torn one's start: a `{"` at a line's start. Within a line, the best sign is the key that the neighbours begin with,
 * `,{"time"`, looked for from the last token before the damage. The scan itself sees brackets, quotes and what may stand
 * before them; all else of JSON is for its parser to judge.
 */
#include "daemon/record/framer.h"

#include <assert.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* A candidate for the next record is judged by this much around it, so that the judgement doesn't depend on the chunk. */
#define LOOK_BACK 64
#define LOOK_AHEAD 128
#define RECORD_MOST (1 << 30)

/* What one step did: found something, starved, or moved on. */
enum step {
    STEP_RECORD = FRAMER_RECORD, STEP_TEXT = FRAMER_TEXT, STEP_OVERSIZE = FRAMER_OVERSIZE, STEP_MORE = FRAMER_MORE,
    STEP_ON = FRAMER_DONE + 1,
};

/* ---- The word: 8 bits of levels, 3 of mode, 16 of key; the upper half depends on the mode ----------------------- */

static uint64_t state_pack(const struct framer_state *state)
{
    uint64_t word = state->levels | state->envelopes << 3 | (unsigned)state->joined << 7 | state->mode << 8 |
                    (uint64_t)state->key << 12;

    if (state->mode == FRAMER_AT_BOUNDARY)
        return word | (uint64_t)state->lines_until << 32;
    return word | (uint64_t)state->in_string << 32 | (uint64_t)state->escape << 33 | (uint64_t)state->depth << 34;
}

/* The word comes from disk: whatever it says, the result is a state that can be. */
static struct framer_state state_unpack(uint64_t word)
{
    struct framer_state state = {
        .levels = word & 7, .envelopes = word >> 3 & 15, .joined = word >> 7 & 1, .key = word >> 12 & 0xffff,
    };
    unsigned mode = word >> 8 & 7;

    if (state.levels > FRAMER_NESTING)
        state.levels = FRAMER_NESTING;
    state.envelopes &= (1u << state.levels) - 1;
    if (mode == FRAMER_AT_BOUNDARY || mode > FRAMER_SKIP_DAMAGE) {
        state.lines_until = word >> 32;
        return state;
    }
    state.mode = mode == FRAMER_SKIP_REST && state.levels == 0 ? FRAMER_SKIP_RECORD : mode;
    state.in_string = word >> 32 & 1;
    state.escape = word >> 33 & 1;
    state.depth = word >> 34 & 2047;
    if (state.depth == 0 || state.depth > FRAMER_DEPTH)
        state.depth = 1;
    return state;
}

static void state_open(struct framer_state *state, bool envelope)
{
    if (!state->joined)
        state->levels = 0;           /* nothing ties it to the open levels: they were torn, it starts afresh */
    assert(state->levels < FRAMER_NESTING);
    state->envelopes &= (1u << state->levels) - 1;
    state->envelopes |= (unsigned)envelope << state->levels;
    state->levels++;
    state->joined = true;
    state->key = 0;
}

static void state_close(struct framer_state *state)
{
    state->levels--;
    state->joined = false;
    state->key = 0;
}

static bool state_may_open(const struct framer_state *state)
{
    return state->levels < FRAMER_NESTING || !state->joined;
}

/* ---- Bytes ------------------------------------------------------------------------------------------------------ */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static const char *blanks_end(const char *p, const char *end)
{
    while (p < end && is_blank(*p))
        p++;
    return p;
}

/* What ends a run of plain bytes in a string: quotes, backslashes and newlines, looked for in 64 bytes at once. Nearly all of
 * a log lies within strings, and these are so short that a block has the stops of several: it is kept for the next ones. */
struct stops {
    const char *block;               /* of 64 bytes that all lie before `end`, while there are bits */
    uint64_t bits;                   /* a stop each, the block's first byte in the lowest; 0: there is no block */
};

static struct stops stops_none(const char *end)
{
    return (struct stops){ .block = end };
}

#ifdef __SSE2__
static inline uint64_t stops_of_16(const char *p)
{
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), newline = _mm_set1_epi8('\n');
    __m128i bytes = _mm_loadu_si128((const __m128i *)p);
    __m128i stops = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, backslash)),
                                 _mm_cmpeq_epi8(bytes, newline));

    return (uint64_t)(unsigned)_mm_movemask_epi8(stops);
}
#endif

/* The next stop at or behind p, or end. */
static inline const char *stops_next(struct stops *stops, const char *p, const char *end)
{
#ifdef __SSE2__
    size_t at = (size_t)(p - stops->block);        /* far beyond 64 where p is before it */

    if (stops->bits != 0 && at < 64) {
        if (stops->bits >> at != 0)
            return p + __builtin_ctzll(stops->bits >> at);
        p = stops->block + 64;
    }
    for (; end - p >= 64; p += 64) {
        uint64_t bits = stops_of_16(p) | stops_of_16(p + 16) << 16 | stops_of_16(p + 32) << 32 | stops_of_16(p + 48) << 48;

        if (bits != 0) {
            *stops = (struct stops){ p, bits };
            return p + __builtin_ctzll(bits);
        }
    }
#else
    (void)stops;
#endif
    while (p < end && *p != '"' && *p != '\\' && *p != '\n')
        p++;
    return p;
}

/* From inside a string to its closing quote, to a raw newline (which no string may hold), or to end. `escape`, in and out:
 * the byte at p, or at end, follows a backslash. `stops` belong to `end`. */
static inline const char *string_end(struct stops *stops, const char *p, const char *end, bool *escape)
{
    for (;;) {
        if (p < end && *escape) {
            *escape = false;
            if (*p == '\n')
                return p;
            p++;
        }
        p = stops_next(stops, p, end);
        if (p == end || *p != '\\')
            return p;
        *escape = true;
        p++;
    }
}

/* Hash of the first key of the object at p, never 0; 0 where there is none within LOOK_AHEAD bytes. *short_of: more
 * bytes could tell. */
static uint16_t key_hash(const char *p, const char *end, bool *short_of)
{
    const char *last = end - p > LOOK_AHEAD ? p + LOOK_AHEAD : end;
    uint32_t hash = 2166136261u;     /* FNV-1a */

    *short_of = last == end;
    p = blanks_end(p + 1, last);
    if (p == last)
        return 0;
    if (*p != '"') {
        *short_of = false;
        return 0;
    }
    for (p++; p < last; p++) {
        if (*p == '"') {
            *short_of = false;
            hash ^= hash >> 16;
            return (hash & 0xffff) != 0 ? hash & 0xffff : 1;
        }
        hash = (hash ^ (unsigned char)*p) * 16777619u;
    }
    return 0;
}

/* ---- Scanning an object ----------------------------------------------------------------------------------------- */

enum scanned {
    SCAN_WHOLE,                      /* at: behind its closing bracket */
    SCAN_ENVELOPE,                   /* at: behind the bracket that opens its records */
    SCAN_SHORT,                      /* at: the chunk's end, and it goes on */
    SCAN_PAST,                       /* at: record_max bytes on; in_string, escape and depth say how things stand there */
    SCAN_TORN,                       /* at: a line start that it must not span */
    SCAN_DAMAGED,                    /* at: the byte that cannot be; token: the last bracket or quote before it */
};

struct scan {
    const char *at, *token, *why;
    bool in_string, escape;
    unsigned depth;
    uint64_t arrays[FRAMER_DEPTH / 64 + 1];   /* bit per depth: an array */
};

static enum scanned scan_damaged(struct scan *scan, const char *at, const char *why)
{
    scan->at = at;
    scan->why = why;
    return SCAN_DAMAGED;
}

struct name {
    const char *data;
    size_t size;
};

static bool name_is(struct name name, const char *text)
{
    return name.size == strlen(text) && memcmp(name.data, text, name.size) == 0;
}

/* `value` opens an envelope only behind keys that answers of Azure's APIs carry, so that a record that happens to have an
 * array of that name stays in one piece. */
static bool head_is_answer(const char *p, const char *key)
{
    static const char *const names[] = { "nextLink", "count", "totalCount", NULL };
    struct stops stops = stops_none(key);
    bool escape = false, known;

    for (p++;;) {
        while (p < key && (is_blank(*p) || *p == ','))
            p++;
        if (p >= key)
            return true;
        if (*p != '"')
            return false;
        struct name name = { p + 1, 0 };
        p = string_end(&stops, p + 1, key, &escape);
        name.size = (size_t)(p - name.data);
        known = name.size > 0 && (name.data[0] == '@' || name.data[0] == '$');
        known = known || (name.size > 6 && memcmp(name.data, "odata.", 6) == 0);
        for (unsigned i = 0; !known && names[i] != NULL; i++)
            known = name_is(name, names[i]);
        if (!known)
            return false;
        /* its value: a text or a plain word */
        p = blanks_end(p + 1, key);
        if (p < key && *p == ':')
            p = blanks_end(p + 1, key);
        if (p < key && *p == '"')
            p = string_end(&stops, p + 1, key, &escape) + 1;
        else
            while (p < key && *p != ',' && *p != '{' && *p != '[')
                p++;
    }
}

/* Does the bracket at `bracket`, the value of the key, open an array of records? object: where the object began, or NULL
 * in an envelope's rest. */
static bool key_opens(const char *object, struct name key, const char *bracket, const char *end)
{
    const char *next;

    if (!name_is(key, "records") && !name_is(key, "value"))
        return false;
    next = blanks_end(bracket + 1, end);
    if (next == end)
        return false;                /* undecided, and nothing but blanks is left: the scan is short in either case */
    if (name_is(key, "records"))
        return *next == '{' || *next == ']';
    return *next == '{' && (object == NULL || head_is_answer(object, key.data - 1));
}

/* Scans an object from inside, one bracket deep. `before` is the last byte that was no blank: its own `{`, or the `]` where
 * the rest of an envelope begins (then object is NULL). */
static enum scanned scan_object(struct scan *scan, const char *object, const char *p, const char *end, char before,
                                bool may_open)
{
    struct stops stops = stops_none(end);
    struct name key = { NULL, 0 };
    unsigned depth = 1;
    bool array = false;

    scan->token = p - 1;
    scan->escape = scan->in_string = false;
    scan->arrays[0] = 0;
    for (; p < end; p++) {
        char c = *p;

        switch (c) {
        case ' ': case '\t': case '\r': case '\n':
            continue;
        case '"':
            if (before != ':' && before != ',' && before != '{' && before != '[')
                return scan_damaged(scan, p, "a quote stands where none can");
            scan->token = p;
            key.data = p + 1;
            p = string_end(&stops, p + 1, end, &scan->escape);
            if (p == end) {
                scan->in_string = true;
                goto out;
            }
            if (*p == '\n')
                return scan_damaged(scan, p, "a string is not closed on its line");
            key.size = (size_t)(p - key.data);
            break;
        case '{': case '[':
            if (array ? before != ',' && before != '[' : before != ':')
                return scan_damaged(scan, p, "a bracket stands where none can");
            if (c == '[' && depth == 1 && may_open && key_opens(object, key, p, end)) {
                scan->at = p + 1;
                return SCAN_ENVELOPE;
            }
            if (depth == FRAMER_DEPTH)
                return scan_damaged(scan, p, "it nests too deep");
            scan->token = p;
            array = c == '[';
            depth++;
            if (depth % 64 == 0)
                scan->arrays[depth / 64] = 0;
            scan->arrays[depth / 64] &= ~(1ull << depth % 64);
            scan->arrays[depth / 64] |= (uint64_t)array << depth % 64;
            break;
        case '}': case ']':
            if (array != (c == ']'))
                return scan_damaged(scan, p, "its brackets do not match");
            scan->token = p;
            if (--depth == 0) {
                scan->at = p + 1;
                return SCAN_WHOLE;
            }
            array = scan->arrays[depth / 64] >> depth % 64 & 1;
            break;
        }
        before = c;
    }
out:
    scan->at = end;
    scan->depth = depth;
    scan->why = "it is cut off";
    return SCAN_SHORT;
}

/* ---- Where the framer stands ------------------------------------------------------------------------------------ */

/* How far ahead of `at` the region lies in which no record may span a line start; 0: not in one. */
static size_t framer_lines_ahead(struct framer *framer)
{
    int32_t ahead = (int32_t)(framer->now.lines_until - (uint32_t)(framer->offset + framer->at));

    if (framer->now.lines_until == 0 || ahead <= 0 || ahead > RECORD_MOST) {
        framer->now.lines_until = 0;
        return 0;
    }
    return (size_t)ahead;
}

void framer_begin(struct framer *framer, uint64_t word, const char *data, size_t size, uint64_t offset, bool final,
                  size_t record_max)
{
    if (record_max < FRAMER_RECORD_MIN)
        record_max = FRAMER_RECORD_MIN;
    if (record_max > RECORD_MOST)
        record_max = RECORD_MOST;
    *framer = (struct framer){
        .data = data, .size = size, .offset = offset, .now = state_unpack(word), .word = word, .record_max = record_max,
        .final = final,
    };
    framer_lines_ahead(framer);      /* a word from disk may say anything: what cannot be is told here, not on the way */
}

size_t framer_consumed(const struct framer *framer)
{
    return framer->consumed;
}

uint64_t framer_word(const struct framer *framer)
{
    return framer->word;
}

static void framer_commit(struct framer *framer)
{
    framer_lines_ahead(framer);
    framer->consumed = framer->at;
    framer->word = state_pack(&framer->now);
    framer->held = false;
}

/* The chunk has nothing more to give. */
static enum framer_found framer_end(struct framer *framer)
{
    bool moving_end = framer->at == framer->size || framer->data[framer->at] == ']';

    if (framer->final) {
        assert(framer->at == framer->size);
        framer_commit(framer);
        return FRAMER_DONE;
    }
    if (!framer->held || !moving_end || framer->at - framer->consumed > FRAMER_HELD_MAX)
        framer_commit(framer);
    return FRAMER_MORE;
}

/* Hands out the bytes from `at` up to `to`, as a record, or as text with its reason, and stands behind them. */
static enum step framer_piece(struct framer *framer, struct framer_piece *piece, size_t to, const char *why)
{
    const char *data = framer->data + framer->at;
    size_t size = to - framer->at;

    while (why != NULL && (is_blank(data[size - 1]) || (framer->now.levels > 0 && data[size - 1] == ',')))
        size--;                      /* text: without the separators behind it */
    piece->data = data;
    piece->size = size;
    piece->position = framer->offset + framer->at;
    piece->why = why;
    framer->at = to;
    framer->now.joined = false;
    framer_commit(framer);
    return why == NULL ? STEP_RECORD : STEP_TEXT;
}

/* What began at `at` is longer than record_max. It is passed over in that mode, from record_max on; damage from so much
 * before it that every candidate is judged either there or here. */
static void framer_skip_from(struct framer *framer, enum framer_mode mode, const struct scan *scan)
{
    framer->at += framer->record_max;
    if (mode == FRAMER_SKIP_DAMAGE)
        framer->at -= LOOK_BACK + LOOK_AHEAD;
    framer->now.mode = mode;
    framer->now.joined = false;
    if (scan != NULL) {
        framer->now.in_string = scan->in_string;
        framer->now.escape = scan->escape;
        framer->now.depth = scan->depth;
    }
    framer_commit(framer);
}

static enum step framer_oversize(struct framer *framer, struct framer_piece *piece, enum framer_mode mode,
                                 const struct scan *scan)
{
    piece->data = framer->data + framer->at;
    piece->size = framer->record_max < FRAMER_BEGINNING ? framer->record_max : FRAMER_BEGINNING;
    piece->position = framer->offset + framer->at;
    piece->why = "it is longer than a record may be";
    framer_skip_from(framer, mode, scan);
    return STEP_OVERSIZE;
}

/* ---- Damage ----------------------------------------------------------------------------------------------------- */

enum verdict { NO, YES, OPEN };

/* Does a record begin at the brace, after damage? `from`: how far to look back; `key`: what its neighbours begin with. */
static enum verdict framer_candidate(const struct framer *framer, size_t brace, size_t from, uint16_t key)
{
    const char *data = framer->data, *p = data + brace, *end = data + framer->size, *ahead;
    const char *least = brace - from > LOOK_BACK ? p - LOOK_BACK : data + from;
    const char *back = p;
    bool short_of;

    while (back > least && is_blank(back[-1]))
        back--;
    ahead = end - p > LOOK_AHEAD ? p + LOOK_AHEAD : end;
    p = blanks_end(p + 1, ahead);
    if (p == end)
        return framer->final ? NO : OPEN;
    if (p == ahead || (*p != '"' && *p != '}'))
        return NO;
    if (brace > from && data[brace - 1] == '\n')
        return YES;
    if (key == 0 || back == least || (back[-1] != '}' && (back[-1] != ',' || framer->now.levels == 0)))
        return NO;
    if (key_hash(data + brace, end, &short_of) == key)
        return YES;
    return short_of && !framer->final ? OPEN : NO;
}

static void framer_lines_until(struct framer *framer, size_t until)
{
    if (until - framer->at <= framer_lines_ahead(framer))
        return;
    framer->now.lines_until = (uint32_t)(framer->offset + until);
    framer->line_next = 0;
}

/* The next line start behind `at` that a record here must not span; 0: none. */
static size_t framer_line_limit(struct framer *framer)
{
    size_t ahead = framer_lines_ahead(framer), end;

    if (ahead == 0)
        return 0;
    if (framer->line_next > framer->at)
        return framer->line_next == SIZE_MAX ? 0 : framer->line_next;
    end = framer->size - framer->at > ahead ? framer->at + ahead : framer->size;
    framer->line_next = SIZE_MAX;
    for (size_t at = framer->at; at + 1 < end; at++) {
        const char *line = memchr(framer->data + at, '\n', end - 1 - at);

        if (line == NULL)
            break;
        at = (size_t)(line - framer->data);
        if (line[1] == '{') {
            framer->line_next = at + 1;
            return at + 1;
        }
    }
    return 0;
}

/* The object (or rest) at `at` is damaged, as the scan says. Hands out all of it up to the next record. */
static enum step framer_damage(struct framer *framer, struct framer_piece *piece, const struct scan *scan)
{
    size_t start = framer->at, left = framer->size - start, limit = start + framer->record_max - LOOK_AHEAD;
    size_t where = (size_t)(scan->at - framer->data), token = (size_t)(scan->token - framer->data);
    bool last = framer->final && left <= framer->record_max, short_of;
    uint16_t key = framer->now.key;

    if (key == 0 && framer->data[start] == '{')
        key = key_hash(framer->data + start, framer->data + framer->size, &short_of);
    if (last || limit > framer->size)
        limit = framer->size;
    for (size_t at = start + 1; at < limit; at++) {
        const char *brace = memchr(framer->data + at, '{', limit - at);
        enum verdict verdict;

        if (brace == NULL)
            break;
        at = (size_t)(brace - framer->data);
        verdict = framer_candidate(framer, at, start, at >= token ? key : 0);
        if (verdict == OPEN)
            return STEP_MORE;
        if (verdict == NO)
            continue;
        if (at < where)
            framer_lines_until(framer, where);
        return framer_piece(framer, piece, at, scan->why);
    }
    if (last)
        return framer_piece(framer, piece, framer->size, scan->why);
    if (left <= framer->record_max)
        return STEP_MORE;
    return framer_oversize(framer, piece, FRAMER_SKIP_DAMAGE, NULL);
}

/* ---- One step at a boundary ------------------------------------------------------------------------------------- */

/* Scans what the bracket at `at` begins, up to where it may reach at most. */
static enum scanned framer_scan(struct framer *framer, struct scan *scan)
{
    const char *start = framer->data + framer->at, *end;
    size_t left = framer->size - framer->at, line = framer_line_limit(framer);
    enum scanned short_of = SCAN_SHORT, scanned;

    if (left > framer->record_max) {
        left = framer->record_max;
        short_of = SCAN_PAST;
    }
    end = start + left;
    if (line != 0 && framer->data + line < end) {
        end = framer->data + line;
        short_of = SCAN_TORN;
    }
    scanned = scan_object(scan, *start == '{' ? start : NULL, start + 1, end, *start,
                          *start == ']' || state_may_open(&framer->now));
    return scanned == SCAN_SHORT ? short_of : scanned;
}

/* At a `{`: a record, or an envelope that opens. */
static enum step framer_object(struct framer *framer, struct framer_piece *piece)
{
    struct scan scan;
    bool short_of;

    switch (framer_scan(framer, &scan)) {
    case SCAN_WHOLE:
        if (framer->now.levels > 0)
            framer->now.key = key_hash(framer->data + framer->at, scan.at, &short_of);
        return framer_piece(framer, piece, (size_t)(scan.at - framer->data), NULL);
    case SCAN_ENVELOPE:
        state_open(&framer->now, true);
        framer->at = (size_t)(scan.at - framer->data);
        return STEP_ON;
    case SCAN_PAST:
        return framer_oversize(framer, piece, FRAMER_SKIP_RECORD, &scan);
    case SCAN_SHORT:
        if (!framer->final)
            return STEP_MORE;
        break;
    case SCAN_TORN:
    case SCAN_DAMAGED:
        break;
    }
    return framer_damage(framer, piece, &scan);
}

/* At a `]` that closes a level: its array ends, and so does its envelope where the rest is all there. */
static enum step framer_close(struct framer *framer, struct framer_piece *piece)
{
    const char *bracket = framer->data + framer->at;
    struct scan scan = { .at = bracket + 1 };
    enum scanned scanned = SCAN_WHOLE;

    framer->held = true;
    if (framer->now.envelopes >> (framer->now.levels - 1) & 1)
        scanned = framer_scan(framer, &scan);
    switch (scanned) {
    case SCAN_WHOLE:
        break;
    case SCAN_ENVELOPE:              /* a second array of records in the same envelope */
        framer->now.joined = true;
        framer->at = (size_t)(scan.at - framer->data);
        return STEP_ON;
    case SCAN_PAST:
        framer_skip_from(framer, FRAMER_SKIP_REST, &scan);
        return STEP_ON;
    case SCAN_SHORT:
        if (!framer->final)
            return STEP_MORE;
        if (blanks_end(bracket + 1, scan.at) == scan.at)
            break;                   /* only its `}` is missing: nothing is lost */
        return framer_damage(framer, piece, &scan);
    case SCAN_TORN:
    case SCAN_DAMAGED:
        return framer_damage(framer, piece, &scan);
    }
    state_close(&framer->now);
    framer->at = (size_t)(scan.at - framer->data);
    return STEP_ON;
}

/* Where text that began at `at` inside an array ends: at the array's `]`, or at an object that a comma, a brace or a line's
 * start sets apart; else `end`. */
static size_t framer_text_in_array(const struct framer *framer, size_t end)
{
    size_t depth = 0, at;
    char before = 0;

    for (at = framer->at; at < end; at++) {
        char c = framer->data[at];

        if (c == ']' && depth-- == 0)
            break;
        if (c == '{' && (before == ',' || before == '}' || framer->data[at - 1] == '\n'))
            break;
        if (c == '[')
            depth++;
        if (!is_blank(c))
            before = c;
    }
    return at;
}

/* Nothing but closing brackets and blanks. */
static bool is_brackets(const char *p, const char *end)
{
    while (p < end && (is_blank(*p) || *p == '}' || *p == ']'))
        p++;
    return p == end;
}

static size_t framer_text_line(const struct framer *framer, size_t end)
{
    const char *data = framer->data;
    bool bracket = data[framer->at] == '}' || data[framer->at] == ']';
    size_t at = framer->at;

    while (at < end && data[at] != '\n' && !(bracket && data[at] == '{'))
        at++;
    return at;
}

/* At what is no JSON. Inside an array it reaches to the array's end or the next object; else to the end of its line, or,
 * where a closing bracket is left over, only to the next object in it. */
static enum step framer_text(struct framer *framer, struct framer_piece *piece)
{
    bool past = framer->size - framer->at > framer->record_max, in_array = framer->now.levels > 0;
    size_t end = past ? framer->at + framer->record_max : framer->size;
    size_t at = in_array ? framer_text_in_array(framer, end) : framer_text_line(framer, end);

    if (in_array && at == framer->size && framer->final && is_brackets(framer->data + framer->at, framer->data + at)) {
        framer->at = at;             /* the wrong brackets close the stream: nothing is lost */
        return STEP_ON;
    }
    if (at < end || (framer->final && !past))
        return framer_piece(framer, piece, at, "it is not JSON");
    if (!past)
        return STEP_MORE;
    return framer_oversize(framer, piece, in_array ? FRAMER_SKIP_DAMAGE : FRAMER_SKIP_LINE, NULL);
}

/* At a `[`: an array of records opens. Text lines may begin like this as well ("[INFO] …", "[2026-11-22 …"). */
static enum step framer_array(struct framer *framer, struct framer_piece *piece)
{
    const char *bracket = framer->data + framer->at, *end = framer->data + framer->size, *next = bracket + 1;

    while (next < end && next - bracket < LOOK_AHEAD && (*next == ' ' || *next == '\t' || *next == '\r'))
        next++;
    if (next == end && !framer->final)
        return STEP_MORE;
    if (next == end || strchr("{[]\n", *next) == NULL || *next == '\0' || !state_may_open(&framer->now))
        return framer_text(framer, piece);
    state_open(&framer->now, false);
    framer->at++;
    return STEP_ON;
}

/* ---- Skipping what was longer than a record may be --------------------------------------------------------------- */

/* True: the end of it was found. False: not in this chunk. */
static bool framer_skip_line(struct framer *framer)
{
    const char *start = framer->data + framer->at, *line = memchr(start, '\n', framer->size - framer->at);

    framer->at = line != NULL ? (size_t)(line - framer->data) : framer->size;
    return line != NULL;
}

static bool framer_skip_damage(struct framer *framer)
{
    size_t start = framer->at, keep = LOOK_BACK + LOOK_AHEAD;

    for (size_t at = start; at < framer->size; at++) {
        const char *brace = memchr(framer->data + at, '{', framer->size - at);
        enum verdict verdict;

        if (brace == NULL)
            break;
        at = (size_t)(brace - framer->data);
        verdict = framer_candidate(framer, at, start, framer->now.key);
        if (verdict == OPEN)
            break;
        if (verdict == YES) {
            framer->at = at;
            return true;
        }
    }
    if (framer->final)
        framer->at = framer->size;
    else if (framer->size - start > keep)
        framer->at = framer->size - keep;
    return false;
}

/* By its brackets and strings alone. A line that starts with a `{` ends it too: it was torn. */
static bool framer_skip_object(struct framer *framer)
{
    struct framer_state *now = &framer->now;
    const char *data = framer->data, *end = data + framer->size;
    struct stops stops = stops_none(end);

    for (; framer->at < framer->size; framer->at++) {
        if (now->in_string) {
            framer->at = (size_t)(string_end(&stops, data + framer->at, end, &now->escape) - data);
            if (framer->at == framer->size)
                return false;
            now->in_string = false;
            if (data[framer->at] == '\n') {
                now->mode = FRAMER_SKIP_DAMAGE;
                return framer_skip_damage(framer);
            }
            continue;
        }
        switch (data[framer->at]) {
        case '"':
            now->in_string = true;
            break;
        case '\n':
            if (framer->at + 1 == framer->size && !framer->final)
                return false;
            if (framer->at + 1 < framer->size && data[framer->at + 1] == '{')
                return true;
            break;
        case '{': case '[':
            if (now->depth < FRAMER_DEPTH) {
                now->depth++;
                break;
            }
            now->mode = FRAMER_SKIP_DAMAGE;
            return framer_skip_damage(framer);
        case '}': case ']':
            if (--now->depth > 0)
                break;
            framer->at++;
            if (now->mode == FRAMER_SKIP_REST)
                state_close(now);
            return true;
        }
    }
    return false;
}

static bool framer_skip(struct framer *framer)
{
    bool ended = false;

    switch (framer->now.mode) {
    case FRAMER_AT_BOUNDARY:
        return true;
    case FRAMER_SKIP_RECORD:
    case FRAMER_SKIP_REST:
        ended = framer_skip_object(framer);
        break;
    case FRAMER_SKIP_LINE:
        ended = framer_skip_line(framer);
        break;
    case FRAMER_SKIP_DAMAGE:
        ended = framer_skip_damage(framer);
        break;
    }
    if (ended) {
        framer->now.mode = FRAMER_AT_BOUNDARY;
        framer->now.lines_until = 0;
    }
    framer_commit(framer);
    return ended;
}

/* ---- The loop --------------------------------------------------------------------------------------------------- */

static void framer_separators(struct framer *framer)
{
    for (; framer->at < framer->size; framer->at++) {
        const char *p = framer->data + framer->at;

        if (*p == ',')
            framer->now.joined = true;
        else if (*p == '\xef' && framer->size - framer->at >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0)
            framer->at += 2;
        else if (!is_blank(*p) && *p != '\0')
            break;
    }
}

enum framer_found framer_next(struct framer *framer, struct framer_piece *piece)
{
    enum step step = STEP_ON;

    while (step == STEP_ON) {
        if (!framer_skip(framer))
            return framer_end(framer);
        framer_separators(framer);
        if (framer->at == framer->size)
            return framer_end(framer);
        switch (framer->data[framer->at]) {
        case '{':
            step = framer_object(framer, piece);
            break;
        case '[':
            step = framer_array(framer, piece);
            break;
        case ']':
            step = framer->now.levels > 0 ? framer_close(framer, piece) : framer_text(framer, piece);
            break;
        default:
            step = framer_text(framer, piece);
            break;
        }
    }
    return step == STEP_MORE ? framer_end(framer) : (enum framer_found)step;
}
