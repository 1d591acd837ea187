/*
 * words.h - a command's options, from rows: `-c FILE`, `--config=FILE`, `--yes`.
 */
#ifndef DAEMON_WORDS_H
#define DAEMON_WORDS_H

#include <stdbool.h>

struct word {
    const char *name;                /* the long form; a row without one ends the table */
    char letter;                     /* the short one; 0: none */
    const char **value;              /* where its value goes, borrowed from argv … */
    bool *flag;                      /* … or what it sets, where it takes none */
};

/* Reads the options; `optind` is the first word behind them. Negative: go on. Else the command's exit status: 0, the usage
 * was asked for and printed; 2, wrong use, and it was said. --help and -h come by themselves. */
int words_read(int argc, char **argv, const struct word *words, const char *usage);

#endif
