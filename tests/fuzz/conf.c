/*
 * conf.c - any file as a configuration: it is read and printed, or refused in sentences that a terminal can show; and what
 * was printed reads back as it was.
 */
#include "tests/fuzz/fuzz.h"

#include "daemon/base/buf.h"
#include "daemon/config/settings.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static void on_mistake(void *arg, const char *file, unsigned line, const char *sentence)
{
    (void)file;
    (void)line;
    assert(sentence[0] != '\0' && judge_line((struct pen_span){ sentence, strlen(sentence) }, true));
    ++*(unsigned *)arg;
}

/* The whole file as `check` prints it. Pairs are what a file may say as it likes, secrets are hidden: those read back otherwise. */
static void print(const struct settings *settings, FILE *out)
{
    const struct pen_option *tables[2] = { daemon_options };

    conf_print(conf_section(settings->conf, CONF_DAEMON, 0), tables, 1, out);
    for (unsigned i = 0; i < settings->source_count; i++) {
        tables[0] = source_options;
        tables[1] = settings->sources[i].type->options;
        conf_print(settings->sources[i].section, tables, 2, out);
    }
    for (unsigned i = 0; i < settings->sink_count; i++) {
        tables[0] = sink_options;
        tables[1] = settings->sinks[i].type->options;
        conf_print(settings->sinks[i].section, tables, 2, out);
    }
}

static struct pen_span printed(struct pen_span text, unsigned *mistakes)
{
    struct settings *settings = NULL;
    struct pen_error err = { 0 };
    struct pen_span out = { 0 };
    char path[32];
    FILE *file;

    (void)fuzz_file(text, path);
    if (settings_read(&settings, path, on_mistake, mistakes, &err) < 0) {
        assert(*mistakes > 0 || err.text[0] != '\0');
        assert(judge_line((struct pen_span){ err.text, strlen(err.text) }, true));
        return out;
    }
    assert(*mistakes == 0 && settings->source_count > 0 && settings->sink_count > 0);
    file = open_memstream((char **)&out.data, &out.size);
    assert(file != NULL);
    print(settings, file);
    fclose(file);
    settings_free(settings);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned mistakes = 0;
    struct pen_span first, second;

    setenv("CREDENTIALS_DIRECTORY", "/run/credentials", 1);
    setenv("FUZZ", "${FUZZ}", 1);
    first = printed((struct pen_span){ (const char *)data, size }, &mistakes);
    if (first.size > 0) {
        second = printed(first, &mistakes);
        assert(mistakes == 0);
        assert(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
        free((char *)second.data);
    }
    free((char *)first.data);
    return 0;
}
