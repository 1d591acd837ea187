/*
 * yardstick.c - how fast the machine is just now: a small piece of work that is always the same.
 *
 *     bench-yardstick
 *
 * prints the milliseconds of CPU that it took. On a virtual machine the same work costs up to half as much again for seconds or
 * minutes, because neighbours share the cores, the cache and the memory; no load average shows that. tests/bench measures this
 * before and after every run and trusts the runs whose yardstick was short.
 *
 * What it does was chosen by what goes up and down with the rows: copying and scanning beyond L2, deflate, and touching fresh
 * memory. A chain of branches by table and SHA-256 were tried and hardly moved (correlations of 0.1 and 0.3 with what the rows
 * cost, where these three have 0.6 to 0.9): each step of those waits for the one before, so that a neighbour on the same core
 * takes nothing from them. For the same reason there are two threads, as in the daemon: one alone misses half of it.
 *
 * Changing anything here makes yardsticks of earlier runs worthless: they are only ever compared within one bench.
 */
#include <assert.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <zlib.h>

enum { THREADS = 2, COPIES = 4, MAPPINGS = 4, PAGE = 4096 };
#define BYTES ((size_t)8 << 20)      /* beyond L2, within most L3 */
#define DEFLATED ((size_t)3 << 19)

struct yardstick {
    pthread_t thread;
    unsigned char *text, *other;
    size_t lines, deflated;          /* what came of it: the same every time */
    double ms;
};

/* Something like JSON, the same everywhere: words by a xorshift. */
static void yardstick_text(unsigned char *text)
{
    static const char *const words[] = { "\"time\":\"", "\",\"", "category", "records", "{\"", "\"}", "\n", "0.12,", "resourceId",
                                         "SUBSCRIPTIONS/", "10.0.0.4", "-ab42" };
    uint64_t state = 88172645463325252;
    size_t at = 0;

    while (at < BYTES) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        for (const char *c = words[state % (sizeof words / sizeof *words)]; *c != '\0' && at < BYTES; c++)
            text[at++] = (unsigned char)*c;
    }
}

static void yardstick_copy(struct yardstick *yardstick)
{
    for (int n = 0; n < COPIES; n++) {
        const unsigned char *at = yardstick->other, *end = at + BYTES;

        memcpy(yardstick->other, yardstick->text, BYTES);
        while ((at = memchr(at, '\n', (size_t)(end - at))) != NULL) {
            yardstick->lines++;
            at++;
        }
    }
}

static void yardstick_deflate(struct yardstick *yardstick)
{
    z_stream stream = { .next_in = yardstick->text, .avail_in = DEFLATED, .next_out = yardstick->other, .avail_out = BYTES };
    int r = deflateInit(&stream, 1);

    assert(r == Z_OK);
    r = deflate(&stream, Z_FINISH);
    assert(r == Z_STREAM_END);
    yardstick->deflated = stream.total_out;
    deflateEnd(&stream);
}

/* Pages one by one: with huge ones there would be nothing to do. */
static void yardstick_touch(void)
{
    for (int n = 0; n < MAPPINGS; n++) {
        volatile unsigned char *fresh = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        assert(fresh != MAP_FAILED);
        madvise((void *)fresh, BYTES, MADV_NOHUGEPAGE);
        for (size_t at = 0; at < BYTES; at += PAGE)
            fresh[at] = 1;
        munmap((void *)fresh, BYTES);
    }
}

static double cpu_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void *on_thread(void *arg)
{
    struct yardstick *yardstick = arg;
    double start;

    yardstick->text = malloc(BYTES);
    yardstick->other = malloc(BYTES);
    assert(yardstick->text != NULL && yardstick->other != NULL);
    yardstick_text(yardstick->text);
    memset(yardstick->other, 0, BYTES);          /* its pages are there */

    start = cpu_ms();
    yardstick_copy(yardstick);
    yardstick_deflate(yardstick);
    yardstick_touch();
    yardstick->ms = cpu_ms() - start;
    free(yardstick->other);
    free(yardstick->text);
    return NULL;
}

int main(void)
{
    struct yardstick yardsticks[THREADS] = { 0 };
    double ms = 0;
    int r;

    for (int n = 0; n < THREADS; n++) {
        r = pthread_create(&yardsticks[n].thread, NULL, on_thread, &yardsticks[n]);
        assert(r == 0);
    }
    for (int n = 0; n < THREADS; n++) {
        pthread_join(yardsticks[n].thread, NULL);
        assert(yardsticks[n].lines == yardsticks[0].lines && yardsticks[n].deflated == yardsticks[0].deflated);
        ms += yardsticks[n].ms;
    }
    printf("%.2f\n", ms);
    return 0;
}
