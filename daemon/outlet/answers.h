/*
 * answers.h - how often a far end answered what: by outcome and by the status it gave, for the counters.
 *
 * A sink's sentence begins with the status where there was one ("status 429, …", "status INVALID_RECORD: …"). The far end
 * chose that word, so it is held to letters, digits and '_', and there are ANSWERS_MAX rows at most: what comes later and is
 * new counts as "other".
 */
#ifndef DAEMON_ANSWERS_H
#define DAEMON_ANSWERS_H

#include "sinks/sink.h"

#define ANSWERS_MAX 32
#define ANSWER_STATUS_SIZE 40

struct answers {
    struct answer_count {
        enum pen_outcome outcome;
        char status[ANSWER_STATUS_SIZE];           /* "" where the far end gave none */
        uint64_t count;
    } rows[ANSWERS_MAX];
    uint32_t count;
};

void answers_add(struct answers *answers, enum pen_outcome outcome, const char *why);

extern const char *const outcome_words[];          /* by enum pen_outcome: "delivered", "retry", … */

#endif
