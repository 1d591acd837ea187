/* Promise: one thing that happened is one line, whole, readable by people and programs; nothing from outside can steer the
 * terminal, fake another line or push the message out. */
#include "daemon/base/log.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <cmocka.h>

static int real_stderr, file;
static char journal[16384];          /* what journald was given, one field a line */
static int journal_answer;

/* In the place of libsystemd's. */
int sd_journal_sendv(const struct iovec *list, int count);
int sd_journal_sendv(const struct iovec *list, int count)
{
    char *at = journal;

    for (int i = 0; i < count; i++) {
        memcpy(at, list[i].iov_base, list[i].iov_len);
        at += list[i].iov_len;
        *at++ = '\n';
    }
    *at = '\0';
    return journal_answer;
}
static char text[8192];

static int setup(void **state)
{
    char path[] = "/tmp/penstock-log-XXXXXX";

    (void)state;
    unsetenv("JOURNAL_STREAM");
    log_set_level(LOG_NOTE);
    real_stderr = dup(STDERR_FILENO);
    file = mkstemp(path);
    return file < 0 || unlink(path) < 0 || dup2(file, STDERR_FILENO) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)dup2(real_stderr, STDERR_FILENO);
    (void)close(real_stderr);
    return close(file);
}

/* What was logged since the last call, without the time where there is one. */
static const char *logged(void)
{
    ssize_t n = pread(file, text, sizeof(text) - 1, 0);

    assert_true(n >= 0);
    text[n] = '\0';
    assert_int_equal(ftruncate(file, 0), 0);
    assert_int_equal(lseek(file, 0, SEEK_SET), 0);
    return n > 25 && text[4] == '-' && text[24] == ' ' ? text + 25 : text;
}

static void test_line(void **state)
{
    (void)state;
    log_line(LOG_WARN, "far end is busy, holding", "sink", "sentinel", "delay_ms", log_number(8000), NULL);
    assert_string_equal(logged(), "warning sink=sentinel delay_ms=8000 msg=\"far end is busy, holding\"\n");
    assert_true(text[10] == 'T' && text[19] == '.' && text[23] == 'Z');
    log_line(LOG_NOTE, "started", NULL);
    assert_string_equal(logged(), "info msg=\"started\"\n");
    log_pairs(LOG_NOTE, "lag", (const char *const[]){ "source", "two words", "behind", "0", NULL });
    assert_string_equal(logged(), "info source=\"two words\" behind=0 msg=\"lag\"\n");
    log_line(LOG_ERROR, "", "empty", "", "null", NULL, NULL);
    assert_string_equal(logged(), "error empty=\"\" null=\"\" msg=\"\"\n");
}

static void test_levels(void **state)
{
    (void)state;
    log_line(LOG_TRACE, "no", NULL);
    log_set_level(LOG_ERROR);
    log_line(LOG_WARN, "no", NULL);
    assert_string_equal(logged(), "");
    log_set_level(LOG_TRACE);
    log_line(LOG_TRACE, "yes", NULL);
    assert_string_equal(logged(), "debug msg=\"yes\"\n");
}

static void test_hostile_values(void **state)
{
    static const struct {
        const char *value, *written;
    } cases[] = {
        { "a b", "\"a b\"" },
        { "a=b", "\"a=b\"" },
        { "a\"b\\c", "\"a\\\"b\\\\c\"" },
        { "a\nerror msg=\"x\"", "\"a\\nerror msg=\\\"x\\\"\"" },
        { "\x1b[2J\x07\r\t\x7f", "\"\\x1b[2J\\x07\\x0d\\x09\\x7f\"" },
        { "Gr\xc3\xbc\xc3\x9f" "e \xe6\x97\xa5 \xf0\x9f\x8c\x8d", "\"Gr\xc3\xbc\xc3\x9f" "e \xe6\x97\xa5 \xf0\x9f\x8c\x8d\"" },
        { "\xc2\x9b" "31m", "\"\\xc2\\x9b31m\"" },                    /* CSI as C1 */
        { "\xe2\x80\xaetxt", "\"\\xe2\\x80\\xaetxt\"" },              /* right-to-left override */
        { "\xe2\x80\xa8", "\"\\xe2\\x80\\xa8\"" },                    /* line separator */
        { "\xff\xc3", "\"\\xff\\xc3\"" },
        { "\xc0\x8a\xe0\x80\x8a\xed\xa0\x80\xf4\x90\x80\x80",
          "\"\\xc0\\x8a\\xe0\\x80\\x8a\\xed\\xa0\\x80\\xf4\\x90\\x80\\x80\"" },
    };
    char expected[256];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        (void)snprintf(expected, sizeof(expected), "info path=%s msg=\"m\"\n", cases[i].written);
        log_line(LOG_NOTE, "m", "path", cases[i].value, NULL);
        assert_string_equal(logged(), expected);
    }
    log_line(LOG_NOTE, "a\nb\x1b", NULL);
    assert_string_equal(logged(), "info msg=\"a\\nb\\x1b\"\n");
}

/* Every length around the limits: one line, ends in the message, quotes balanced. */
static void test_long_values(void **state)
{
    static char value[3000];
    const char *line;
    size_t size, quotes;

    (void)state;
    for (size = 1200; size < 1320; size++) {
        memset(value, 'v', sizeof(value));
        value[size] = '\0';
        value[0] = size % 2 == 0 ? ' ' : 'v';
        log_line(LOG_NOTE, "the message", "first", value, "second", "x y", NULL);
        line = logged();
        quotes = 0;
        for (const char *at = line; *at != '\0'; at++)
            quotes += *at == '"';
        assert_int_equal(quotes % 2, 0);
        assert_non_null(strstr(line, " msg=\"the message\"\n"));
        assert_true(strlen(line) < 2048);
        assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
        assert_int_equal(strstr(line, "second=\"x y\"") == NULL, strstr(line, "…") != NULL);
    }
    memset(value, '\xff', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    log_line(LOG_NOTE, value, "key", value, NULL);
    line = logged();
    assert_true(strlen(line) < 2048);
    assert_non_null(strstr(line, "…\" msg=\"\\xff"));
    assert_string_equal(line + strlen(line) - 1 - strlen("…\""), "…\"\n");
}

/* As systemd does it: stderr's device and inode. */
static void stderr_becomes_journal(void)
{
    char words[64];
    struct stat st;

    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    (void)snprintf(words, sizeof(words), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", words, 1);
}

static void test_journal(void **state)
{
    (void)state;
    stderr_becomes_journal();
    log_line(LOG_WARN, "m", "k", "v", NULL);
    assert_string_equal(logged(), "<4>k=v msg=\"m\"\n");

    /* Inherited words of another stream: no journal reads this. */
    setenv("JOURNAL_STREAM", "1:2", 1);
    log_line(LOG_WARN, "m", NULL);
    assert_string_equal(logged(), "warning msg=\"m\"\n");
    unsetenv("JOURNAL_STREAM");
}

/* From here on there is no way back, in this process. */
static void test_journal_fields(void **state)
{
    char value[3000];

    (void)state;
    log_to_journal();
    log_line(LOG_WARN, "m", "k", "v", NULL);
    assert_string_equal(logged(), "warning k=v msg=\"m\"\n");

    stderr_becomes_journal();
    log_line(LOG_ERROR, "it is so", "sink", "a\nPRIORITY=0", "delay_ms", "8", "kafka.x", NULL, NULL);
    assert_string_equal(logged(), "");
    assert_string_equal(journal, "MESSAGE=sink=\"a\\nPRIORITY=0\" delay_ms=8 kafka.x=\"\" msg=\"it is so\"\nPRIORITY=3\n"
                        "PENSTOCK_MSG=it is so\nPENSTOCK_SINK=a\nPRIORITY=0\nPENSTOCK_DELAY_MS=8\nPENSTOCK_KAFKA_X=\n");

    /* What has no room as a field is cut in the line. */
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    log_line(LOG_NOTE, "m", "long", value, "next", "n", NULL);
    assert_null(strstr(journal, "PENSTOCK_LONG"));
    assert_non_null(strstr(journal, "… msg=\"m\"\nPRIORITY=6\nPENSTOCK_MSG=m\n"));

    /* journald cannot be reached: its end of stderr gets the line. */
    journal_answer = -2;
    log_line(LOG_WARN, "m", "k", "v", NULL);
    assert_string_equal(logged(), "<4>k=v msg=\"m\"\n");
    unsetenv("JOURNAL_STREAM");
}

static void test_numbers(void **state)
{
    (void)state;
    log_line(LOG_NOTE, "m", "a", log_number(0), "b", log_number(UINT64_MAX), NULL);
    assert_string_equal(logged(), "info a=0 b=18446744073709551615 msg=\"m\"\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_line), TEST(test_levels), TEST(test_hostile_values), TEST(test_long_values), TEST(test_journal),
        TEST(test_journal_fields), TEST(test_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
