/* Promise: packed or not, the bytes are the same, at any chunk size and from any position; an archive that is not whole
 * yet gives what it has and goes on when it has grown, and a damaged one gives what came before the damage. */
#include "daemon/record/unpack.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>
#include <zlib.h>
#include <zstd.h>
#include <cmocka.h>

#define TEXT_SIZE 300000

static char text[TEXT_SIZE];
static char packed[2 * TEXT_SIZE];
static char path[64];
static int fd;

static size_t pack_gzip(char *out, const char *data, size_t size)
{
    z_stream z = { 0 };

    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)data;
    z.avail_in = (unsigned)size;
    z.next_out = (unsigned char *)out;
    z.avail_out = TEXT_SIZE;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return z.total_out;
}

static size_t pack_zstd(char *out, const char *data, size_t size)
{
    ZSTD_CCtx *zstd = ZSTD_createCCtx();
    size_t r;

    ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, 1);
    r = ZSTD_compress2(zstd, out, TEXT_SIZE, data, size);
    assert_false(ZSTD_isError(r));
    ZSTD_freeCCtx(zstd);
    return r;
}

static size_t (*const packs[])(char *out, const char *data, size_t size) = { pack_gzip, pack_zstd };

static void put(const char *data, size_t size)
{
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pwrite(fd, data, size, 0), size);
}

/* Reads to the end in pieces of `step`; the size, or the trouble met behind `*good` bytes. */
static ssize_t read_all(struct unpack *unpack, char *out, size_t step, size_t *good)
{
    struct pen_error err = { 0 };
    ssize_t n;

    *good = 0;
    while ((n = unpack_read(unpack, out + *good, step, &err)) > 0)
        *good += (size_t)n;
    return n < 0 ? n : (ssize_t)*good;
}

static struct unpack *unpack_of(enum unpack_format format)
{
    struct pen_error err = { 0 };
    struct unpack *unpack;

    assert_int_equal(unpack_new(&unpack, fd, &err), 0);
    assert_int_equal(unpack_format(unpack), format);
    return unpack;
}

static void test_same_bytes(void **state)
{
    static const size_t steps[] = { 1000003, 65536, 4096, 7 };
    static char out[TEXT_SIZE + 1000003];
    size_t good;

    (void)state;
    for (size_t format = 0; format < 3; format++)
        for (size_t step = 0; step < 4; step++) {
            struct unpack *unpack;
            size_t half = TEXT_SIZE / 2, size = TEXT_SIZE;

            if (format == 0) {
                put(text, TEXT_SIZE);
            } else {          /* two links, and an empty one between */
                size = packs[format - 1](packed, text, half);
                size += packs[format - 1](packed + size, "", 0);
                size += packs[format - 1](packed + size, text + half, TEXT_SIZE - half);
                put(packed, size);
            }
            unpack = unpack_of((enum unpack_format)format);
            assert_int_equal(read_all(unpack, out, steps[step], &good), TEXT_SIZE);
            assert_memory_equal(out, text, TEXT_SIZE);
            assert_true(unpack_complete(unpack));
            unpack_free(unpack);
        }
}

static void test_seeks(void **state)
{
    static const uint64_t positions[] = { 5, 0, 299999, 100, 100, 65536, 300000, 1 };
    struct pen_error err = { 0 };
    char byte;

    (void)state;
    for (size_t format = 0; format < 3; format++) {
        struct unpack *unpack;

        put(format == 0 ? text : packed, format == 0 ? TEXT_SIZE : packs[format - 1](packed, text, TEXT_SIZE));
        unpack = unpack_of((enum unpack_format)format);
        for (size_t i = 0; i < sizeof positions / sizeof *positions; i++) {
            assert_int_equal(unpack_seek(unpack, positions[i], &err), 0);
            if (positions[i] < TEXT_SIZE) {
                assert_int_equal(unpack_read(unpack, &byte, 1, &err), 1);
                assert_int_equal(byte, text[positions[i]]);
            } else {
                assert_int_equal(unpack_read(unpack, &byte, 1, &err), 0);
            }
        }
        if (format > 0)
            assert_int_equal(unpack_seek(unpack, TEXT_SIZE + 1, &err), UV_EOF);
        unpack_free(unpack);
    }
}

/* The file grows byte by byte under an open reader. */
static void test_grows(void **state)
{
    static char out[TEXT_SIZE];

    (void)state;
    for (size_t format = 1; format < 3; format++) {
        size_t size = packs[format - 1](packed, text, 3000), done = 0;
        struct pen_error err = { 0 };
        struct unpack *unpack;

        put(packed, 4);
        unpack = unpack_of((enum unpack_format)format);
        for (size_t i = 4; i <= size; i++) {
            ssize_t n;

            while ((n = unpack_read(unpack, out + done, 100, &err)) > 0)
                done += (size_t)n;
            assert_int_equal(n, 0);
            assert_int_equal(unpack_complete(unpack), i == size);
            if (i < size)
                assert_int_equal(pwrite(fd, packed + i, 1, (off_t)i), 1);
        }
        assert_int_equal(done, 3000);
        assert_memory_equal(out, text, 3000);
        unpack_free(unpack);
    }
}

static void test_damage(void **state)
{
    static char out[TEXT_SIZE];

    (void)state;
    for (size_t format = 1; format < 3; format++) {
        size_t first = packs[format - 1](packed, text, 1000), size, good;
        struct pen_error err = { 0 };
        struct unpack *unpack;

        size = first + packs[format - 1](packed + first, text + 1000, 100000);
        memset(packed + first + 500, 0x55, 300);
        put(packed, size);
        unpack = unpack_of((enum unpack_format)format);
        assert_int_equal(read_all(unpack, out, 777, &good), UV_EINVAL);
        assert_true(good >= 1000);
        assert_memory_equal(out, text, 1000);
        assert_int_equal(unpack_read(unpack, out, 100, &err), UV_EINVAL);
        assert_non_null(strstr(err.text, "damaged"));
        assert_false(unpack_complete(unpack));
        /* A seek to the start begins again. */
        assert_int_equal(unpack_seek(unpack, 0, &err), 0);
        assert_int_equal(unpack_read(unpack, out, 100, &err), 100);
        unpack_free(unpack);

        put(packed, first);
        assert_int_equal(pwrite(fd, "\0\0\0\0\0\0", 6, (off_t)first), 6);
        unpack = unpack_of((enum unpack_format)format);
        assert_int_equal(read_all(unpack, out, 777, &good), 1000);
        unpack_free(unpack);
        assert_int_equal(pwrite(fd, "no archive", 10, (off_t)first), 10);
        unpack = unpack_of((enum unpack_format)format);
        assert_int_equal(read_all(unpack, out, 777, &good), UV_EINVAL);
        assert_int_equal(good, 1000);
        unpack_free(unpack);
    }
}

/* A bad checksum stands behind all there is: nothing of it may be lost, however much is asked for at once. */
static void test_damage_costs_nothing_before_it(void **state)
{
    static const size_t steps[] = { 777, TEXT_SIZE, TEXT_SIZE + 1000 };
    static char out[TEXT_SIZE + 1000];

    (void)state;
    for (size_t format = 1; format < 3; format++) {
        size_t size = packs[format - 1](packed, text, TEXT_SIZE), good;

        packed[size - 1] ^= 0x40;
        put(packed, size);
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
            struct unpack *unpack = unpack_of((enum unpack_format)format);

            good = 0;
            assert_int_equal(read_all(unpack, out, steps[i], &good), UV_EINVAL);
            assert_int_equal(good, TEXT_SIZE);
            assert_memory_equal(out, text, TEXT_SIZE);
            unpack_free(unpack);
        }
    }
}

/* A frame that wants more memory than we give is refused, not obeyed. */
static void test_zstd_window_is_bounded(void **state)
{
    static const unsigned char frame[] = { 0x28, 0xb5, 0x2f, 0xfd, 0x00, (31 - 10) << 3, 0x01, 0x00, 0x00 };
    struct unpack *unpack;
    char out[16];
    size_t good;

    (void)state;
    put((const char *)frame, sizeof frame);
    unpack = unpack_of(UNPACK_ZSTD);
    assert_int_equal(read_all(unpack, out, sizeof out, &good), UV_EINVAL);
    unpack_free(unpack);
}

static void test_pipe(void **state)
{
    static char out[TEXT_SIZE];
    struct pen_error err = { 0 };
    struct unpack *unpack;
    int pipes[2];
    size_t good, size = pack_gzip(packed, text, 20000);

    (void)state;
    for (int plain = 0; plain < 2; plain++) {
        assert_int_equal(pipe(pipes), 0);
        assert_int_equal(write(pipes[1], plain ? text : packed, plain ? 20000 : size), plain ? 20000 : (ssize_t)size);
        close(pipes[1]);
        assert_int_equal(unpack_new(&unpack, pipes[0], &err), 0);
        assert_int_equal(read_all(unpack, out, 999, &good), 20000);
        assert_memory_equal(out, text, 20000);
        assert_int_equal(unpack_seek(unpack, 0, &err), UV_ESPIPE);
        unpack_free(unpack);
        close(pipes[0]);
    }
}

/* Fed piece by piece, as from a network: the same bytes, whatever the pieces, and never asked for what is not there. */
static void test_fed(void **state)
{
    static char out[TEXT_SIZE + 1];
    struct pen_error err = { 0 };

    (void)state;
    for (size_t p = 0; p < 2; p++)
        for (size_t piece = 4; piece < 100000; piece = piece * 7 + 1) {
            size_t size = packs[p](packed, text, TEXT_SIZE), fed = piece, done = 0;
            struct unpack *unpack;
            ssize_t n;

            assert_int_equal(unpack_new_fed(&unpack, packed, piece < size ? piece : size, &err), 0);
            for (;;) {
                while ((n = unpack_read(unpack, out + done, TEXT_SIZE - done < 999 ? TEXT_SIZE - done + 1 : 999, &err)) > 0)
                    done += (size_t)n;
                assert_int_equal(n, 0);
                if (fed >= size)
                    break;
                assert_false(unpack_complete(unpack));
                unpack_feed(unpack, packed + fed, size - fed < piece ? size - fed : piece);
                fed += piece;
            }
            assert_int_equal(done, TEXT_SIZE);
            assert_memory_equal(out, text, TEXT_SIZE);
            assert_true(unpack_complete(unpack));
            unpack_free(unpack);
        }
}

/* Told again from the start: the file was empty when it was opened. */
static void test_format_of_a_file_that_was_empty(void **state)
{
    struct pen_error err = { 0 };
    struct unpack *unpack;
    char out[10];

    (void)state;
    put("", 0);
    unpack = unpack_of(UNPACK_PLAIN);
    assert_int_equal(unpack_read(unpack, out, 10, &err), 0);
    put(packed, pack_gzip(packed, "one", 3));
    assert_int_equal(unpack_seek(unpack, 0, &err), 0);
    assert_int_equal(unpack_read(unpack, out, 10, &err), 3);
    assert_memory_equal(out, "one", 3);
    unpack_free(unpack);
}

static int setup(void **state)
{
    (void)state;
    strcpy(path, "/tmp/penstock-unpack-XXXXXX");
    fd = mkstemp(path);
    srand(7);
    for (size_t i = 0; i < TEXT_SIZE; i++)
        text[i] = (char)("abcdefgh{}\":,\n"[rand() % 14]);
    return fd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    close(fd);
    return unlink(path);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(same_bytes), TEST(seeks), TEST(grows), TEST(damage), TEST(damage_costs_nothing_before_it),
        TEST(zstd_window_is_bounded), TEST(pipe), TEST(fed), TEST(format_of_a_file_that_was_empty),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
