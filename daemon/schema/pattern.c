/* pattern.c - see pattern.h. */
#include "daemon/schema/pattern.h"

#include <assert.h>

#define TEXT_MAX ((size_t)16 * 1024) /* a longer message is not worth the memory: copying is all it costs */

static bool pattern_fits(const struct pattern *pattern, const struct pen_event *event, uint32_t shape)
{
    return pattern->version == event->version && pattern->shape == shape && pattern->extra_count == event->extra_count &&
           memcmp(pattern->set, event->set, sizeof(event->set)) == 0 &&
           memcmp(pattern->moved, event->moved, sizeof(event->moved)) == 0;
}

static struct pattern *patterns_find(struct patterns *patterns, const struct pen_event *event, uint32_t shape)
{
    for (uint32_t i = 0; i < PATTERNS; i++) {
        uint32_t at = (patterns->last + i) % PATTERNS;

        if (pattern_fits(&patterns->patterns[at], event, shape)) {
            patterns->last = at;
            return &patterns->patterns[at];
        }
    }
    return NULL;
}

static struct pattern *patterns_begin(struct patterns *patterns, const struct pen_event *event, uint32_t shape,
                                      const struct buf *out)
{
    struct pattern *pattern = &patterns->patterns[patterns->next];

    patterns->last = patterns->next;
    patterns->next = (patterns->next + 1) % PATTERNS;
    pattern->version = event->version;
    memcpy(pattern->set, event->set, sizeof(event->set));
    memcpy(pattern->moved, event->moved, sizeof(event->moved));
    pattern->extra_count = event->extra_count;
    pattern->shape = shape;
    pattern->refused = false;
    pattern->hole_count = 0;
    pattern->text.size = 0;
    pattern->copied = out->size;
    return pattern;
}

static void pattern_take(struct pattern *pattern, const struct buf *out, size_t end)
{
    if (pattern->refused)
        return;
    assert(end >= pattern->copied && end <= out->size);
    if (pattern->text.size + (end - pattern->copied) > TEXT_MAX)
        pattern->refused = true;
    else
        buf_add(&pattern->text, out->data + pattern->copied, end - pattern->copied);
}

void pattern_hole(struct pattern *pattern, uint32_t what, size_t start, const struct buf *out)
{
    if (pattern == NULL || pattern->refused)
        return;
    pattern_take(pattern, out, start);
    if (pattern->hole_count == PATTERN_HOLES) {
        pattern->refused = true;
        return;
    }
    pattern->holes[pattern->hole_count++] = (struct hole){ .at = (uint32_t)pattern->text.size, .what = what };
    pattern->copied = out->size;
}

uint32_t patterns_write(struct patterns *patterns, const struct schema *schema, const struct pen_event *event,
                        const struct event_meta *meta, struct buf *out)
{
    struct pattern *pattern;
    size_t start = out->size;
    uint32_t cut, shape;

    if (schema->fill == NULL || !event->emitted)
        return schema->write(event, meta, out, NULL);
    shape = schema->shape != NULL ? schema->shape(event) : 0;
    pattern = patterns_find(patterns, event, shape);
    if (pattern != NULL) {
        if (!pattern->refused && schema->fill(pattern, event, meta, out))
            return 0;
        out->size = start;
        return schema->write(event, meta, out, NULL);
    }
    pattern = patterns_begin(patterns, event, shape, out);
    cut = schema->write(event, meta, out, pattern);
    pattern_take(pattern, out, out->size);
    buf_reserve(&pattern->text, PATTERN_STEP);
    pattern->refused |= cut > 0;
    return cut;
}

void patterns_free(struct patterns *patterns)
{
    for (uint32_t i = 0; i < PATTERNS; i++)
        buf_free(&patterns->patterns[i].text);
}

size_t patterns_held(const struct patterns *patterns)
{
    size_t held = 0;

    for (uint32_t i = 0; i < PATTERNS; i++)
        held += patterns->patterns[i].text.capacity;
    return held;
}
