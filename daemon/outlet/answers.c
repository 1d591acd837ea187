/* answers.c - see answers.h. */
#include "daemon/outlet/answers.h"

#include <ctype.h>
#include <string.h>

const char *const outcome_words[] = {
    [PEN_DELIVERED] = "delivered", [PEN_RETRY] = "retry", [PEN_TOO_LARGE] = "too_large", [PEN_REJECTED] = "rejected",
    [PEN_REFUSED] = "refused",
};

static void status_of(const char *why, char status[ANSWER_STATUS_SIZE])
{
    static const char mark[] = "status ";
    size_t n = 0;

    if (why != NULL && strncmp(why, mark, sizeof(mark) - 1) == 0)
        for (why += sizeof(mark) - 1; n < ANSWER_STATUS_SIZE - 1 && (isalnum((unsigned char)*why) || *why == '_'); why++)
            status[n++] = *why;
    status[n] = '\0';
}

static struct answer_count *answers_row(struct answers *answers, enum pen_outcome outcome, const char *status)
{
    struct answer_count *row;

    for (uint32_t i = 0; i < answers->count; i++) {
        row = &answers->rows[i];
        if (row->outcome == outcome && strcmp(row->status, status) == 0)
            return row;
    }
    /* The last rows are kept for "other", one for each outcome. */
    if (answers->count >= ANSWERS_MAX - (PEN_REFUSED + 1) && strcmp(status, "other") != 0)
        return answers_row(answers, outcome, "other");
    row = &answers->rows[answers->count++];
    row->outcome = outcome;
    strcpy(row->status, status);
    return row;
}

void answers_add(struct answers *answers, enum pen_outcome outcome, const char *why)
{
    char status[ANSWER_STATUS_SIZE];

    status_of(why, status);
    answers_row(answers, outcome, status)->count++;
}
