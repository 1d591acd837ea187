/*
 * unpack.c - any file as an archive: read whole, in small pieces, after a seek, and fed as from a network, it gives the same
 * bytes, then an end or damage; it never gives more than it was asked for, and a bomb costs time only as it is asked.
 *
 * Input: 1 byte size of the pieces, 1 byte where to seek; the file.
 */
#include "tests/fuzz/fuzz.h"

#include "daemon/record/unpack.h"

#include "daemon/base/buf.h"

#include <assert.h>
#include <stdlib.h>

#define UNPACKED_MAX (256 * 1024)

struct read {
    struct buf bytes;
    ssize_t last;
    enum unpack_format format;
    bool complete;
};

static void read_all(struct read *read, int fd, size_t piece, uint64_t from)
{
    struct pen_error err = { 0 };
    struct unpack *unpack;
    ssize_t n = unpack_new(&unpack, fd, &err);

    assert(n == 0);
    n = from > 0 ? unpack_seek(unpack, from, &err) : 0;
    if (n == 0) {
        while (read->bytes.size + from < UNPACKED_MAX) {
            char *data = malloc(piece);

            assert(data != NULL);
            n = unpack_read(unpack, data, piece, &err);
            assert(n <= (ssize_t)piece && (n >= 0 || err.text[0] != '\0'));
            if (n > 0)
                buf_add(&read->bytes, data, (size_t)n);
            free(data);
            if (n <= 0)
                break;
        }
    }
    /* Damage stays damage, an end an end. */
    if (n <= 0 && from == 0)
        assert(unpack_read(unpack, (char[1]){ 0 }, 1, &err) == n);
    read->last = n;
    read->format = unpack_format(unpack);
    read->complete = unpack_complete(unpack);
    unpack_free(unpack);
}

static void read_fed(struct read *read, struct pen_span bytes, size_t piece)
{
    struct pen_error err = { 0 };
    struct unpack *unpack;
    size_t at = bytes.size < piece ? bytes.size : piece;
    char *fed = fuzz_copy((struct pen_span){ bytes.data, at }, 0), data[512];
    ssize_t n = unpack_new_fed(&unpack, fed, at, &err);

    assert(n == 0);
    while (read->bytes.size < UNPACKED_MAX) {
        size_t size = bytes.size - at < piece ? bytes.size - at : piece;

        n = unpack_read(unpack, data, sizeof(data), &err);
        if (n > 0)
            buf_add(&read->bytes, data, (size_t)n);
        if (n < 0 || (n == 0 && size == 0))
            break;
        if (n > 0)
            continue;
        free(fed);
        fed = fuzz_copy((struct pen_span){ bytes.data + at, size }, 0);
        unpack_feed(unpack, fed, size);
        at += size;
    }
    read->last = n;
    read->complete = unpack_complete(unpack);
    unpack_free(unpack);
    free(fed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = feed_of(data, size);
    size_t piece = (size_t)feed_byte(&feed) + 1;
    uint8_t seek = feed_byte(&feed);
    struct read whole = { 0 }, pieces = { 0 }, rest = { 0 }, fed = { 0 };
    struct pen_span bytes = feed_span(&feed, SIZE_MAX);
    char path[32];
    int fd = fuzz_file(bytes, path);
    size_t same, from;

    read_all(&whole, fd, UNPACKED_MAX, 0);
    if (whole.bytes.size > 16384)
        piece *= 64;
    read_all(&pieces, fd, piece, 0);
    same = whole.bytes.size < pieces.bytes.size ? whole.bytes.size : pieces.bytes.size;
    /* What zstd makes of damage before it notices is anybody's guess. */
    assert(whole.format == pieces.format);
    if (whole.format != UNPACK_ZSTD || (whole.last >= 0 && pieces.last >= 0))
        assert(same == 0 || memcmp(whole.bytes.data, pieces.bytes.data, same) == 0);
    if (whole.last <= 0 && pieces.last <= 0) {
        assert(whole.bytes.size == pieces.bytes.size && whole.complete == pieces.complete && whole.last == pieces.last);
        from = whole.bytes.size * seek / 256;
        read_all(&rest, fd, UNPACKED_MAX, from);
        assert(from == 0 || rest.bytes.size == whole.bytes.size - from);
        assert(rest.bytes.size == 0 || from == 0 || whole.last < 0 ||
               memcmp(rest.bytes.data, whole.bytes.data + from, rest.bytes.size) == 0);
    }
    read_fed(&fed, bytes, piece + 3);
    if (whole.last <= 0 && fed.last <= 0) {
        assert(fed.bytes.size == whole.bytes.size && fed.complete == whole.complete && fed.last == whole.last);
        assert(fed.bytes.size == 0 || (whole.format == UNPACK_ZSTD && whole.last < 0) ||
               memcmp(fed.bytes.data, whole.bytes.data, fed.bytes.size) == 0);
    }
    buf_free(&whole.bytes);
    buf_free(&pieces.bytes);
    buf_free(&rest.bytes);
    buf_free(&fed.bytes);
    return 0;
}
