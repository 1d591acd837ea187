/* wrong.c - shared objects that are no parsers of ours, each for the reason that its macro names; and one good one. */
#include "parser.h"

#if defined(TAKEN)
#define NAME "unknown"
#elif defined(NO_NAME)
#define NAME "Not A Name"
#else
#define NAME "wrong"
#endif

PEN_EXPORT const struct pen_parser *not_the_symbol(void);

static bool __attribute__((unused)) wrong_claims(const struct pen_record *record)
{
    return record == NULL;
}

static enum pen_parsed wrong_parse(void *self, const struct pen_record *record, struct pen_out *out)
{
    (void)self;
    (void)record;
    (void)out;
    return PEN_PARSED;
}

#ifdef FAILS_TO_OPEN
static int wrong_open(void **self, const struct pen_conf *conf, struct pen_error *err)
{
    (void)self;
    (void)conf;
    err->code = -5;
    err->text[0] = 'x';
    return -5;
}
#endif

#ifdef OPTIONS
static const struct pen_option wrong_options[] = { { .name = "x", .type = PEN_BOOL }, { 0 } };
#endif

/* A later version of the struct, with a member more. */
static const struct newer {
    struct pen_parser parser;
    void *more;
} newer = {
    .parser = {
#if defined(SMALL)
        .size = offsetof(struct pen_parser, claims),
#elif defined(NEWER) || defined(NEWER_UNUSED)
        .size = sizeof(struct newer),
#else
        .size = sizeof(struct pen_parser),
#endif
        .name = NAME,
#ifndef NO_CLAIMS
        .claims = wrong_claims,
#endif
        .parse = wrong_parse,
#ifdef FAILS_TO_OPEN
        .open = wrong_open,
#endif
#ifdef OPTIONS
        .options = wrong_options,
#endif
    },
#ifdef NEWER
    .more = (void *)1,
#endif
};

#if defined(NO_SYMBOL)
const struct pen_parser *not_the_symbol(void)
{
    return &newer.parser;
}
#elif defined(NOTHING)
const struct pen_parser *pen_parser_v1(void)
{
    return wrong_claims(NULL) ? NULL : &newer.parser;
}
#else
const struct pen_parser *pen_parser_v1(void)
{
    return &newer.parser;
}
#endif
