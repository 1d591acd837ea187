/* words.c - see words.h. */
#include "daemon/command/words.h"

#include <assert.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#define WORDS_MAX 15
#define FIRST 256                    /* what getopt_long() returns for row 0: above every letter */

int words_read(int argc, char **argv, const struct word *words, const char *usage)
{
    struct option options[WORDS_MAX + 2] = { { "help", no_argument, NULL, 'h' } };
    char letters[2 * WORDS_MAX + 2] = "h", *letter = letters + 1;
    char name[32];
    int count, found;

    for (count = 0; words[count].name != NULL; count++) {
        assert(count < WORDS_MAX);
        (void)snprintf(name, sizeof(name), "--%s", words[count].name);
        assert(strstr(usage, name) != NULL);       /* the manual is made of it */
        options[count + 1] = (struct option){ words[count].name, words[count].value != NULL, NULL, FIRST + count };
        if (words[count].letter == '\0')
            continue;
        *letter++ = words[count].letter;
        if (words[count].value != NULL)
            *letter++ = ':';
    }
    while ((found = getopt_long(argc, argv, letters, options, NULL)) != -1) {
        for (int i = 0; i < count; i++)
            if (words[i].letter != '\0' && found == words[i].letter)
                found = FIRST + i;
        if (found == 'h' || found < FIRST) {       /* '?': getopt_long() has said what is wrong */
            fputs(usage, found == 'h' ? stdout : stderr);
            return found == 'h' ? 0 : 2;
        }
        if (words[found - FIRST].value != NULL)
            *words[found - FIRST].value = optarg;
        else
            *words[found - FIRST].flag = true;
    }
    return -1;
}
