/*
 * error.c - a code and one sentence, where a human waits.
 *
 * Sentences quote: names of files, what a plugin's author wrote, what a library says. Who can give a file a name must not
 * steer the terminal of the one who reads it, so control characters, those of C1 in UTF-8 too, become question marks here,
 * once for all who print an error.
 */
#include "daemon/base/buf.h"

#include <stdarg.h>
#include <stdio.h>

void text_clean(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c != '\0'; c++) {
        if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
            c[0] = c[1] = '?';
        else if (*c < ' ' || *c == 0x7f)
            *c = '?';
    }
}

int pen_error_set(struct pen_error *err, int code, const char *format, ...)
{
    va_list args;

    if (err == NULL)
        return code;
    err->code = code;
    va_start(args, format);
    (void)vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    text_clean(err->text);
    return code;
}
