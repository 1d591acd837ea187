/* dcr_command.c - `penstock dcr`: what the Sentinel sinks need in Azure, as one file to deploy. */
#include "daemon/command/commands.h"
#include "daemon/command/service.h"
#include "daemon/command/words.h"
#include "daemon/rule/template.h"

#include <getopt.h>
#include <stdio.h>
#include <strings.h>

static const char usage[] =
    "Usage: penstock dcr [-c FILE] [--sink NAME] [--bicep] [--principal ID]\n"
    "\n"
    "Prints what the Sentinel sinks of the configuration need in Azure: a data collection rule of kind Direct, with every\n"
    "column that may be sent, and the custom tables, as a template to be deployed into the workspace's resource group.\n"
    "\n"
    "Its outputs immutableId and logsIngestion are the sink's `dcr` and `endpoint`; before the first deployment, dcr- and 32\n"
    "zeros, and any address, stand in for them. README.md has the words for az.\n"
    "\n"
    "  -c, --config FILE   the configuration (default /etc/penstock/penstock.conf)\n"
    "      --sink NAME     this sink alone\n"
    "      --bicep         Bicep in place of an ARM template\n"
    "      --principal ID  also give this service principal (its object id) the role Monitoring Metrics Publisher on the rule\n"
    "  -h, --help          this text\n"
    "\n"
    "Exit: 0 printed, 1 no sink needs a rule, 2 wrong use or configuration.\n";

/* The sink's streams. The schema `raw` brings records as they are: its stream is the user's own to declare. */
static int add_sink(struct rule *rule, const struct sink_settings *sink, struct pen_error *err)
{
    const char *schema = settings_schema(sink);
    struct sentinel_target target;
    int r = sentinel_target_read(&target, sink->section, schema, err);

    if (r == 0 && schema_find(schema)->table == NULL)
        fprintf(stderr, "penstock dcr: sink %s: schema = %s sends records as they are, so that only you can know the columns of "
                "the stream %s: it is left out\n", sink->name, schema, target.streams[PEN_UNKNOWN]);
    return r < 0 ? r : rule_add(rule, sink->name, &target, schema, sink->kind_mask, err);
}

/* Streams that can be declared. */
static size_t rule_closed(const struct rule *rule)
{
    size_t count = 0;

    for (size_t i = 0; i < rule->count; i++)
        count += !rule->streams[i]->open;
    return count;
}

static int add_sinks(struct rule *rule, const struct settings *settings, const char *name, struct pen_error *err)
{
    const struct sink_settings *sink;
    bool known = name == NULL;
    int r = 0;

    for (unsigned i = 0; i < settings->sink_count && r == 0; i++) {
        sink = &settings->sinks[i];
        if (name != NULL && strcmp(sink->name, name) != 0)
            continue;
        known = true;
        if (sink->type == &sentinel_sink)
            r = add_sink(rule, sink, err);
    }
    if (!known)
        r = pen_error_set(err, UV_EINVAL, "there is no sink %.64s in the configuration", name);
    return r;
}

/* Names of streams have characters that those of tables do not: two may end in one, which would be declared twice. */
static int check_tables(const struct rule *rule, struct pen_error *err)
{
    const char *table, *other;

    for (size_t i = 0; i < rule->count; i++)
        for (size_t k = 0; k < i; k++) {
            table = rule->streams[i]->open ? NULL : rule_stream_table(rule->streams[i]);
            other = rule->streams[k]->open ? NULL : rule_stream_table(rule->streams[k]);
            if (table != NULL && other != NULL && strcasecmp(table, other) == 0)
                return pen_error_set(err, UV_EINVAL, "the streams %.128s and %.128s would end in one table, %.128s: name one of them "
                                     "otherwise", rule->streams[k]->name, rule->streams[i]->name, table);
        }
    return 0;
}

static int print(const struct settings *settings, const char *sink, enum template_form form, const char *principal)
{
    struct rule rule = { 0 };
    struct pen_error err = { 0 };
    struct buf text = { 0 };
    int status = 0;

    if (add_sinks(&rule, settings, sink, &err) < 0 || check_tables(&rule, &err) < 0) {
        fprintf(stderr, "penstock dcr: %s\n", err.text);
        status = 2;
    } else if (rule_closed(&rule) == 0) {
        fputs("penstock dcr: no sink of type sentinel needs a rule here\n", stderr);
        status = 1;
    } else {
        template_write(&text, form, &rule, principal);
        (void)fwrite(text.data, 1, text.size, stdout);
    }
    buf_free(&text);
    rule_free(&rule);
    return status;
}

int command_dcr(int argc, char **argv)
{
    const char *path = "/etc/penstock/penstock.conf", *sink = NULL, *principal = NULL;
    bool bicep = false;
    const struct word words[] = {
        { "config", 'c', &path, NULL }, { "sink", '\0', &sink, NULL }, { "bicep", '\0', NULL, &bicep },
        { "principal", '\0', &principal, NULL }, { 0 },
    };
    struct settings *settings;
    struct pen_error err = { 0 };
    int status;

    status = words_read(argc, argv, words, usage);
    if (status >= 0)
        return status;
    if (optind < argc) {
        fprintf(stderr, "penstock dcr: there is nothing to do with \"%s\"\n%s", argv[optind], usage);
        return 2;
    }
    if (principal != NULL && !pen_guid_valid((struct pen_span){ principal, strlen(principal) })) {
        fputs("penstock dcr: --principal: expected the object id of a service principal or managed identity, a GUID\n", stderr);
        return 2;
    }
    if (settings_read(&settings, path, service_report, NULL, &err) < 0) {
        fprintf(stderr, "penstock dcr: %s\n", err.text);
        return 2;
    }
    status = print(settings, sink, bicep ? TEMPLATE_BICEP : TEMPLATE_ARM, principal);
    settings_free(settings);
    return status;
}
