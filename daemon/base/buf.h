/*
 * buf.h - a growing byte buffer, and a bump arena: the two kinds of memory a job has.
 *
 * Neither is shared between threads. Both are reset, not freed, between chunks. Running out of memory aborts: the
 * budget is enforced above, by bytes held, and the process dies cleanly rather than half-alive.
 */
#ifndef DAEMON_BUF_H
#define DAEMON_BUF_H

#include "parsers/parser.h"

#include <string.h>

struct buf {
    char *data;
    size_t size, capacity;
};

void buf_grow(struct buf *buf, size_t more);      /* capacity for `more` bytes behind size */
void buf_free(struct buf *buf);                   /* back to empty, memory returned */

static inline void buf_reserve(struct buf *buf, size_t more)
{
    if (buf->capacity - buf->size < more)
        buf_grow(buf, more);
}

static inline void buf_add(struct buf *buf, const char *data, size_t size)
{
    buf_reserve(buf, size);
    if (size > 0)
        memcpy(buf->data + buf->size, data, size);
    buf->size += size;
}

/* memcpy() for what is mostly short, without a call: two pieces that overlap in the middle. Returns what is behind the copy. */
static inline char *buf_put(char *to, const char *from, size_t size)
{
    if (size > 32 || size < 4) {
        memcpy(to, from, size);
    } else if (size >= 16) {
        memcpy(to, from, 16);
        memcpy(to + size - 16, from + size - 16, 16);
    } else if (size >= 8) {
        memcpy(to, from, 8);
        memcpy(to + size - 8, from + size - 8, 8);
    } else {
        memcpy(to, from, 4);
        memcpy(to + size - 4, from + size - 4, 4);
    }
    return to + size;
}

static inline void buf_char(struct buf *buf, char c)
{
    buf_reserve(buf, 1);
    buf->data[buf->size++] = c;
}

#define BUF_LITERAL(buf, text) buf_add((buf), (text), sizeof(text) - 1)

void buf_text(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_int(struct buf *buf, int64_t value);
void buf_real(struct buf *buf, double value);                      /* shortest form that reads back the same; never NaN */
/* The bytes as a JSON string with its quotes. Invalid UTF-8 becomes U+FFFD, control characters are escaped, NUL too. */
void buf_json_string(struct buf *buf, const char *data, size_t size);
/* 100 ns ticks since 1970 as "2026-11-22T09:00:01.2345670Z" without quotes: 7 digits of fraction, or 3 where that is
 * exact, or none. Years 0001 to 9999; beyond, the nearest of them. */
void buf_time(struct buf *buf, int64_t ticks);

/* Control characters become '?': for text that people will see, whoever wrote it. */
void text_clean(char *text);

struct arena_block;
struct arena {
    struct arena_block *blocks;      /* newest first */
    size_t held;                     /* bytes taken from the system */
};

void *arena_alloc(struct arena *arena, size_t size);               /* aligned to 16, not cleared */
void arena_reset(struct arena *arena);                             /* keeps one block of ordinary size */
void arena_free(struct arena *arena);

#endif
