/*
 * status_view.c - see status_view.h.
 *
 *     penstock 0.1.0, up 3 d, ready; memory 19M of 64M, flow open
 *
 *     SOURCE    TYPE        STATE    READ    RATE   NEWEST   BEHIND
 *     activity  file        reading  103K   220/s      40s        0
 *
 *     SINK      TYPE      STATE       DELIVERED    RATE    HELD  ON DISK     SPOOL     DEAD
 *     siem      kafka     away            1.02M     0/s     120    1.20M  1.3G of 4G      0
 *       siem: nothing delivered for 2h; last answer: the brokers have not answered in time; next try in 41s
 *       siem: dead letters: see `penstock dead list siem`
 *       sentinel: arrived: all of 241033 rows
 *
 * Then, where there are any, the reasons why the daemon is not ready.
 */
#include "daemon/status/status_view.h"

#include "daemon/base/log.h"

#include <inttypes.h>
#include <stdio.h>

#define NAME_WIDTH_MAX 28
#define STALLED_MS 10000

struct view {
    const struct pen_json *now, *before;
    bool colour, rates;
    double seconds;                  /* between the two answers */
    struct buf *out;
};

/* ---- Words ---- */

enum paint { PAINT_NONE, PAINT_HEAD, PAINT_SOFT, PAINT_OK, PAINT_WARN, PAINT_BAD };

static void view_paint(struct view *view, enum paint paint)
{
    static const char *const codes[] = { "0", "1", "2", "32", "33", "31;1" };

    if (view->colour)
        buf_text(view->out, "\033[%sm", codes[paint]);
}

static enum paint mood_paint(struct pen_span mood)
{
    return pen_span_is(mood, "ok") ? PAINT_OK : pen_span_is(mood, "warn") ? PAINT_WARN
        : pen_span_is(mood, "bad") ? PAINT_BAD : PAINT_SOFT;
}

/* Characters written. What is none, or would steer the terminal, becomes '?'. */
static size_t view_text(struct view *view, struct pen_span text, size_t most)
{
    size_t written = 0, step;

    for (size_t i = 0; i < text.size && written < most; i += step, written++) {
        step = log_character(text.data + i, text.size - i);
        if (step > 0)
            buf_add(view->out, text.data + i, step);
        else
            buf_char(view->out, '?');
        step = step > 0 ? step : 1;
    }
    return written;
}

static void view_space(struct view *view, size_t count)
{
    while (count-- > 0)
        buf_char(view->out, ' ');
}

static void view_left(struct view *view, struct pen_span text, size_t width)
{
    size_t written = view_text(view, text, width);

    view_space(view, width - written + 2);
}

static void view_right(struct view *view, const char *text, size_t width)
{
    size_t size = strlen(text);

    view_space(view, size < width ? width - size : 0);
    buf_add(view->out, text, size);
    view_space(view, 2);
}

/* ---- Numbers ---- */

struct word {
    char text[40];
};

static struct word scaled(double value, double step, const char *units)
{
    struct word word;

    while (value >= step * 0.9995 && units[1] != '\0') {
        value /= step;
        units++;
    }
    (void)snprintf(word.text, sizeof(word.text), *units == ' ' ? "%.0f" : value < 10 ? "%.2f%c" : value < 100 ? "%.1f%c" : "%.0f%c",
                   value, *units);
    return word;
}

static struct word brief(double value)
{
    return value < 10000 ? scaled(value, 10000, " ") : scaled(value, 1000, " KMGT");
}

static struct word bytes(double value)
{
    return scaled(value, 1024, " KMGT");
}

static struct word span(double ms)
{
    double s = ms / 1000;
    struct word word;

    if (s < 90)
        (void)snprintf(word.text, sizeof(word.text), "%.0fs", s);
    else if (s < 5400)
        (void)snprintf(word.text, sizeof(word.text), "%.0fmin", s / 60);
    else if (s < 172800)
        (void)snprintf(word.text, sizeof(word.text), "%.0fh", s / 3600);
    else
        (void)snprintf(word.text, sizeof(word.text), "%.0fd", s / 86400);
    return word;
}

static double number(const struct pen_json *object, const char *key)
{
    const struct pen_json member = pen_json_get(object, key);
    double value = 0;

    (void)pen_json_real(&member, &value);
    return value;
}

/* From a time in `object` to the answer's own, none where it lies ahead (some clock does); negative: there is no such time. */
static double age_ms(const struct view *view, const struct pen_json *object, const char *key)
{
    int64_t then, now;

    if (!pen_time_read(pen_json_text(object, key), &then) || !pen_time_read(pen_json_text(view->now, "now"), &now))
        return -1;
    return now > then ? (double)(now - then) / 10000 : 0;
}

/* The same thing in the answer before, or missing. */
static struct pen_json before_of(const struct view *view, const char *list, struct pen_span name)
{
    struct pen_json found = { 0 }, all;
    struct pen_json_iter it;

    if (view->before == NULL || name.size == 0)
        return found;
    all = pen_json_get(view->before, list);
    for (it = pen_json_each(&all); pen_json_next(&it);) {
        struct pen_span other = pen_json_text(&it.value, "name");

        if (other.size == name.size && memcmp(other.data, name.data, name.size) == 0)
            return it.value;
    }
    return found;
}

static void view_rate(struct view *view, const char *list, const struct pen_json *thing, const char *key)
{
    struct pen_json before = before_of(view, list, pen_json_text(thing, "name"));
    double grown = number(thing, key) - number(&before, key);
    struct word word = { "-" };

    if (!view->rates)
        return;
    if (pen_json_type(&before) == PEN_JSON_OBJECT && view->seconds > 0 && grown >= 0) {
        word = brief(grown / view->seconds);
        strcat(word.text, "/s");
    }
    view_right(view, word.text, 8);
}

/* ---- Lines ---- */

static size_t name_width(const struct pen_json *list)
{
    struct pen_json_iter it;
    size_t width = 8;

    for (it = pen_json_each(list); pen_json_next(&it);)
        if (pen_json_text(&it.value, "name").size > width)
            width = pen_json_text(&it.value, "name").size;
    return width < NAME_WIDTH_MAX ? width : NAME_WIDTH_MAX;
}

/* Name, type and state: how every line begins. */
static void view_begin(struct view *view, const struct pen_json *thing, size_t width)
{
    view_left(view, pen_json_text(thing, "name"), width);
    view_left(view, pen_json_text(thing, "type"), 10);
    view_paint(view, mood_paint(pen_json_text(thing, "mood")));
    view_left(view, pen_json_text(thing, "state"), 18);
    view_paint(view, PAINT_NONE);
}

static void view_titles(struct view *view, const char *what, size_t width, const char *const *titles, const size_t *widths)
{
    view_paint(view, PAINT_HEAD);
    view_left(view, (struct pen_span){ what, strlen(what) }, width);
    view_left(view, PEN_SPAN("TYPE"), 10);
    view_left(view, PEN_SPAN("STATE"), 18);
    for (size_t i = 0; titles[i] != NULL; i++)
        if (view->rates || strcmp(titles[i], "RATE") != 0)
            view_right(view, titles[i], widths[i]);
    view_paint(view, PAINT_NONE);
    buf_char(view->out, '\n');
}

static void view_source(struct view *view, const struct pen_json *source, size_t width)
{
    double newest = age_ms(view, source, "newest"), behind = number(source, "behind");
    bool messages = pen_span_is(pen_json_text(source, "unit"), "messages");

    view_begin(view, source, width);
    view_right(view, brief(number(source, "read")).text, 8);
    view_rate(view, "sources", source, "read");
    view_right(view, newest < 0 ? "-" : span(newest).text, 8);
    view_right(view, (messages ? brief(behind) : bytes(behind)).text, 8);
    view_right(view, brief(number(source, "unknown")).text, 8);
    buf_char(view->out, '\n');
}

static void view_sink(struct view *view, const struct pen_json *sink, size_t width)
{
    struct word spool = bytes(number(sink, "spool_bytes")), most = bytes(number(sink, "spool_max"));
    char of[sizeof(spool.text) + sizeof(most.text) + 8];

    (void)snprintf(of, sizeof(of), "%s of %s", spool.text, most.text);
    view_begin(view, sink, width);
    view_right(view, brief(number(sink, "delivered")).text, 9);
    view_rate(view, "sinks", sink, "delivered");
    view_right(view, brief(number(sink, "held")).text, 8);
    view_right(view, brief(number(sink, "spooled")).text, 8);
    view_right(view, of, 14);
    view_right(view, brief(number(sink, "dead")).text, 6);
    buf_char(view->out, '\n');
}

static void view_remark(struct view *view, const struct pen_json *sink, enum paint paint)
{
    BUF_LITERAL(view->out, "  ");
    view_paint(view, paint);
    (void)view_text(view, pen_json_text(sink, "name"), NAME_WIDTH_MAX);
    view_paint(view, PAINT_NONE);
    BUF_LITERAL(view->out, ":");
}

/* What there is to say about a sink that is not well. */
static void view_trouble(struct view *view, const struct pen_json *sink)
{
    struct pen_span trouble = pen_json_text(sink, "trouble");
    double stalled = number(sink, "stalled_ms"), hold = number(sink, "hold_ms");

    if (trouble.size == 0 && stalled < STALLED_MS)
        return;
    view_remark(view, sink, mood_paint(pen_json_text(sink, "mood")));
    if (stalled >= STALLED_MS)
        buf_text(view->out, " nothing delivered for %s;", span(stalled).text);
    if (trouble.size > 0) {
        BUF_LITERAL(view->out, " last answer: ");
        (void)view_text(view, trouble, 300);
        BUF_LITERAL(view->out, ";");
    }
    if (hold > 0)
        buf_text(view->out, " next try in %s;", span(hold).text);
    view->out->data[view->out->size - 1] = '\n';
}

/* A line of its own, so that both fit the width of a terminal. */
static void view_letters(struct view *view, const struct pen_json *sink)
{
    if (number(sink, "dead") == 0 && number(sink, "dead_bytes") == 0)
        return;
    view_remark(view, sink, PAINT_WARN);
    BUF_LITERAL(view->out, " dead letters: see `penstock dead list ");
    (void)view_text(view, pen_json_text(sink, "name"), NAME_WIDTH_MAX);
    BUF_LITERAL(view->out, "`\n");
}

/* What the far end itself counted of what it accepted; nothing where nobody asks it. */
static void view_arrival(struct view *view, const struct pen_json *sink)
{
    double accepted = number(sink, "arrival_accepted"), unknown = number(sink, "arrival_unknown_ms");
    const struct pen_json known = pen_json_get(sink, "arrival_accepted");
    bool compared = pen_json_type(&known) != PEN_JSON_MISSING, differs = number(sink, "arrival_differs") > 0;

    if (!compared && unknown == 0)
        return;
    view_remark(view, sink, differs ? PAINT_BAD : PAINT_NONE);
    if (differs)
        buf_text(view->out, " NOT ALL ARRIVED: the DCR received %.0f of %.0f rows, dropped %.0f rows and %.0f values, and failed to "
                 "transform %.0f times; the log says more;", number(sink, "arrival_received"), accepted,
                 number(sink, "arrival_dropped"), number(sink, "arrival_columns"), number(sink, "arrival_errors"));
    else if (compared)
        buf_text(view->out, " arrived: all of %.0f rows;", accepted);
    if (unknown > 0)
        buf_text(view->out, " whether all arrived is not known for %s;", span(unknown).text);
    view->out->data[view->out->size - 1] = '\n';
}

static void view_head(struct view *view)
{
    const struct pen_json daemon = pen_json_get(view->now, "daemon"), flag = pen_json_get(view->now, "ready");
    const struct pen_json good = pen_json_get(&daemon, "config_good");
    bool ready = false, good_known = pen_json_type(&good) != PEN_JSON_MISSING;

    (void)pen_json_bool(&flag, &ready);
    view_paint(view, PAINT_HEAD);
    BUF_LITERAL(view->out, "penstock ");
    (void)view_text(view, pen_json_text(&daemon, "version"), 20);
    view_paint(view, PAINT_NONE);
    buf_text(view->out, ", up %s, ", span(age_ms(view, &daemon, "started")).text);
    view_paint(view, ready ? PAINT_OK : PAINT_BAD);
    buf_text(view->out, "%s", ready ? "ready" : "not ready");
    view_paint(view, PAINT_NONE);
    buf_text(view->out, "; memory %s", bytes(number(&daemon, "held")).text);
    buf_text(view->out, " of %s, flow ", bytes(number(&daemon, "budget")).text);
    (void)view_text(view, pen_json_text(&daemon, "flow"), 20);
    if (number(&daemon, "unsaved") > 0)
        BUF_LITERAL(view->out, "; the cursors cannot be saved");
    if (good_known && number(&daemon, "config_good") == 0)
        buf_text(view->out, "; the last reload failed, the configuration of %s ago goes on", span(age_ms(view, &daemon, "config_loaded")).text);
    BUF_LITERAL(view->out, "\n\n");
}

static void view_reasons(struct view *view)
{
    const struct pen_json reasons = pen_json_get(view->now, "reasons");
    struct pen_json_iter it;
    bool first = true;

    for (it = pen_json_each(&reasons); pen_json_next(&it); first = false) {
        if (first)
            BUF_LITERAL(view->out, "\nNot ready:\n");
        BUF_LITERAL(view->out, "  ");
        (void)view_text(view, pen_json_value(&it.value), 500);
        buf_char(view->out, '\n');
    }
}

void status_view(const struct pen_json *now, const struct pen_json *before, unsigned flags, struct buf *out)
{
    static const char *const source_titles[] = { "READ", "RATE", "NEWEST", "BEHIND", "UNKNOWN", NULL };
    static const char *const sink_titles[] = { "DELIVERED", "RATE", "HELD", "ON DISK", "SPOOL", "DEAD", NULL };
    struct view view = { .now = now, .before = before, .colour = flags & VIEW_COLOUR, .rates = flags & VIEW_RATES,
                         .out = out };
    const struct pen_json sources = pen_json_get(now, "sources"), sinks = pen_json_get(now, "sinks");
    size_t width = name_width(&sources), sinks_width = name_width(&sinks);
    struct pen_json_iter it;

    width = width > sinks_width ? width : sinks_width;
    if (before != NULL)
        view.seconds = age_ms(&view, before, "now") / 1000;
    view_head(&view);
    view_titles(&view, "SOURCE", width, source_titles, (const size_t[]){ 8, 8, 8, 8, 8 });
    for (it = pen_json_each(&sources); pen_json_next(&it);)
        view_source(&view, &it.value, width);
    buf_char(out, '\n');
    view_titles(&view, "SINK", width, sink_titles, (const size_t[]){ 9, 8, 8, 8, 14, 6 });
    for (it = pen_json_each(&sinks); pen_json_next(&it);)
        view_sink(&view, &it.value, width);
    for (it = pen_json_each(&sinks); pen_json_next(&it);) {
        view_trouble(&view, &it.value);
        view_letters(&view, &it.value);
    }
    for (it = pen_json_each(&sinks); pen_json_next(&it);)
        view_arrival(&view, &it.value);
    view_reasons(&view);
}
