/*
 * rule.c - whatever Azure Resource Manager answers for a data collection rule: the comparison ends, and each finding is a
 * sentence of bounded length that steers no terminal. A rule that declares all is told of as good, one stream at a time.
 */
#include "tests/fuzz/fuzz.h"

#include "daemon/rule/rule.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static size_t told;

static void on_finding(void *arg, enum finding finding, const char *sentence)
{
    struct pen_span text = { sentence, strlen(sentence) };

    (void)arg;
    assert(finding <= FINDING_WRONG && text.size > 0 && text.size < 2048 && judge_line(text, false));
    told++;
}

/* Two schemas, and a stream whose columns nobody can list. */
static void rule_make(struct rule *rule, const char *schema)
{
    struct sentinel_target target = {
        .dcr = "dcr-0123456789abcdef0123456789abcdef",
        .streams = { "Custom-PenstockUnknown", "Custom-PenstockNetworkSession", "Custom-PenstockAudit", "Custom-PenstockAlert" },
    };
    struct pen_error err = { 0 };
    unsigned kinds = strcmp(schema, "raw") == 0 ? 1U << PEN_UNKNOWN : (1U << PEN_KINDS) - 1;
    int r = rule_add(rule, "any", &target, schema, kinds, &err);

    assert(r == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rule rules[3];
    static struct json *json;
    struct feed feed = feed_of(data, size);
    const struct rule *rule = &rules[feed_byte(&feed) % 3];
    struct pen_span text = feed_span(&feed, size);
    char *copy = fuzz_copy(text, JSON_PADDING);
    struct pen_json root;
    const char *why;

    if (json == NULL) {
        json = json_new();
        rule_make(&rules[0], "asim");
        rule_make(&rules[1], "ocsf");
        rule_make(&rules[2], "raw");
    }
    if (json_parse(json, copy, text.size, &root, &why) == 0) {
        told = 0;
        rule_compare(rule, &root, on_finding, NULL);
        assert(told >= 1 && told <= 1 + 4 * rule->count);
    }
    free(copy);
    json_shrink(json, 4096);
    return 0;
}
