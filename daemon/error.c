/* error.c - a code and one sentence, where a human waits. */
#include "parsers/parser.h"

#include <stdarg.h>
#include <stdio.h>

int pen_error_set(struct pen_error *err, int code, const char *format, ...)
{
    va_list args;

    if (err == NULL)
        return code;
    err->code = code;
    va_start(args, format);
    (void)vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    return code;
}
