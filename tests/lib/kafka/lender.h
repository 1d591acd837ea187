/*
 * lender.h - the daemon's side of the sink contract, as small as it can be: lends batches, notes the answers.
 *
 * For the unit test of sinks/kafka.c and for the driver that runs it against a real broker. Holds everything the sink
 * calls (configuration, log, secrets, answers), so that neither needs another part of the daemon.
 */
#ifndef LENDER_H
#define LENDER_H

#include "daemon/base/log.h"
#include "daemon/config/conf.h"
#include "daemon/remote/kafka_login.h"
#include "sinks/sink.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pen_conf {                    /* key, value, key, value …, NULL */
    const char *const *words;
};

struct answer {
    bool given;
    enum pen_outcome outcome;        /* of the whole batch; for each: of messages[0] */
    enum pen_outcome *each;          /* NULL: one for all */
    char why[512];
};

struct loan {
    struct pen_batch batch;          /* first: what the sink gives back */
    struct answer answer;
    void (*on_answer)(struct loan *loan);
    void *arg;
};

static bool lender_in_submit;        /* an answer now would break the contract */
static char lender_log[16384];       /* every line, for searching */

static const char *lender_value(const struct pen_conf *conf, const char *key, const char *fallback)
{
    for (const char *const *word = conf->words; *word; word += 2)
        if (strcmp(word[0], key) == 0)
            return word[1];
    return fallback;
}

static int lender_fill(const struct pen_option *row, const struct pen_conf *conf, void *into)
{
    const char *value = lender_value(conf, row->name, row->fallback);

    if (!value)
        return row->required ? UV_EINVAL : 0;
    switch (row->type) {
    case PEN_CHOICE:
        for (int i = 0; row->choices[i]; i++)
            if (strcmp(row->choices[i], value) == 0) {
                *(int *)into = i;
                return 0;
            }
        return UV_EINVAL;
    case PEN_MS:
        *(uint32_t *)into = (uint32_t)strtoul(value, NULL, 10) * (strstr(value, "ms") ? 1 : 1000);
        return 0;
    case PEN_BYTES:
        *(uint64_t *)into = strtoull(value, NULL, 10);
        return 0;
    case PEN_INT:
        *(int64_t *)into = strtoll(value, NULL, 10);
        return 0;
    default:
        *(const char **)into = value;
        return 0;
    }
}

int pen_conf_fill(const struct pen_conf *conf, const struct pen_option *options, void *into, struct pen_error *err)
{
    static const char *keys[32], *values[32];

    for (const struct pen_option *row = options; row->name; row++) {
        void *field = (char *)into + row->offset;

        if (row->type == PEN_PAIRS) {
            size_t count = 0;

            for (const char *const *word = conf->words; *word; word += 2)
                if (strncmp(word[0], row->name, strlen(row->name)) == 0) {
                    keys[count] = word[0] + strlen(row->name);
                    values[count++] = word[1];
                }
            *(struct pen_pairs *)field = (struct pen_pairs){ keys, values, count };
        } else if (lender_fill(row, conf, field) < 0) {
            return pen_error_set(err, UV_EINVAL, "%s", row->name);
        }
    }
    return 0;
}

/* No tokens here: daemon/remote/kafka_login.c needs Entra, and a far end for it (test_event_hub.py). */
const char *const entra_auth_names[] = { "auto", NULL }, *const entra_cloud_names[] = { "public", NULL },
           *const entra_signature_names[] = { "PS256", NULL };

int kafka_login_check(const struct kafka_client *client, struct pen_error *err)
{
    (void)client, (void)err;
    return 0;
}

int kafka_login_new(struct kafka_login **ret, const struct kafka_client *client, struct http *http, uv_loop_t *loop,
                    struct pen_error *err)
{
    (void)client, (void)http, (void)loop, (void)err;
    *ret = NULL;
    return 0;
}

void kafka_login_refresh(struct kafka_login *login, rd_kafka_t *rk)
{
    (void)login, (void)rk;
}

void kafka_login_forget(struct kafka_login *login, bool refused)
{
    (void)login, (void)refused;
}

uint64_t kafka_login_life_ms(const struct kafka_login *login)
{
    (void)login;
    return 0;
}

void kafka_login_close(struct kafka_login *login)
{
    (void)login;
}

void kafka_sink_probe(struct probe *probe, const struct pen_conf *conf)
{
    (void)probe, (void)conf;
}

const char *pen_conf_name(const struct pen_conf *conf)
{
    (void)conf;
    return "siem";
}

int pen_error_set(struct pen_error *err, int code, const char *format, ...)
{
    va_list args;

    err->code = code;
    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    return code;
}

int pen_secret_read(char **ret, size_t *size, const char *path, struct pen_error *err)
{
    FILE *file = fopen(path, "r");
    char text[512];

    if (!file || !fgets(text, sizeof(text), file))
        return pen_error_set(err, UV_ENOENT, "%s: cannot be read", path);
    fclose(file);
    text[strcspn(text, "\n")] = 0;
    *ret = strdup(text);
    *size = strlen(text);
    return 0;
}

void pen_secret_wipe(char *secret, size_t size)
{
    (void)size;
    free(secret);
}

void log_line(enum log_level level, const char *msg, ...)
{
    size_t used = strlen(lender_log);

    if (level != LOG_TRACE)
        snprintf(lender_log + used, sizeof(lender_log) - used, "<%d>%s\n", level, msg);
    if (getenv("VERBOSE"))
        fprintf(stderr, "<%d>%s\n", level, msg);
}

const char *log_number(unsigned long long value)
{
    static char text[24];

    snprintf(text, sizeof(text), "%llu", value);
    return text;
}

void log_set_level(enum log_level level)
{
    (void)level;
}

static void lender_note(struct pen_batch *batch, enum pen_outcome outcome, const enum pen_outcome *each, const char *why)
{
    struct loan *loan = (struct loan *)batch;

    assert(!lender_in_submit && !loan->answer.given);
    loan->answer.given = true;
    loan->answer.outcome = outcome;
    if (each) {
        loan->answer.each = calloc(batch->count, sizeof(*each));
        memcpy(loan->answer.each, each, batch->count * sizeof(*each));
    }
    snprintf(loan->answer.why, sizeof(loan->answer.why), "%s", why);
    if (loan->on_answer)
        loan->on_answer(loan);
}

void pen_batch_answer(struct pen_batch *batch, enum pen_outcome outcome, uint32_t delay_ms, const char *why)
{
    (void)delay_ms;
    lender_note(batch, outcome, NULL, why);
}

void pen_batch_answer_each(struct pen_batch *batch, const enum pen_outcome *outcomes, uint32_t delay_ms, const char *why)
{
    (void)delay_ms;
    lender_note(batch, outcomes[0], outcomes, why);
}

static inline enum pen_outcome loan_outcome(const struct loan *loan, uint32_t i)
{
    return loan->answer.each ? loan->answer.each[i] : loan->answer.outcome;
}

/* A batch of copies of these texts, all of the streams named. */
static inline struct loan *loan_new(const char *const *texts, const uint32_t *streams, uint32_t count,
                                    const char *const *names)
{
    struct loan *loan = calloc(1, sizeof(*loan));
    struct pen_message *messages = calloc(count, sizeof(*messages));
    size_t size = 0;
    char *data;

    for (uint32_t i = 0; i < count; i++)
        size += strlen(texts[i]) + 1;
    data = malloc(size);
    size = 0;
    for (uint32_t i = 0; i < count; i++) {
        messages[i] = (struct pen_message){ .offset = (uint32_t)size, .size = (uint32_t)strlen(texts[i]),
                                            .stream = streams ? streams[i] : 0, .position = i };
        memcpy(data + size, texts[i], messages[i].size);
        size += messages[i].size;
        data[size++] = ',';
    }
    loan->batch = (struct pen_batch){ .data = data, .size = size - 1, .messages = messages, .count = count,
                                      .kind = PEN_AUDIT, .streams = names };
    return loan;
}

static inline void loan_free(struct loan *loan)
{
    free((void *)(uintptr_t)loan->batch.data);
    free((void *)(uintptr_t)loan->batch.messages);
    free(loan->answer.each);
    free(loan);
}

static inline void loan_submit(struct loan *loan, const struct pen_sink *sink, void *self)
{
    lender_in_submit = true;
    sink->submit(self, &loan->batch);
    lender_in_submit = false;
}

#endif
