/*
 * file_host.h - the file source in a test: real files in a folder of their own, a real loop. The pipeline is a fake that
 * frames by line (or a PT1H.json's records), keeps the lines, and can hold what it is given.
 */
#ifndef TESTS_UNIT_FILE_HOST_H
#define TESTS_UNIT_FILE_HOST_H

#include "daemon/config/conf.h"
#include "daemon/source/source.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <uv.h>
#include <cmocka.h>

struct stream {
    LIST_ENTRY(stream) entry;
    void *self;
    char *key, *attrs;
    uint64_t position;
    struct chunk *chunk;
};

struct row {
    char *key, *attrs;
    uint64_t position;
};

struct source_host {
    uv_loop_t loop;
    uv_timer_t guard, answers;
    LIST_HEAD(, stream) streams;
    struct row rows[256];
    size_t row_count;
    char *lines[300000];
    size_t line_count;
    size_t torn, offered, out, out_most, troubles, forgotten, rested, chunk_bytes, chunk_bytes_most, kept;
    bool closed_flow, hold, once, drained, stopped, pt1h, resting;
    void *source;
    struct conf *conf;
};

#define LOG_TEXT_SIZE (1 << 20)

extern struct source_host host;
extern char log_text[LOG_TEXT_SIZE];             /* every line logged */
extern char dir[64];

/* Waits for a condition, at most ten seconds. */
#define AWAIT(condition) do { \
        uint64_t until = uv_hrtime() + UINT64_C(10000000000); \
        while (!(condition) && uv_hrtime() < until) \
            uv_run(&host.loop, UV_RUN_ONCE); \
        if (!(condition)) { \
            print_message("log:\n%s", log_text); \
            for (size_t line_at = 0; line_at < host.line_count && line_at < 30; line_at++) \
                print_message("  %s\n", host.lines[line_at]); \
        } \
        assert_true(condition); \
    } while (0)

const char *at(const char *name);                /* its path in the folder; good for seven more calls */
void put(const char *name, const char *mode, const char *text);
size_t seen(const char *line);                   /* how many times */
void start(const char *options);
void start_logs(const char *more);               /* `path` and short times, then what the test adds */
void stop(void);
void save(void);                                 /* as the daemon does every second: all that was read is safe */
void restart(const char *more);
void resume(void);                               /* what was held is given back */
/* Whatever is there now has been looked at: files made later, found by sweeps only, have been read. Three lines more. */
void settle(void);

int setup(void **state);
int setup_resting(void **state);
int teardown(void **state);

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
/* And again with streams that come and go: a source that lets go of what is at rest must see no difference. */
#define TEST_BOTH(name) TEST(name), { "test_" #name "_resting", test_##name, setup_resting, teardown, NULL }

#endif
