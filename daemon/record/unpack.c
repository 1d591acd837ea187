/*
 * unpack.c - one reader for plain bytes, gzip and zstd.
 *
 * Both packed formats are chains (members, frames), each told by its own magic, so one loop serves both: take input, feed
 * the decoder, and at the end of a link look whether another begins. Bytes that are no further link are an archive's
 * padding: zeros, as tar and tape leave them, end it quietly, anything else is damage. A packed stream cannot be entered
 * in the middle: seeking forward reads and drops, seeking back starts over.
 *
 * An archive that is still being written ends in the middle of a link. That is no trouble: read() says 0 and complete()
 * says no, and when the file has grown, reading goes on where it stopped.
 */
#include "daemon/record/unpack.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>
#include <zlib.h>
#include <zstd.h>

#define INPUT_BYTES (64 * 1024)
#define ZSTD_WINDOW_LOG 27           /* 128 MiB: what `zstd --long` asks for; more is refused */

struct unpack {
    int fd;                          /* -1: fed */
    struct pen_span fed;             /* not yet taken */
    bool seekable;
    enum unpack_format format;
    uint64_t position;               /* of the next unpacked byte */
    uint64_t input_at;               /* of the next byte to read from a seekable fd */
    unsigned char *input;            /* read and not yet used: input[used..filled) */
    size_t used, filled;
    bool in_link;                    /* a member or frame has begun and is not at its end */
    bool any_link;
    bool padded;                     /* zeros follow the last link: nothing else may */
    struct pen_error damage;         /* once met, it stays: a decoder is not asked again after an error */
    z_stream z;
    bool z_ready;
    ZSTD_DCtx *zstd;
    size_t zstd_wants;               /* bytes of input, by its own word */
    bool zstd_pending;               /* it may hold output that had no room */
};

/* ---- Input ----------------------------------------------------------------------------------------------------- */

static ssize_t input_read(struct unpack *unpack, void *data, size_t size)
{
    ssize_t n;

    if (unpack->fd < 0) {
        size = size < unpack->fed.size ? size : unpack->fed.size;
        memcpy(data, unpack->fed.data, size);
        unpack->fed = (struct pen_span){ unpack->fed.data + size, unpack->fed.size - size };
        return (ssize_t)size;
    }
    do
        n = unpack->seekable ? pread(unpack->fd, data, size, (off_t)unpack->input_at) : read(unpack->fd, data, size);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    unpack->input_at += (uint64_t)n;
    return n;
}

/* Has at least `want` bytes of input, or all there are. 1, or 0 at the end, or negative. */
static int input_fill(struct unpack *unpack, size_t want)
{
    if (unpack->input == NULL)
        unpack->input = malloc(INPUT_BYTES);
    if (unpack->input == NULL)
        return UV_ENOMEM;
    if (unpack->filled - unpack->used < want) {
        memmove(unpack->input, unpack->input + unpack->used, unpack->filled - unpack->used);
        unpack->filled -= unpack->used;
        unpack->used = 0;
    }
    while (unpack->filled - unpack->used < want) {
        ssize_t n = input_read(unpack, unpack->input + unpack->filled, INPUT_BYTES - unpack->filled);

        if (n < 0)
            return (int)n;
        if (n == 0)
            break;
        unpack->filled += (size_t)n;
    }
    return unpack->filled > unpack->used;
}

/* Told again whenever the start is read again: a file may have been empty before. */
static int unpack_tell(struct unpack *unpack)
{
    static const unsigned char gzip[] = { 0x1f, 0x8b }, zstd[] = { 0x28, 0xb5, 0x2f, 0xfd };
    unsigned char few[sizeof zstd];
    const unsigned char *start = few;
    ssize_t size;

    /* Plain files are read straight into the caller's memory: an open one costs no buffer. */
    if (unpack->seekable) {
        size = input_read(unpack, few, sizeof few);
        unpack->input_at = 0;
    } else {
        size = input_fill(unpack, sizeof few);
        start = unpack->input + unpack->used;
        if (size >= 0)
            size = (ssize_t)(unpack->filled - unpack->used);
    }
    if (size < 0)
        return (int)size;
    if ((size_t)size >= sizeof gzip && memcmp(start, gzip, sizeof gzip) == 0)
        unpack->format = UNPACK_GZIP;
    else if ((size_t)size >= sizeof zstd && memcmp(start, zstd, sizeof zstd) == 0)
        unpack->format = UNPACK_ZSTD;
    else
        unpack->format = UNPACK_PLAIN;
    if (unpack->format == UNPACK_PLAIN && unpack->seekable) {
        free(unpack->input);         /* of the archive that it was before */
        unpack->input = NULL;
    }
    return 0;
}

int unpack_new(struct unpack **ret, int fd, struct pen_error *err)
{
    struct unpack *unpack = calloc(1, sizeof *unpack);
    struct stat st;
    int r;

    if (unpack == NULL)
        return pen_error_set(err, UV_ENOMEM, "out of memory");
    unpack->fd = fd;
    unpack->seekable = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    r = unpack_tell(unpack);
    if (r < 0) {
        unpack_free(unpack);
        return pen_error_set(err, r, "cannot read: %s", uv_strerror(r));
    }
    *ret = unpack;
    return 0;
}

int unpack_new_fed(struct unpack **ret, const char *data, size_t size, struct pen_error *err)
{
    struct unpack *unpack = calloc(1, sizeof *unpack);

    if (unpack == NULL)
        return pen_error_set(err, UV_ENOMEM, "out of memory");
    unpack->fd = -1;
    unpack_feed(unpack, data, size);
    if (unpack_tell(unpack) < 0) {
        unpack_free(unpack);
        return pen_error_set(err, UV_ENOMEM, "out of memory");
    }
    *ret = unpack;
    return 0;
}

void unpack_feed(struct unpack *unpack, const char *data, size_t size)
{
    assert(unpack->fd < 0 && unpack->fed.size == 0);
    unpack->fed = (struct pen_span){ data, size };
}

void unpack_free(struct unpack *unpack)
{
    if (unpack == NULL)
        return;
    if (unpack->z_ready)
        inflateEnd(&unpack->z);
    ZSTD_freeDCtx(unpack->zstd);
    free(unpack->input);
    free(unpack);
}

enum unpack_format unpack_format(const struct unpack *unpack)
{
    return unpack->format;
}

bool unpack_complete(const struct unpack *unpack)
{
    return unpack->format == UNPACK_PLAIN ||
           (unpack->any_link && !unpack->in_link && unpack->used == unpack->filled);
}

/* ---- Links ----------------------------------------------------------------------------------------------------- */

/* 1: a link begins here. 0: nothing more, for now or at all. */
static int link_begin(struct unpack *unpack, struct pen_error *err)
{
    int r = input_fill(unpack, 4);

    if (r <= 0)
        return r < 0 ? pen_error_set(err, r, "cannot read: %s", uv_strerror(r)) : 0;
    if (unpack->any_link && (unpack->padded || unpack->input[unpack->used] == 0)) {
        unpack->padded = true;       /* what is fed may end amid the zeros */
        while (r > 0 && unpack->input[unpack->used] == 0) {
            unpack->used++;
            r = input_fill(unpack, 1);
        }
        if (r <= 0)
            return r < 0 ? pen_error_set(err, r, "cannot read: %s", uv_strerror(r)) : 0;
        return pen_error_set(err, UV_EINVAL, "the archive is damaged: bytes that belong to none follow its end");
    }
    if (unpack->format == UNPACK_ZSTD) {
        if (unpack->zstd == NULL) {
            unpack->zstd = ZSTD_createDCtx();
            if (unpack->zstd == NULL)
                return pen_error_set(err, UV_ENOMEM, "out of memory");
            ZSTD_DCtx_setParameter(unpack->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
        }
        ZSTD_DCtx_reset(unpack->zstd, ZSTD_reset_session_only);
        unpack->zstd_wants = 1;
        unpack->zstd_pending = false;
    } else {
        if (!unpack->z_ready && inflateInit2(&unpack->z, 16 + MAX_WBITS) != Z_OK)
            return pen_error_set(err, UV_ENOMEM, "out of memory");
        unpack->z_ready = true;
        inflateReset(&unpack->z);
    }
    unpack->in_link = unpack->any_link = true;
    return 1;
}

/* One turn of the decoder: bytes written. The link's end clears in_link, damage is noted and comes after what this very
 * turn has written. */
static size_t link_turn_gzip(struct unpack *unpack, char *data, size_t size)
{
    z_stream *z = &unpack->z;
    int r;

    z->next_in = unpack->input + unpack->used;
    z->avail_in = (unsigned)(unpack->filled - unpack->used);
    z->next_out = (unsigned char *)data;
    z->avail_out = size > UINT32_MAX ? UINT32_MAX : (unsigned)size;
    size = z->avail_out;
    r = inflate(z, Z_NO_FLUSH);
    unpack->used = unpack->filled - z->avail_in;
    if (r == Z_STREAM_END)
        unpack->in_link = false;
    else if (r != Z_OK && r != Z_BUF_ERROR)
        (void)pen_error_set(&unpack->damage, r == Z_MEM_ERROR ? UV_ENOMEM : UV_EINVAL, "the gzip archive is damaged: %s",
                            z->msg != NULL ? z->msg : "not to be unpacked");
    return size - z->avail_out;
}

/* A call that ends in damage does not say what it wrote before. So zstd gets one block at a time, without the next one's
 * head, and nothing while the last one is not all out. */
static size_t link_turn_zstd(struct unpack *unpack, char *data, size_t size)
{
    size_t head = 3, left = unpack->filled - unpack->used, wants = unpack->zstd_wants;
    ZSTD_inBuffer in = { unpack->input + unpack->used, wants > head ? wants - head : wants, 0 };
    ZSTD_outBuffer out = { data, size, 0 };
    size_t r;

    if (in.size > left)
        in.size = left;
    if (unpack->zstd_pending)
        in.size = 0;
    r = ZSTD_decompressStream(unpack->zstd, &out, &in);
    if (ZSTD_isError(r)) {
        (void)pen_error_set(&unpack->damage, UV_EINVAL, "the zstd archive is damaged: %s", ZSTD_getErrorName(r));
        return 0;
    }
    unpack->used += in.pos;
    unpack->zstd_wants = r;
    unpack->zstd_pending = out.pos == size;
    unpack->in_link = r > 0;
    return out.pos;
}

static ssize_t packed_read(struct unpack *unpack, char *data, size_t size, struct pen_error *err)
{
    size_t done = 0, n;

    while (done < size && unpack->damage.code == 0) {
        int r;

        if (!unpack->in_link) {
            r = link_begin(unpack, &unpack->damage);
            if (r <= 0)
                break;
        }
        /* The decoder may still hold output when the input is used up: ask it before the file's end counts. */
        r = input_fill(unpack, 1);
        if (r < 0) {
            (void)pen_error_set(&unpack->damage, r, "cannot read: %s", uv_strerror(r));
            break;
        }
        n = unpack->format == UNPACK_ZSTD ? link_turn_zstd(unpack, data + done, size - done)
                                          : link_turn_gzip(unpack, data + done, size - done);
        done += n;
        unpack->position += n;
        if (r == 0 && n == 0)
            break;
    }
    /* What was unpacked before the damage is good and goes first. */
    if (done > 0 || unpack->damage.code == 0)
        return (ssize_t)done;
    *err = unpack->damage;
    return err->code;
}

/* ---- Reading --------------------------------------------------------------------------------------------------- */

static ssize_t plain_read(struct unpack *unpack, char *data, size_t size, struct pen_error *err)
{
    size_t done = unpack->filled - unpack->used;

    if (done > size)
        done = size;
    if (done > 0)
        memcpy(data, unpack->input + unpack->used, done);
    unpack->used += done;
    while (done < size) {
        ssize_t n = input_read(unpack, data + done, size - done);

        if (n < 0 && done == 0)
            return pen_error_set(err, (int)n, "cannot read: %s", uv_strerror((int)n));
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    unpack->position += done;
    return (ssize_t)done;
}

ssize_t unpack_read(struct unpack *unpack, char *data, size_t size, struct pen_error *err)
{
    assert(size > 0);
    return unpack->format == UNPACK_PLAIN ? plain_read(unpack, data, size, err) : packed_read(unpack, data, size, err);
}

static int unpack_rewind(struct unpack *unpack, struct pen_error *err)
{
    int r;

    if (!unpack->seekable)
        return pen_error_set(err, UV_ESPIPE, "a pipe cannot be read again");
    unpack->position = unpack->input_at = 0;
    unpack->used = unpack->filled = 0;
    unpack->in_link = unpack->any_link = unpack->padded = false;
    unpack->damage = (struct pen_error){ 0 };
    r = unpack_tell(unpack);
    return r < 0 ? pen_error_set(err, r, "cannot read: %s", uv_strerror(r)) : 0;
}

int unpack_seek(struct unpack *unpack, uint64_t position, struct pen_error *err)
{
    char scratch[16 * 1024];

    if (position == unpack->position && position > 0)
        return 0;
    if (position < unpack->position || (position == 0 && unpack->seekable)) {
        int r = unpack_rewind(unpack, err);

        if (r < 0)
            return r;
    }
    if (unpack->format == UNPACK_PLAIN && unpack->seekable) {
        unpack->position = unpack->input_at = position;
        return 0;
    }
    while (unpack->position < position) {
        uint64_t left = position - unpack->position;
        ssize_t n = unpack_read(unpack, scratch, left < sizeof scratch ? (size_t)left : sizeof scratch, err);

        if (n < 0)
            return (int)n;
        if (n == 0)
            return pen_error_set(err, UV_EOF, "the archive ends before the place where reading stopped");
    }
    return 0;
}
