/* hangs.c - a parser that hangs, as none should: in a record of the category "Hang", while the file that PENSTOCK_HANG names
 * is there. */
#include "parser.h"

#include <stdlib.h>
#include <unistd.h>

static bool hangs_claims(const struct pen_record *record)
{
    return pen_span_is(pen_json_text(record->json, "category"), "Hang");
}

static enum pen_parsed hangs_parse(void *self, const struct pen_record *record, struct pen_out *out)
{
    struct pen_event *event = pen_out_event(out, PEN_AUDIT);
    const char *path = getenv("PENSTOCK_HANG");

    (void)self;
    while (path != NULL && access(path, F_OK) == 0)
        usleep(10000);
    pen_take(event, PEN_OPERATION, record->json, "category");
    return pen_out_emit(out, event);
}

static const struct pen_parser hangs_parser = {
    .size = sizeof(hangs_parser), .name = "hangs", .claims = hangs_claims, .parse = hangs_parse,
};

PEN_EXPORT const struct pen_parser *pen_parser_v1(void)
{
    return &hangs_parser;
}
