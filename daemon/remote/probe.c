/* probe.c - see probe.h. */
#include "daemon/remote/probe.h"

#include "daemon/schema/schema.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

void probe_tell(struct probe *probe, enum finding finding, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    finding_say(probe->tell, probe->arg, finding, format, args);
    va_end(args);
}

void probe_wait(struct probe *probe, const bool *done)
{
    while (!*done)
        uv_run(probe->loop, UV_RUN_ONCE);
}

/* ---- A token ---- */

struct asking_token {
    struct probe *probe;
    char *token;
    bool done;
};

static void on_token(void *arg, const char *token, bool refused, int64_t retry_after_ms, const char *why)
{
    struct asking_token *asking = arg;

    (void)refused, (void)retry_after_ms;
    asking->done = true;
    if (token == NULL)
        probe_tell(asking->probe, FINDING_WRONG, "%s", why);
    else if ((asking->token = strdup(token)) == NULL)
        abort();
}

char *probe_token(struct probe *probe, const struct entra_conf *conf)
{
    struct asking_token asking = { .probe = probe };
    struct pen_error err = { 0 };
    struct entra *entra;

    if (entra_new(&entra, probe->http, probe->loop, conf, &err) < 0) {
        probe_tell(probe, FINDING_WRONG, "%s", err.text);
        return NULL;
    }
    entra_token(entra, on_token, &asking);
    probe_wait(probe, &asking.done);
    entra_close(entra);
    return asking.token;
}

void probe_token_free(char *token)
{
    if (token != NULL)
        explicit_bzero(token, strlen(token));
    free(token);
}

/* ---- A request ---- */

struct asking {
    http_done judge;
    void *arg;
    bool done;
};

static void on_answer(void *arg, const struct http_answer *answer)
{
    struct asking *asking = arg;

    asking->judge(asking->arg, answer);
    asking->done = true;
}

void probe_ask(struct probe *probe, const struct http_ask *ask, http_done judge, void *arg)
{
    struct asking asking = { .judge = judge, .arg = arg };

    (void)http_start(probe->http, ask, on_answer, &asking);
    probe_wait(probe, &asking.done);
}

/* ---- The test record ---- */

static bool nobody_takes(void *arg, const struct pen_event *event, uint64_t ordinal)
{
    (void)arg, (void)event, (void)ordinal;
    return true;
}

/* Rows that nobody's detections look at come first. */
static enum pen_kind test_kind(unsigned kinds)
{
    static const enum pen_kind order[] = { PEN_UNKNOWN, PEN_AUDIT, PEN_NETWORK };

    for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++)
        if (kinds & 1u << order[i])
            return order[i];
    return PEN_ALERT;
}

/* An id like any other event's, but a new one each time. */
static void test_id(struct event_meta *meta)
{
    uint8_t bytes[16];
    int r = uv_random(NULL, NULL, bytes, sizeof(bytes), 0, NULL);
    char text[EVENT_ID_MAX + 1];

    assert(r == 0);
    for (size_t i = 0; i < sizeof(bytes); i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    strcpy(text + 32, "-0");
    memcpy(meta->id, text, 34);
    meta->id_size = 34;
}

enum pen_kind probe_test_record(const struct probe *probe, struct buf *out)
{
    static const char text[] = "Penstock's test record, sent by check --send-test-record: it means nothing";
    struct pen_record record = { .raw = PEN_SPAN(text), .source = PEN_SPAN("check"), .trouble = "a test record" };
    struct event_meta meta = { .source = PEN_SPAN("check"), .record = &record, .parser = "unknown",
                               .received_ticks = (int64_t)time(NULL) * 10000000 };
    struct pen_out *made = out_new(nobody_takes, NULL);
    struct pen_event *event;
    enum pen_kind kind = test_kind(probe->kinds);

    test_id(&meta);
    out_begin(made, 0);
    event = pen_out_event(made, kind);
    pen_set_text(event, PEN_EVENT_VENDOR, PEN_SPAN("Penstock"));
    pen_set_text(event, PEN_EVENT_PRODUCT, PEN_SPAN("Penstock"));
    pen_set_text(event, PEN_EVENT_MESSAGE, PEN_SPAN(text));
    pen_set_text(event, PEN_RAW_TEXT, PEN_SPAN(text));
    pen_set_text(event, PEN_TROUBLE, PEN_SPAN("a test record"));
    (void)schema_find(probe->schema)->write(event, &meta, out, NULL);
    out_free(made);
    return kind;
}
