/*
 * fuzz.h - what the targets share: an input taken apart, and an opinion about JSON that is not the daemon's own.
 *
 * A target is one file with one function, as libFuzzer wants it. It judges what comes out by assert; memory and undefined
 * behaviour are the sanitizers' to judge, time is libFuzzer's (-timeout). Built without clang, the same file is a program
 * that runs the inputs it is given (replay.c): so every build replays the corpora, and every finding stays found.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include "parsers/parser.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- The input, taken from its front ---- */

struct feed {
    const uint8_t *at, *end;
};

static inline struct feed feed_of(const uint8_t *data, size_t size)
{
    return (struct feed){ data, data + size };
}

static inline size_t feed_left(const struct feed *feed)
{
    return (size_t)(feed->end - feed->at);
}

static inline uint8_t feed_byte(struct feed *feed)
{
    return feed->at < feed->end ? *feed->at++ : 0;
}

static inline uint64_t feed_number(struct feed *feed, unsigned bytes)
{
    uint64_t number = 0;

    while (bytes-- > 0)
        number = number << 8 | feed_byte(feed);
    return number;
}

/* What is left, or `most` of it. */
static inline struct pen_span feed_span(struct feed *feed, size_t most)
{
    size_t size = feed_left(feed) < most ? feed_left(feed) : most;
    struct pen_span span = { (const char *)feed->at, size };

    feed->at += size;
    return span;
}

/* A copy with `more` bytes behind it and not one further: the sanitizer sees who reads past them. The caller frees it. */
char *fuzz_copy(struct pen_span span, size_t more);
/* A file in memory that holds the bytes; the path leads to it. */
int fuzz_file(struct pen_span span, char path[static 32]);
/* An empty folder of this process's own, gone at exit. */
const char *fuzz_folder(void);
void fuzz_folder_clear(void);

/* ---- JSON, by another reading than simdjson's ---- */

#define JUDGE_DEPTH 256

/* RFC 8259 with UTF-8, at most JUDGE_DEPTH deep, surrogates in pairs; nothing is said about the range of numbers. */
bool judge_json(struct pen_span text);
/* The object's own members have names that differ (as they are written). */
bool judge_names_differ(struct pen_span object);
/* The member's value as it is written, quotes and all; an empty span where there is none. The object must be JSON. */
struct pen_span judge_member(struct pen_span object, const char *name);
/* No control character but, where `blanks`, tab: fit for a line of a log or of a terminal. */
bool judge_line(struct pen_span text, bool blanks);

#endif
