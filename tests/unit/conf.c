/* Promise: a configuration is understood as written, or each mistake in it is named with its line, what was expected and
 * the nearest valid word; no value that may be a secret is ever shown. */
#include "daemon/config/conf.h"
#include "daemon/config/settings.h"
#include "daemon/record/work.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

/* ---- Fakes: a source and a sink that are nothing but rows ---- */

struct fake {
    char *endpoint, *folder, *secret, *text;
    bool on;
    int64_t number;
    uint64_t size;
    uint32_t time_ms;
    int color;
    struct pen_list list;
    struct pen_pairs pairs;
};

static const char *const colors[] = { "red", "green", "blue", NULL };
static const struct pen_option fake_options[] = {
    { "endpoint", PEN_URL, offsetof(struct fake, endpoint), .required = true, .help = "Where to post." },
    { "folder", PEN_PATH, offsetof(struct fake, folder), .help = "A folder." },
    { "secret_file", PEN_SECRET_FILE, offsetof(struct fake, secret), .help = "A secret." },
    { "text", PEN_TEXT, offsetof(struct fake, text), .fallback = "plain", .help = "A text." },
    { "on", PEN_BOOL, offsetof(struct fake, on), .fallback = "yes", .help = "A switch." },
    { "number", PEN_INT, offsetof(struct fake, number), .fallback = "7", .min = -5, .max = 10, .help = "A number." },
    { "size", PEN_BYTES, offsetof(struct fake, size), .fallback = "64M", .min = 1024, .max = INT64_C(1) << 40,
      .help = "A size." },
    { "time", PEN_MS, offsetof(struct fake, time_ms), .fallback = "30s", .min = 10, .max = 3600000, .help = "A time." },
    { "color", PEN_CHOICE, offsetof(struct fake, color), .fallback = "green", .choices = colors, .help = "A color." },
    { "list", PEN_LIST, offsetof(struct fake, list), .fallback = "a, b", .help = "A list." },
    { "kafka.", PEN_PAIRS, offsetof(struct fake, pairs), .help = "Passed through." },
    { 0 }
};
static const char *const fake_schemas[] = { "asim", "raw", NULL };
static const struct source_type fake_source = { .name = "file" };
static const struct pen_sink fake_sink = { .name = "sentinel", .options = fake_options, .schemas = fake_schemas };
static const struct pen_parser fake_parser = { .name = "nsg-flow" };

const struct source_type *const source_types[] = { &fake_source, NULL };
const struct pen_sink *const sink_types[] = { &fake_sink, NULL };
const struct pen_parser *const builtin_parsers[] = { &fake_parser, NULL };

/* ---- A file of given bytes, and the mistakes found in it ---- */

static char path[64];
static char mistakes[65536];         /* "LINE: sentence\n" each */

static void on_mistake(void *arg, const char *file, unsigned line, const char *sentence)
{
    size_t size = strlen(mistakes);

    assert_string_equal(arg, "arg");
    assert_string_equal(file, path);
    (void)snprintf(mistakes + size, sizeof(mistakes) - size, "%u: %s\n", line, sentence);
}

static int setup(void **state)
{
    int fd;

    (void)state;
    (void)strcpy(path, "/tmp/penstock-conf-XXXXXX");
    fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

static void put(const char *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_TRUNC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    assert_int_equal(close(fd), 0);
    mistakes[0] = '\0';
}

static struct conf *read_bytes(const char *data, size_t size)
{
    struct pen_error err = { 0 };
    struct conf *conf = NULL;

    put(data, size);
    assert_int_equal(conf_read(&conf, path, on_mistake, (void *)"arg", &err), 0);
    return conf;
}

static struct conf *read_text(const char *text)
{
    return read_bytes(text, strlen(text));
}

/* ---- Lines ---- */

static void test_lines(void **state)
{
    static const struct {
        const char *text, *mistakes;
    } cases[] = {
        { "", "" },
        { "\n\n# c\n; c\n   # c\n\t\n", "" },
        { "[daemon]\nmemory = 64M\n", "" },
        { "[daemon]\r\nmemory = 64M\r\n", "" },
        { "\xef\xbb\xbf[daemon]\nmemory=64M", "" },
        { "\xef\xbb\xbf# c\n  [ source \t a ]  \n  key  =  value\n", "" },
        { "[daemon]\nk = a#b;c\n", "" },
        { "[daemon]\nk =\n", "" },
        { "[daemon]\nnonsense\n", "2: expected a [section], a comment or \"key = value\"\n" },
        { "[daemon]\nx = 1\n\nnonsense", "4: expected a [section], a comment or \"key = value\"\n" },
        { "[daemon]\na\nb\n", "2: expected a [section], a comment or \"key = value\"\n"
                              "3: expected a [section], a comment or \"key = value\"\n" },
        { "k = v\n", "1: expected a [section] before \"k\"\n" },
        { "[daemon]\n= v\n", "2: expected a key of letters, digits, '.', '_' and '-', at most 64\n" },
        { "[daemon]\nk y = v\n", "2: expected a key of letters, digits, '.', '_' and '-', at most 64\n" },
        { "[daemon]\nk = \"v\"\n", "2: expected the value of \"k\" without quotes\n" },
        { "[daemon]\nk = v # c\n", "2: expected no '#' behind a blank; a comment needs a line of its own\n" },
        { "[daemon]\nk = v\t;c\n", "2: expected no ';' behind a blank; a comment needs a line of its own\n" },
        { "[daemon]\nk =# c\nl:;c\n",
          "2: expected a value of \"k\" that does not begin with '#'; a comment needs a line of its own\n"
          "3: expected a value of \"l\" that does not begin with ';'; a comment needs a line of its own\n" },
        { "[daemon] # c\n", "1: expected nothing behind ']'; a comment needs a line of its own\n" },
        { "[daemon\nk = v\n", "1: expected ']' at the end of the section's name\n" },
        { "[daemon x]\n", "1: expected [daemon], which has no name\n" },
        { "[]\n", "1: expected [daemon], [source NAME] or [sink NAME]\n" },
        { "[souce a]\nk = v\n", "1: expected [daemon], [source NAME] or [sink NAME]; did you mean \"source\"?\n" },
        { "[source]\n", "1: expected [source NAME], its name made of letters, digits, '.', '_' and '-', at most 64\n" },
        { "[sink a b]\n", "1: expected [sink NAME], its name made of letters, digits, '.', '_' and '-', at most 64\n" },
        { "[sink ../x]\n", "1: expected [sink NAME], its name made of letters, digits, '.', '_' and '-', at most 64\n" },
        { "[sink a]\n[source a]\n[sink a]\nk = v\n", "3: [sink a] is there already, on line 1\n" },
        { "[daemon]\nk = 1\n[sink a]\nk = 1\nk = 2\n", "5: \"k\" is set already, on line 4\n" },
        { "[daemon]\n[daemon]\n", "2: [daemon] is there already, on line 1\n" },
        { "[daemon]\nk = \x1b[31m\n", "2: the line holds control characters\n" },
        { "[daemon]\nk = \xc2\x9b" "31m\n", "2: the line holds control characters\n" },
        { "[daemon]\nk = \xc2\xa0\xc3\x9f\n", "" },
        { "[daemon]\nk = a\rb\n", "2: the line holds control characters\n" },
        { "[daemon]\n  continued = no\n  multi\n", "3: expected a [section], a comment or \"key = value\"\n" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct conf *conf = read_text(cases[i].text);

        assert_string_equal(mistakes, cases[i].mistakes);
        conf_free(conf);
    }
}

static void test_nul(void **state)
{
    struct conf *conf = read_bytes("[daemon]\nk = \0v\nl = w\n", 22);

    (void)state;
    assert_string_equal(mistakes, "2: the line holds control characters; is the file UTF-16? It must be UTF-8\n");
    assert_string_equal(conf_value(conf_section(conf, CONF_DAEMON, 0), "l"), "w");
    conf_free(conf);
}

static void test_long_lines(void **state)
{
    size_t size = CONF_LINE_MAX + 64;
    char *text = malloc(size);
    struct conf *conf;

    (void)state;
    memset(text, 'x', size);
    memcpy(text, "[daemon]\nk = ", 13);
    text[9 + CONF_LINE_MAX] = '\n';          /* exactly the longest line */
    memcpy(text + 10 + CONF_LINE_MAX, "l=w\n", 4);
    conf = read_bytes(text, 14 + CONF_LINE_MAX);
    assert_string_equal(mistakes, "");
    assert_int_equal(strlen(conf_value(conf_section(conf, CONF_DAEMON, 0), "k")), CONF_LINE_MAX - 4);
    assert_string_equal(conf_value(conf_section(conf, CONF_DAEMON, 0), "l"), "w");
    conf_free(conf);

    text[9 + CONF_LINE_MAX] = 'x';
    text[10 + CONF_LINE_MAX] = '\n';
    conf = read_bytes(text, 11 + CONF_LINE_MAX);
    assert_string_equal(mistakes, "2: the line is longer than 8192 bytes\n");
    assert_null(conf_value(conf_section(conf, CONF_DAEMON, 0), "k"));
    conf_free(conf);
    free(text);
}

/* inih would cut both at 50. */
static void test_long_names(void **state)
{
    static const char name[] = "n123456789012345678901234567890123456789012345678901234567890123";
    char text[512];
    struct conf *conf;

    (void)state;
    assert_int_equal(strlen(name), 64);
    (void)snprintf(text, sizeof(text), "[source %s]\n%s = v\n[source %sx]\n", name, name, name);
    conf = read_text(text);
    assert_string_equal(mistakes,
                        "3: expected [source NAME], its name made of letters, digits, '.', '_' and '-', at most 64\n");
    assert_string_equal(pen_conf_name(conf_section(conf, CONF_SOURCE, 0)), name);
    assert_string_equal(conf_value(conf_section(conf, CONF_SOURCE, 0), name), "v");
    assert_null(conf_section(conf, CONF_SOURCE, 1));
    conf_free(conf);
}

static void test_unreadable(void **state)
{
    struct pen_error err = { 0 };
    struct conf *conf = NULL;
    char *big;

    (void)state;
    assert_int_equal(conf_read(&conf, "/nowhere/x.conf", NULL, NULL, &err), UV_ENOENT);
    assert_string_equal(err.text, "cannot open /nowhere/x.conf: No such file or directory");
    assert_int_equal(conf_read(&conf, "/", NULL, NULL, &err), UV_EINVAL);
    big = calloc(1, CONF_FILE_MAX + 1);
    memset(big, '\n', CONF_FILE_MAX + 1);
    put(big, CONF_FILE_MAX + 1);
    free(big);
    assert_int_equal(conf_read(&conf, path, NULL, NULL, &err), UV_EFBIG);
    assert_null(conf);
}

/* Whatever the bytes: an answer, no crash. The seed is fixed; sanitizers do the rest. */
static void test_noise(void **state)
{
    static const char alphabet[] = "[]=:;# \t\n\r\"'${}abcsourcedaemonsink\0\x80\xef\xbb\xbf.";
    char text[256];
    uint32_t word = 1;

    (void)state;
    for (unsigned run = 0; run < 2000; run++) {
        size_t size = run % sizeof(text);

        for (size_t i = 0; i < size; i++) {
            word = word * 1664525 + 1013904223;
            text[i] = alphabet[(word >> 16) % (sizeof(alphabet) - 1)];
        }
        conf_free(read_bytes(text, size));
    }
}

/* ---- ${ENV} ---- */

static void test_environment(void **state)
{
    static const struct {
        const char *written, *value, *mistakes;
    } cases[] = {
        { "a${PEN_A}b${PEN_A}", "aonebone", "" },
        { "$${PEN_A} $5 $", "${PEN_A} $5 $", "" },
        { "${PEN_EMPTY}", "", "" },
        { "${PEN_NESTED}", "${PEN_A}", "" },
        { "x${PEN_NOT}", NULL, "2: the environment variable PEN_NOT is not set\n" },
        { "${PEN_A", NULL, "2: expected ${NAME} with the name of an environment variable; a plain \"${\" is written $${\n" },
        { "${}", NULL, "2: expected ${NAME} with the name of an environment variable; a plain \"${\" is written $${\n" },
        { "${1}", NULL, "2: expected ${NAME} with the name of an environment variable; a plain \"${\" is written $${\n" },
        { "${PEN_LINES}", NULL, "2: the environment variable PEN_LINES holds control characters\n" },
    };
    char text[256];

    (void)state;
    setenv("PEN_A", "one", 1);
    setenv("PEN_EMPTY", "", 1);
    setenv("PEN_NESTED", "${PEN_A}", 1);
    setenv("PEN_LINES", "a\nb", 1);
    unsetenv("PEN_NOT");
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct conf *conf;
        const char *value;

        (void)snprintf(text, sizeof(text), "[daemon]\nk = %s\n", cases[i].written);
        conf = read_text(text);
        value = conf_value(conf_section(conf, CONF_DAEMON, 0), "k");
        assert_string_equal(mistakes, cases[i].mistakes);
        if (cases[i].value == NULL)
            assert_null(value);
        else
            assert_string_equal(value, cases[i].value);
        conf_free(conf);
    }
}

/* ---- Values ---- */

static unsigned fill(struct conf *conf, struct fake *fake)
{
    const struct pen_option *const tables[] = { fake_options };
    void *const intos[] = { fake };

    return conf_fill(conf_section(conf, CONF_SINK, 0), tables, intos, 1);
}

static void test_values(void **state)
{
    struct conf *conf = read_text("[sink s]\nendpoint = https://h.example:443/p?q\nfolder = /srv/a b\nsecret_file = /run/s\n"
                                  "text =\non = Off\nnumber = -5\nsize = 2 k\ntime = 500ms\ncolor = blue\n"
                                  "list = x , y,z\nkafka.linger.ms = 5\nkafka.acks = all\n");
    struct fake fake;

    (void)state;
    memset(&fake, 0xff, sizeof(fake));
    assert_int_equal(fill(conf, &fake), 0);
    assert_string_equal(mistakes, "");
    assert_string_equal(fake.endpoint, "https://h.example:443/p?q");
    assert_string_equal(fake.folder, "/srv/a b");
    assert_string_equal(fake.secret, "/run/s");
    assert_string_equal(fake.text, "");
    assert_false(fake.on);
    assert_int_equal(fake.number, -5);
    assert_int_equal(fake.size, 2048);
    assert_int_equal(fake.time_ms, 500);
    assert_int_equal(fake.color, 2);
    assert_int_equal(fake.list.count, 3);
    assert_string_equal(fake.list.items[1], "y");
    assert_int_equal(fake.pairs.count, 2);
    assert_string_equal(fake.pairs.keys[0], "linger.ms");
    assert_string_equal(fake.pairs.values[1], "all");
    conf_free(conf);
}

static void test_fallbacks(void **state)
{
    struct conf *conf = read_text("[sink s]\nendpoint = http://[::1]:9\n");
    struct fake fake;

    (void)state;
    memset(&fake, 0xff, sizeof(fake));
    assert_int_equal(fill(conf, &fake), 0);
    assert_null(fake.folder);
    assert_string_equal(fake.text, "plain");
    assert_true(fake.on);
    assert_int_equal(fake.number, 7);
    assert_int_equal(fake.size, 64 << 20);
    assert_int_equal(fake.time_ms, 30000);
    assert_int_equal(fake.color, 1);
    assert_int_equal(fake.list.count, 2);
    assert_int_equal(fake.pairs.count, 0);
    conf_free(conf);
}

static void test_bad_values(void **state)
{
    static const struct {
        const char *line, *mistakes;
    } cases[] = {
        { "folder = srv", "3: \"folder\": expected an absolute path, such as /var/lib/penstock, found \"srv\"\n" },
        { "folder =", "3: \"folder\": expected an absolute path, such as /var/lib/penstock, found nothing\n" },
        { "secret_file = hunter2", "3: \"secret_file\": expected the absolute path of a file that holds the secret\n" },
        { "folder = ${PEN_A}", "3: \"folder\": expected an absolute path, such as /var/lib/penstock, found \"${PEN_A}\"\n" },
        { "on = ja", "3: \"on\": expected yes or no, found \"ja\"\n" },
        { "number = 11", "3: \"number\": expected a whole number from -5 to 10, found \"11\"\n" },
        { "number = -6", "3: \"number\": expected a whole number from -5 to 10, found \"-6\"\n" },
        { "number = 0x1", "3: \"number\": expected a whole number from -5 to 10, found \"0x1\"\n" },
        { "number = 99999999999999999999",
          "3: \"number\": expected a whole number from -5 to 10, found \"99999999999999999999\"\n" },
        { "number = -", "3: \"number\": expected a whole number from -5 to 10, found \"-\"\n" },
        { "size = 1023", "3: \"size\": expected a size from 1K to 1T, such as 64M, found \"1023\"\n" },
        { "size = 64MB", "3: \"size\": expected a size from 1K to 1T, such as 64M, found \"64MB\"\n" },
        { "size = 16777217T", "3: \"size\": expected a size from 1K to 1T, such as 64M, found \"16777217T\"\n" },
        { "size = -1", "3: \"size\": expected a size from 1K to 1T, such as 64M, found \"-1\"\n" },
        { "time = 5x", "3: \"time\": expected a time from 10ms to 1h, such as 30s, found \"5x\"\n" },
        { "time = 1.5s", "3: \"time\": expected a time from 10ms to 1h, such as 30s, found \"1.5s\"\n" },
        { "time = 60d", "3: \"time\": expected a time from 10ms to 1h, such as 30s, found \"60d\"\n" },
        { "color = gren", "3: \"color\": expected one of red, green, blue, found \"gren\"; did you mean \"green\"?\n" },
        { "color = 1", "3: \"color\": expected one of red, green, blue, found \"1\"\n" },
        { "list = a,,b", "3: \"list\": expected texts parted by commas, found \"a,,b\"\n" },
        { "list = a,", "3: \"list\": expected texts parted by commas, found \"a,\"\n" },
        { "kafka. = x", "3: unknown key \"kafka.\" in [sink s]; it takes endpoint, folder, secret_file, text, on, number, "
                       "size, time, color, list, kafka.*\n" },
        { "colour = red", "3: unknown key \"colour\" in [sink s]; did you mean \"color\"?\n" },
        { "tiem = 3s", "3: unknown key \"tiem\" in [sink s]; did you mean \"time\"?\n" },
        { "zzzzzz = 1", "3: unknown key \"zzzzzz\" in [sink s]; it takes endpoint, folder, secret_file, text, on, number, "
                        "size, time, color, list, kafka.*\n" },
        { "text = ${PEN_NOT}", "3: the environment variable PEN_NOT is not set\n" },
    };
    char text[256];

    (void)state;
    setenv("PEN_A", "one", 1);
    unsetenv("PEN_NOT");
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct conf *conf;
        struct fake fake;

        (void)snprintf(text, sizeof(text), "[sink s]\nendpoint = https://h\n%s\n", cases[i].line);
        conf = read_text(text);
        (void)fill(conf, &fake);
        assert_string_equal(mistakes, cases[i].mistakes);
        assert_int_equal(conf_mistakes(conf), 1);
        conf_free(conf);
    }
}

static void test_bad_urls(void **state)
{
    static const char *const urls[] = { "h.example", "ftp://h", "https://", "https:///p", "https://:443", "https://u:p@h/",
                                        "https://h/a b", "https://h\\x", "HTTPS:/h" };
    char text[256];

    (void)state;
    for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++) {
        struct conf *conf;
        struct fake fake;

        (void)snprintf(text, sizeof(text), "[sink s]\nendpoint = %s\n", urls[i]);
        conf = read_text(text);
        assert_int_equal(fill(conf, &fake), 1);
        assert_non_null(strstr(mistakes, "2: \"endpoint\": expected an http or https address"));
        assert_null(strstr(mistakes, "u:p"));      /* a password in an address is not shown */
        conf_free(conf);
    }
}

/* Rows without a range still end where their type does. */
static void test_values_past_their_type(void **state)
{
    static const struct pen_option rows[] = {
        { "time", PEN_MS, offsetof(struct fake, time_ms), .help = "A time." },
        { "size", PEN_BYTES, offsetof(struct fake, size), .help = "A size." },
        { "number", PEN_INT, offsetof(struct fake, number), .help = "A number." },
        { 0 }
    };
    static const struct {
        const char *line;
        int r;
    } cases[] = {
        { "time = 4294967295", 0 }, { "time = 4294967296", UV_EINVAL }, { "time = 60d", UV_EINVAL },
        { "size = 8388607T", 0 }, { "size = 8388608T", UV_EINVAL },
        { "number = -9223372036854775807", 0 }, { "number = 9223372036854775808", UV_EINVAL },
    };
    char text[128];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct pen_error err = { 0 };
        struct conf *conf;
        struct fake fake;

        (void)snprintf(text, sizeof(text), "[sink s]\n%s\n", cases[i].line);
        conf = read_text(text);
        assert_int_equal(pen_conf_fill(conf_section(conf, CONF_SINK, 0), rows, &fake, &err), cases[i].r);
        conf_free(conf);
    }
}

/* A plugin's open() sees the same through pen_conf_fill(), with file and line in one sentence. */
static void test_plugin_fill(void **state)
{
    struct conf *conf = read_text("\n[sink s]\ncolor = pink\n");
    struct pen_error err = { 0 };
    char expected[256];
    struct fake fake;

    (void)state;
    assert_int_equal(pen_conf_fill(conf_section(conf, CONF_SINK, 0), fake_options, &fake, &err), UV_EINVAL);
    (void)snprintf(expected, sizeof(expected), "%s:2: [sink s] needs \"endpoint\": Where to post.", path);
    assert_string_equal(err.text, expected);
    assert_string_equal(mistakes, "");
    conf_free(conf);
}

static void test_print(void **state)
{
    struct conf *conf = read_text("[sink s]\nendpoint = https://h\nkafka.sasl.password = hunter2\nkafka.a = $${x}$\n");
    const struct pen_option *const tables[] = { fake_options };
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    (void)state;
    conf_print(conf_section(conf, CONF_SINK, 0), tables, 1, out);
    fclose(out);
    assert_string_equal(text, "[sink s]\nendpoint = https://h\n# folder = \n# secret_file = \n# text = plain\n# on = yes\n"
                              "# number = 7\n# size = 64M\n# time = 30s\n# color = green\n# list = a, b\n"
                              "kafka.sasl.password = ********\nkafka.a = $${x}$\n");
    free(text);
    conf_free(conf);
}

/* ---- The whole ---- */

#define SOURCE "[source a]\ntype = file\n"
#define SINK "[sink s]\ntype = sentinel\nendpoint = https://h\n"

static void test_settings(void **state)
{
    struct settings *settings = NULL;
    struct pen_error err = { 0 };
    static const char text[] = SOURCE "parser = nsg-flow\n[source b]\ntype = file\n" SINK
                               "sources = b\nevents = network, alert\n[sink t]\ntype = sentinel\nendpoint = https://h\n";

    (void)state;
    put(text, strlen(text));
    assert_int_equal(settings_read(&settings, path, on_mistake, (void *)"arg", &err), 0);
    assert_string_equal(mistakes, "");
    assert_int_equal(settings->source_count, 2);
    assert_int_equal(settings->sink_count, 2);
    assert_string_equal(settings->daemon.state_dir, "/var/lib/penstock");
    assert_int_equal(settings->daemon.memory, 64 << 20);
    assert_int_equal(settings->daemon.record_max, 4 << 20);
    assert_string_equal(settings->sources[0].parser, "nsg-flow");
    assert_string_equal(settings->sources[1].parser, "auto");
    assert_ptr_equal(settings->sources[0].type, &fake_source);
    assert_int_equal(settings->sinks[0].source_mask[0], 2);
    assert_int_equal(settings->sinks[0].kind_mask, 1U << PEN_NETWORK | 1U << PEN_ALERT);
    assert_int_equal(settings->sinks[1].source_mask[0], 3);
    assert_int_equal(settings->sinks[1].kind_mask, (1U << PEN_KINDS) - 1);
    assert_int_equal(settings->sinks[1].flush_ms, 2000);
    assert_true(settings->sinks[1].spool_compress);
    settings_free(settings);
}

static void test_settings_mistakes(void **state)
{
    static const struct {
        const char *text, *mistakes;
    } cases[] = {
        { "", "0: expected at least one [source NAME]: there is nothing to read\n"
              "0: expected at least one [sink NAME]: there is nowhere to deliver\n" },
        { "[daemon]\n" SOURCE, "1: expected at least one [sink NAME]: there is nowhere to deliver\n" },
        { "[source a]\n" SINK, "1: this source needs a \"type\"\n" },
        { "[source a]\ntype = fiel\nfoo = 1\n" SINK,
          "2: \"type\": expected a known type, found \"fiel\"; did you mean \"file\"?\n" },
        { "[source a]\ntype = http\n" SINK, "2: \"type\": expected a known type (file), found \"http\"\n" },
        { SOURCE "[sink s]\ntype = sentinel\n", "3: [sink s] needs \"endpoint\": Where to post.\n" },
        { SOURCE SINK "sources = a, bb\n", "6: \"sources\": expected names of sources (a), found \"bb\"\n" },
        { SOURCE SINK "events = alerts\n",
          "6: \"events\": expected kinds of events, found \"alerts\"; did you mean \"alert\"?\n" },
        { SOURCE SINK "schema = ocsf\n", "6: \"schema\": expected a schema of this sink (asim, raw), found \"ocsf\"\n" },
        { SOURCE SINK "retry_min = 2m\n", "6: \"retry_min\": expected no more than \"retry_max\"\n" },
        { SOURCE "parser = nsg-flows\n" SINK,
          "3: \"parser\": expected a parser, found \"nsg-flows\"; did you mean \"nsg-flow\"?\n" },
        { "[daemon]\nmemory = 8M\n" SOURCE SINK,
          "2: \"memory\": expected a size from 16M to 1T, such as 64M, found \"8M\"\n" },
        { "[daemon]\nmemory = 32M\nrecord_max = 9M\n" SOURCE SINK,
          "3: \"record_max\": expected at most a quarter of \"memory\", which is 32M\n" },
        { SOURCE SINK "flush_ms = 2s\nsources = x\n", "6: unknown key \"flush_ms\" in [sink s]; did you mean \"flush\"?\n"
                                                      "7: \"sources\": expected names of sources (a), found \"x\"\n" },
        { SOURCE SINK "spool = allways\ncolor = 3\n",
          "6: \"spool\": expected one of when-needed, always, found \"allways\"; did you mean \"always\"?\n"
          "7: \"color\": expected one of red, green, blue, found \"3\"\n" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct settings *settings = NULL;
        struct pen_error err = { 0 };

        put(cases[i].text, strlen(cases[i].text));
        assert_int_equal(settings_read(&settings, path, on_mistake, (void *)"arg", &err), UV_EINVAL);
        assert_string_equal(mistakes, cases[i].mistakes);
        assert_non_null(strstr(err.text, path));
        assert_null(settings);
    }
}

static void test_settings_too_many(void **state)
{
    struct settings *settings = NULL;
    struct pen_error err = { 0 };
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    (void)state;
    for (int i = 0; i <= SETTINGS_SOURCES_MAX; i++)
        fprintf(out, "[source s%d]\ntype = file\n", i);
    for (int i = 0; i <= SETTINGS_SINKS_MAX; i++)
        fprintf(out, "[sink t%d]\ntype = sentinel\nendpoint = https://h\n", i);
    fclose(out);
    put(text, size);
    free(text);
    assert_int_equal(settings_read(&settings, path, on_mistake, (void *)"arg", &err), UV_EINVAL);
    assert_string_equal(mistakes, "513: expected at most 256 sources\n611: expected at most 32 sinks\n");
}

/* ---- Secrets ---- */

static int secret(const char *data, size_t size, mode_t mode, char **ret, size_t *got, struct pen_error *err)
{
    put(data, size);
    assert_int_equal(chmod(path, mode), 0);
    return pen_secret_read(ret, got, path, err);
}

static void test_secrets(void **state)
{
    struct pen_error err = { 0 };
    char *data = NULL, *big = calloc(1, 64 * 1024 + 1);
    size_t size;

    (void)state;
    assert_int_equal(secret("pass\n\n", 6, 0600, &data, &size, &err), 0);
    assert_int_equal(size, 5);
    assert_string_equal(data, "pass\n");
    pen_secret_wipe(data, size);
    assert_int_equal(secret("pass\r\n", 6, 0640, &data, &size, &err), 0);
    assert_string_equal(data, "pass");
    pen_secret_wipe(data, size);
    assert_int_equal(secret("\n", 1, 0600, &data, &size, &err), UV_EINVAL);
    assert_int_equal(secret("", 0, 0600, &data, &size, &err), UV_EINVAL);
    memset(big, 'x', 64 * 1024 + 1);
    assert_int_equal(secret(big, 64 * 1024, 0600, &data, &size, &err), 0);
    assert_int_equal(size, 64 * 1024);
    pen_secret_wipe(data, size);
    assert_int_equal(secret(big, 64 * 1024 + 1, 0600, &data, &size, &err), UV_EFBIG);
    assert_int_equal(pen_secret_read(&data, &size, "/", &err), UV_EINVAL);
    assert_int_equal(pen_secret_read(&data, &size, "/nowhere/x", &err), UV_ENOENT);
    pen_secret_wipe(NULL, 0);
    free(big);
}

static void test_secret_open_to_all(void **state)
{
    char dir[] = "/tmp/penstock-cred-XXXXXX", inside[64], *data = NULL;
    struct pen_error err = { 0 };
    size_t size;

    (void)state;
    unsetenv("CREDENTIALS_DIRECTORY");
    assert_int_equal(secret("pass", 4, 0644, &data, &size, &err), UV_EPERM);
    assert_null(strstr(err.text, "pass\""));

    /* A link inside the folder to a file outside of it does not make that file a credential. */
    assert_non_null(mkdtemp(dir));
    (void)snprintf(inside, sizeof(inside), "%s/s", dir);
    assert_int_equal(symlink(path, inside), 0);
    setenv("CREDENTIALS_DIRECTORY", dir, 1);
    assert_int_equal(pen_secret_read(&data, &size, inside, &err), UV_EPERM);
    unlink(inside);

    assert_int_equal(rename(path, inside), 0);
    assert_int_equal(pen_secret_read(&data, &size, inside, &err), 0);
    pen_secret_wipe(data, size);
    /* "/run/cred" is not the folder of "/run/credentials/x". */
    dir[strlen(dir) - 1] = '\0';
    setenv("CREDENTIALS_DIRECTORY", dir, 1);
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(pen_secret_read(&data, &size, inside, &err), UV_EPERM);
    rmdir(dir);

    assert_int_equal(rename(inside, path), 0);
    *strrchr(inside, '/') = '\0';
    rmdir(inside);
    unsetenv("CREDENTIALS_DIRECTORY");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_lines), TEST(test_nul), TEST(test_long_lines), TEST(test_long_names), TEST(test_unreadable),
        TEST(test_noise), TEST(test_environment), TEST(test_values), TEST(test_fallbacks), TEST(test_bad_values),
        TEST(test_bad_urls), TEST(test_values_past_their_type), TEST(test_plugin_fill), TEST(test_print),
        TEST(test_settings), TEST(test_settings_mistakes), TEST(test_settings_too_many), TEST(test_secrets), TEST(test_secret_open_to_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
