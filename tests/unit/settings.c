/* Promise: a reload finds what changed and nothing else: sections by what takes effect, secrets by what lies in their files. */
#include "daemon/config/settings.h"
#include "daemon/record/work.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- Fakes: a source and two sinks that are nothing but rows ---- */

struct fake {
    char *place, *password_file, *secret_file, *ca_file;
    struct pen_pairs pairs;
};

static const struct pen_option fake_options[] = {
    { "place", PEN_TEXT, offsetof(struct fake, place), .help = "Where." },
    { "password_file", PEN_SECRET_FILE, offsetof(struct fake, password_file), .help = "Read once." },
    { "secret_file", PEN_SECRET_FILE, offsetof(struct fake, secret_file), .help = "Read for every token." },
    { "ca_file", PEN_PATH, offsetof(struct fake, ca_file), .help = "Certificates." },
    { "kafka.", PEN_PAIRS, offsetof(struct fake, pairs), .help = "Passed through." },
    { 0 }
};
static const char *const schemas[] = { "asim", "raw", NULL };
static const struct source_type fake_source = { .name = "file", .options = fake_options };
static const struct pen_sink fake_sink = { .name = "sentinel", .options = fake_options, .schemas = schemas };
static const struct pen_sink other_sink = { .name = "kafka", .options = fake_options, .schemas = schemas };

const struct source_type *const source_types[] = { &fake_source, NULL };
const struct pen_sink *const sink_types[] = { &fake_sink, &other_sink, NULL };
const struct pen_parser *const builtin_parsers[] = { NULL };

/* ---- A file of given text ---- */

static char path[64], secret[80];

static int setup(void **state)
{
    (void)state;
    strcpy(path, "/tmp/penstock-settings-XXXXXX");
    close(mkstemp(path));
    (void)snprintf(secret, sizeof(secret), "%s.secret", path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)unlink(secret);
    return unlink(path);
}

static void put(const char *file, const char *text)
{
    FILE *out = fopen(file, "w");

    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

static struct settings *settings_of(const char *daemon, const char *source, const char *sink)
{
    struct settings *settings = NULL;
    struct pen_error err = { 0 };
    char text[4096];

    (void)snprintf(text, sizeof(text), "[daemon]\n%s\n[source a]\ntype = file\n%s\n[sink s]\n%s\n", daemon, source, sink);
    put(path, text);
    assert_int_equal(settings_read(&settings, path, NULL, NULL, &err), 0);
    return settings;
}

static enum settings_change sink_change(const char *old, const char *new)
{
    struct settings *before = settings_of("", "", old), *after = settings_of("", "", new);
    struct settings_print print;
    enum settings_change change;

    settings_print_files(&print, before->sinks[0].section, fake_options);
    change = settings_compare_sink(&before->sinks[0], &print, &after->sinks[0]);
    settings_free(before);
    settings_free(after);
    return change;
}

static enum settings_change source_change(const char *old, const char *new)
{
    struct settings *before = settings_of("", old, "type = kafka"), *after = settings_of("", new, "type = kafka");
    struct settings_print print;
    enum settings_change change;

    settings_print_files(&print, before->sources[0].section, fake_options);
    change = settings_compare_source(&before->sources[0], &print, &after->sources[0]);
    settings_free(before);
    settings_free(after);
    return change;
}

/* ---- The promise ---- */

static void test_sections(void **state)
{
    (void)state;
    setenv("PENSTOCK_PLACE", "here", 1);
    assert_int_equal(source_change("place = here", "place = here"), SETTINGS_SAME);
    assert_int_equal(source_change("place = here\nkafka.a = 1", "# new\nkafka.a = 1\nplace = ${PENSTOCK_PLACE}"), SETTINGS_SAME);
    assert_int_equal(source_change("place = here", "place = there"), SETTINGS_CHANGED);
    assert_int_equal(source_change("place = here", ""), SETTINGS_CHANGED);
    assert_int_equal(source_change("kafka.a = 1", "kafka.a = 1\nkafka.b = 2"), SETTINGS_CHANGED);
    unsetenv("PENSTOCK_PLACE");
}

/* What is the daemon's alone leaves the far end in peace. */
static void test_sinks(void **state)
{
    (void)state;
    assert_int_equal(sink_change("type = kafka\nflush = 1s", "flush = 1s\ntype = kafka"), SETTINGS_SAME);
    assert_int_equal(sink_change("type = kafka\nflush = 1s", "type = kafka\nflush = 2s"), SETTINGS_ROWS);
    assert_int_equal(sink_change("type = kafka", "type = kafka\nsources = a\nevents = audit"), SETTINGS_ROWS);
    assert_int_equal(sink_change("type = kafka", "type = kafka\nschema = asim"), SETTINGS_ROWS);       /* what it had anyway */
    assert_int_equal(sink_change("type = kafka", "type = kafka\nschema = raw"), SETTINGS_CHANGED);
    assert_int_equal(sink_change("type = kafka", "type = sentinel"), SETTINGS_CHANGED);
    assert_int_equal(sink_change("type = kafka", "type = kafka\nplace = x"), SETTINGS_CHANGED);
}

/* True: what lies in the file of this row is another between opening and reload, and that is a change. */
static bool file_counts(const char *row)
{
    struct settings *settings;
    struct settings_print before, after;
    char text[256];

    (void)snprintf(text, sizeof(text), "type = kafka\n%s = %s", row, secret);
    put(secret, "one");
    settings = settings_of("", "", text);
    settings_print_files(&before, settings->sinks[0].section, fake_options);
    settings_print_files(&after, settings->sinks[0].section, fake_options);
    assert_true(settings_prints_agree(&before, &after));
    put(secret, "two");
    settings_print_files(&after, settings->sinks[0].section, fake_options);
    settings_free(settings);
    return !settings_prints_agree(&before, &after);
}

static void test_files(void **state)
{
    (void)state;
    assert_true(file_counts("password_file"));
    assert_true(file_counts("ca_file"));
    assert_false(file_counts("secret_file"));
}

/* A file that is not there, a folder, a pipe nobody writes to: none of them may hold us up. */
static void test_files_that_are_none(void **state)
{
    struct settings_print one, two;
    struct settings *settings;
    char text[256];

    (void)state;
    (void)snprintf(text, sizeof(text), "type = kafka\npassword_file = %s\nca_file = /tmp", secret);
    settings = settings_of("", "", text);
    settings_print_files(&one, settings->sinks[0].section, fake_options);
    assert_int_equal(mkfifo(secret, 0600), 0);
    settings_print_files(&two, settings->sinks[0].section, fake_options);
    assert_true(settings_prints_agree(&one, &two));
    settings_free(settings);
}

static void test_what_a_restart_is_for(void **state)
{
    static const struct {
        const char *old, *new, *key;
    } cases[] = {
        { "memory = 64M\nlisten = 127.0.0.1:0", "memory = 80M\nlog_level = debug\nstop_wait = 1s", NULL },
        { "", "state_dir = /var/lib/penstock", NULL },
        { "", "state_dir = /var/lib/other", "state_dir" },
        { "", "workers = 3", "workers" },
        { "", "plugin_dir = /usr/lib/penstock/parsers", "plugin_dir" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct settings *old = settings_of(cases[i].old, "", "type = kafka"), *new = settings_of(cases[i].new, "", "type = kafka");
        const char *key = settings_fixed(old, new);

        if (cases[i].key == NULL)
            assert_null(key);
        else
            assert_string_equal(key, cases[i].key);
        settings_free(old);
        settings_free(new);
    }
}

static void test_the_last_who_holds_them_frees_them(void **state)
{
    struct settings *settings = settings_of("", "", "type = kafka");

    (void)state;
    assert_ptr_equal(settings_share(settings), settings);
    settings_free(settings);
    assert_string_equal(settings->sinks[0].name, "s");
    settings_free(settings);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_sections), TEST(test_sinks), TEST(test_files), TEST(test_files_that_are_none), TEST(test_what_a_restart_is_for),
        TEST(test_the_last_who_holds_them_frees_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
