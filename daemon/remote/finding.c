/* finding.c - see finding.h. */
#include "daemon/remote/finding.h"

#include "daemon/base/buf.h"

#include <stdio.h>

void finding_say(finding_tell tell, void *arg, enum finding finding, const char *format, va_list args)
{
    char sentence[2048];

    (void)vsnprintf(sentence, sizeof(sentence), format, args);
    text_clean(sentence);
    tell(arg, finding, sentence);
}
