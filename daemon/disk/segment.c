/*
 * segment.c - the format of a segment, version 2.
 *
 * All integers are little-endian. A segment is a header, the same header again, and frames behind it up to the end of the
 * file. Its name, `%016x.seg`, is the number of its first message: messages of a spool are numbered from 1 in the order in
 * which they were appended. So names alone tell how many messages each segment holds, but the last.
 *
 *   header    "PENSPOOL" | u32 version = 2 | u32 flags: 1 encrypted | salt (32) | key id (8) | u64 life | i64 made |
 *             schema (16) | sink type (16) | zeros (20) | u32 crc                                     128 bytes
 *             at 0 and at 4096, zeros between; `made` in 100 ns since 1970; words end with zeros
 *   frame     head | payload, from 4224 on
 *   head      u32 magic "PFR2" | u16 flags | u8 kind | u8 zero | u32 stored | u32 plain | u32 messages | u32 before |
 *             u64 order | u64 tag | u32 payload crc | u32 head crc                                         48 bytes
 *             flags: 1 the payload is one zstd frame, 2 it is encrypted; before: messages of the segment's earlier frames;
 *             tag: the first 8 bytes of the salt, so that no old block of another segment passes for a frame of this one
 *   payload   u32 streams, each u16 size and bytes; then per message u32 size, u32 stream, u32 source, u32 zero,
 *             u64 position, i64 ticks; then the messages' bytes, parted by commas
 *
 * Every crc is CRC-32C: of the 124 bytes before it in a header, the 44 before it in a head, the payload as stored.
 *
 * Encryption is AES-256-GCM, each payload for itself, compressed before and with its tag of 16 bytes behind it (`stored`
 * counts them). The key is HKDF-SHA-256 of the ring's key by the salt and the header's first 124 bytes; the nonce is the
 * frame's offset; the head's first 40 bytes are authenticated with it. So a frame opens only at its place in its segment. No
 * nonce repeats: a segment is written once, front to back, and where an append failed it ends. Heads and header stay
 * readable for all who may read the file: sizes, counts, kinds, times, the sink's type and schema, no stream's name.
 *
 * A reader trusts nothing. A head that is not whole, or says what cannot be, is not there: the search goes on behind it for
 * the next one. Headers are only needed for decryption, and there are two of them: where both are damaged plain frames are
 * still read. A file of a hostile size is read to a bound.
 *
 * If we die while a frame is written, its beginning lies at the file's end, or zeros where the file grew before its bytes
 * came: nobody was told that it is safe, and no one will take it for a frame. That is how a torn segment is told from damage.
 */
#include "daemon/disk/segment.h"

#include "daemon/disk/io.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <isa-l/crc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define MAGIC "PENSPOOL"
#define VERSION 2u
#define HEADER_ENCRYPTED 1u
#define HEADER_CRC_AT 124u
#define FRAME_MAGIC 0x32524650u                    /* "PFR2" */
#define FRAME_ZSTD 1u
#define FRAME_ENCRYPTED 2u
#define HEAD_SEALED 40u                            /* bytes of a head that encryption authenticates */
#define HEAD_CRC_AT 44u
#define MESSAGE_SIZE 32u
/* A batch is at most a megabyte and a message at most what one record can make of itself: beyond this a head lies. */
#define PAYLOAD_MAX (128u * 1024 * 1024)
/* A segment ends with the frame that passes its size: beyond this a file is none of ours. */
#define FILE_MAX (64u * 1024 * 1024 + 2 * PAYLOAD_MAX)
#define NUMBER_MAX (UINT64_C(1) << 62)
#define SECTOR 512u
#define SECTOR_LEAST 16u             /* so many zeros are no part of a payload by chance */

/* ---- Bytes ---- */

static void put16(unsigned char *at, uint16_t value)
{
    at[0] = (unsigned char)value;
    at[1] = (unsigned char)(value >> 8);
}

static void put32(unsigned char *at, uint32_t value)
{
    put16(at, (uint16_t)value);
    put16(at + 2, (uint16_t)(value >> 16));
}

static void put64(unsigned char *at, uint64_t value)
{
    put32(at, (uint32_t)value);
    put32(at + 4, (uint32_t)(value >> 32));
}

static uint16_t get16(const unsigned char *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t get32(const unsigned char *at)
{
    return get16(at) | (uint32_t)get16(at + 2) << 16;
}

static uint64_t get64(const unsigned char *at)
{
    return get32(at) | (uint64_t)get32(at + 4) << 32;
}

static uint32_t crc32c(const void *data, size_t size)
{
    return crc32_iscsi((unsigned char *)data, (int)size, 0xFFFFFFFFu) ^ 0xFFFFFFFFu;
}

/* ---- Names ---- */

void segment_path(char out[SEGMENT_PATH_SIZE], uint64_t number)
{
    snprintf(out, SEGMENT_PATH_SIZE, "%016" PRIx64 ".seg", number);
}

bool segment_number(uint64_t *number, const char *name)
{
    if (strlen(name) != 20 || strspn(name, "0123456789abcdef") != 16 || strcmp(name + 16, ".seg") != 0)
        return false;
    *number = strtoull(name, NULL, 16);
    return *number < NUMBER_MAX;                   /* what follows it can be counted */
}

struct names_read {
    struct segment_names *names;
    size_t capacity;
    int dir_fd;
};

static int on_name(void *arg, const char *name)
{
    struct names_read *read = arg;
    struct segment_names *names = read->names;
    size_t size = strlen(name);
    uint64_t number, bytes;
    struct stat st;

    bytes = io->fstatat(read->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
    if (!segment_number(&number, name)) {
        names->aside += size > 6 && strcmp(name + size - 6, ".aside") == 0;
        names->other_bytes += bytes;
        return 0;
    }
    if (names->count == read->capacity) {
        read->capacity = read->capacity > 0 ? read->capacity * 2 : 64;
        names->at = realloc(names->at, read->capacity * sizeof(*names->at));
        if (names->at == NULL)
            abort();
    }
    names->at[names->count++] = (struct segment_name){ number, bytes };
    return 0;
}

static int name_compare(const void *a, const void *b)
{
    uint64_t x = ((const struct segment_name *)a)->number, y = ((const struct segment_name *)b)->number;

    return x < y ? -1 : x > y;
}

int segment_names_read(struct segment_names *names, int dir_fd)
{
    struct names_read read = { .names = names, .dir_fd = dir_fd };

    *names = (struct segment_names){ 0 };
    if (io->list(dir_fd, on_name, &read) < 0) {
        int r = -errno;

        segment_names_free(names);
        return r;
    }
    if (names->count > 0)
        qsort(names->at, names->count, sizeof(*names->at), name_compare);
    return 0;
}

void segment_names_free(struct segment_names *names)
{
    free(names->at);
    *names = (struct segment_names){ 0 };
}

int segment_set_aside(int dir_fd, uint64_t number)
{
    char from[SEGMENT_PATH_SIZE], to[2 * SEGMENT_PATH_SIZE];

    segment_path(from, number);
    /* The time, because the number may be given again. */
    snprintf(to, sizeof(to), "%016" PRIx64 "-%016" PRIx64 ".aside", number, (uint64_t)io_now_ticks());
    return io->renameat(dir_fd, from, dir_fd, to) < 0 ? -errno : 0;
}

/* ---- Header ---- */

static void header_write(unsigned char out[SEGMENT_HEADER_SIZE], const struct segment_header *header)
{
    memset(out, 0, SEGMENT_HEADER_SIZE);
    memcpy(out, MAGIC, 8);
    put32(out + 8, VERSION);
    put32(out + 12, header->encrypted ? HEADER_ENCRYPTED : 0);
    memcpy(out + 16, header->salt, KEY_SALT_SIZE);
    memcpy(out + 48, header->key_id, KEY_ID_SIZE);
    put64(out + 56, header->life);
    put64(out + 64, (uint64_t)header->made_ticks);
    memcpy(out + 72, header->schema, SEGMENT_WORD_MAX);
    memcpy(out + 88, header->type, SEGMENT_WORD_MAX);
    put32(out + HEADER_CRC_AT, crc32c(out, HEADER_CRC_AT));
}

/* Words are shown to people and compared with names: of anything else than a name's letters the header is not ours. */
static bool word_read(char word[SEGMENT_WORD_MAX + 1], const unsigned char *in)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";

    memcpy(word, in, SEGMENT_WORD_MAX);
    return word[strspn(word, letters)] == '\0';
}

static bool header_read(const unsigned char in[SEGMENT_HEADER_SIZE], struct segment_header *header)
{
    struct segment_header read;

    if (memcmp(in, MAGIC, 8) != 0 || get32(in + 8) != VERSION || get32(in + HEADER_CRC_AT) != crc32c(in, HEADER_CRC_AT))
        return false;
    read = (struct segment_header){
        .encrypted = (get32(in + 12) & HEADER_ENCRYPTED) != 0, .life = get64(in + 56), .made_ticks = (int64_t)get64(in + 64),
    };
    memcpy(read.salt, in + 16, KEY_SALT_SIZE);
    memcpy(read.key_id, in + 48, KEY_ID_SIZE);
    if (!word_read(read.schema, in + 72) || !word_read(read.type, in + 88))
        return false;
    *header = read;
    return true;
}

static uint64_t header_tag(const struct segment_header *header)
{
    return get64(header->salt);
}

int segment_make(int *fd, int dir_fd, uint64_t number, const struct segment_header *header)
{
    const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
    unsigned char bytes[SEGMENT_BEGIN] = { 0 };
    char path[SEGMENT_PATH_SIZE];
    int made, r;

    segment_path(path, number);
    made = io->openat(dir_fd, path, flags, 0600);
    /* An append that failed, and so did the removal of its file: nothing in it was acknowledged. */
    if (made < 0 && errno == EEXIST && io->unlinkat(dir_fd, path, 0) == 0)
        made = io->openat(dir_fd, path, flags, 0600);
    if (made < 0)
        return -errno;
    header_write(bytes, header);
    header_write(bytes + SEGMENT_COPY_AT, header);
    r = io_write_full(made, bytes, sizeof(bytes), 0);
    if (r < 0) {
        io->close(made);
        io->unlinkat(dir_fd, path, 0);
        return r;
    }
    *fd = made;
    return 0;
}

int segment_open(struct segment_file *file, int dir_fd, uint64_t number)
{
    unsigned char bytes[SEGMENT_HEADER_SIZE] = { 0 };
    char path[SEGMENT_PATH_SIZE];
    struct stat st;
    ssize_t got;

    *file = (struct segment_file){ .fd = -1 };
    segment_path(path, number);
    file->fd = io->openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
    if (file->fd < 0)
        return -errno;
    if (io->fstat(file->fd, &st) < 0) {
        int r = -errno;

        segment_close(file);
        return r;
    }
    file->size = !S_ISREG(st.st_mode) ? 0 : st.st_size < FILE_MAX ? (uint64_t)st.st_size : FILE_MAX;
    file->bytes = (uint64_t)st.st_blocks * 512;
    file->modified_ticks = (int64_t)st.st_mtim.tv_sec * 10000000 + st.st_mtim.tv_nsec / 100;
    for (uint64_t at = 0; at <= SEGMENT_COPY_AT && !file->has_header; at += SEGMENT_COPY_AT) {
        got = io_read_full(file->fd, bytes, sizeof(bytes), at);
        file->has_header = got == (ssize_t)sizeof(bytes) && header_read(bytes, &file->header);
        if (at == 0 && got >= 12 && memcmp(bytes, MAGIC, 8) == 0 && get32(bytes + 8) != VERSION)
            file->alien = get32(bytes + 8);
    }
    if (file->has_header)
        file->alien = 0;
    return 0;
}

void segment_close(struct segment_file *file)
{
    if (file->fd >= 0)
        io->close(file->fd);
    file->fd = -1;
}

/* ---- Heads ---- */

static void head_write(unsigned char out[SEGMENT_HEAD_SIZE], const struct segment_frame *frame)
{
    memset(out, 0, SEGMENT_HEAD_SIZE);
    put32(out, FRAME_MAGIC);
    put16(out + 4, frame->flags);
    out[6] = (unsigned char)frame->kind;
    put32(out + 8, frame->stored);
    put32(out + 12, frame->plain);
    put32(out + 16, frame->messages);
    put32(out + 20, frame->before);
    put64(out + 24, frame->order);
    put64(out + 32, frame->tag);
    put32(out + HEAD_SEALED, frame->crc);
    put32(out + HEAD_CRC_AT, crc32c(out, HEAD_CRC_AT));
}

/* Could a frame of ours say this of itself? */
static bool head_is_sane(const struct segment_frame *frame)
{
    uint64_t tag = (frame->flags & FRAME_ENCRYPTED) != 0 ? KEY_TAG_SIZE : 0;

    return frame->stored <= PAYLOAD_MAX + KEY_TAG_SIZE && frame->plain <= PAYLOAD_MAX && frame->stored > tag &&
        (unsigned)frame->kind < PEN_KINDS && frame->messages > 0 && frame->messages <= frame->plain / MESSAGE_SIZE &&
        frame->before <= UINT32_MAX - frame->messages &&
        ((frame->flags & FRAME_ZSTD) != 0 || frame->stored == frame->plain + tag);
}

static bool head_read(const unsigned char in[SEGMENT_HEAD_SIZE], struct segment_frame *frame)
{
    struct segment_frame read;

    if (get32(in) != FRAME_MAGIC || get32(in + HEAD_CRC_AT) != crc32c(in, HEAD_CRC_AT))
        return false;
    read = (struct segment_frame){
        .flags = get16(in + 4), .kind = in[6], .stored = get32(in + 8), .plain = get32(in + 12),
        .messages = get32(in + 16), .before = get32(in + 20), .order = get64(in + 24), .tag = get64(in + 32),
        .crc = get32(in + HEAD_SEALED),
    };
    if (!head_is_sane(&read))
        return false;
    *frame = read;
    return true;
}

static bool head_find(const struct segment_file *file, const unsigned char *block, size_t size, uint64_t at, uint64_t end,
                      struct segment_frame *frame)
{
    const unsigned char *from = block, *last = block + size - SEGMENT_HEAD_SIZE;

    for (; from <= last && (from = memchr(from, 'P', (size_t)(last - from) + 1)) != NULL; from++) {
        if (!head_read(from, frame) || (file->has_header && frame->tag != header_tag(&file->header)))
            continue;
        frame->offset = at + (uint64_t)(from - block);
        frame->end = frame->offset + SEGMENT_HEAD_SIZE + frame->stored;
        if (frame->end <= end)
            return true;
    }
    return false;
}

int segment_next(const struct segment_file *file, uint64_t at, uint64_t end, bool over, struct segment_frame *frame)
{
    unsigned char block[64 * 1024];
    size_t want = SEGMENT_HEAD_SIZE;               /* it is there as a rule; if not, look for it in larger pieces */
    ssize_t got;

    if (end > file->size)
        end = file->size;
    if (at < SEGMENT_BEGIN)
        at = SEGMENT_BEGIN;
    while (at < end && end - at >= SEGMENT_HEAD_SIZE) {
        got = io_read_full(file->fd, block, want < end - at ? want : (size_t)(end - at), at);
        if (got < 0 && !over)
            return (int)got;
        if (got < 0) {                             /* what lies behind a bad sector may be good */
            at = (at / 4096 + 1) * 4096;
            continue;
        }
        if (got < (ssize_t)SEGMENT_HEAD_SIZE)
            break;                                 /* the file has become shorter */
        if (head_find(file, block, (size_t)got, at, end, frame))
            return 0;
        at += (uint64_t)got - (SEGMENT_HEAD_SIZE - 1);
        want = sizeof(block);
    }
    *frame = (struct segment_frame){ .offset = end, .end = end };
    return 0;
}

/* Frames are written into blocks that were allocated before, so what did not come reads as zeros, a sector at least. */
bool segment_is_torn(const struct segment_file *file)
{
    static const unsigned char zeros[SECTOR];
    struct segment_frame frame;
    unsigned char sector[SECTOR];
    ssize_t got;

    if (file->alien > 0)
        return false;
    got = io_read_full(file->fd, sector, SEGMENT_HEAD_SIZE, SEGMENT_BEGIN);
    if (got < (ssize_t)SEGMENT_HEAD_SIZE)
        return got >= 0;
    if (head_read(sector, &frame) && SEGMENT_BEGIN + SEGMENT_HEAD_SIZE + frame.stored > file->size)
        return true;
    for (uint64_t at = SEGMENT_BEGIN; at < file->size; at += (uint64_t)got) {
        got = io_read_full(file->fd, sector, SECTOR - at % SECTOR, at);
        if (got <= 0)
            return false;
        if ((size_t)got >= SECTOR_LEAST && memcmp(sector, zeros, (size_t)got) == 0)
            return true;
    }
    return false;
}

/* ---- Payloads ---- */

static size_t payload_size(const struct part *part)
{
    size_t size = 4 + (size_t)part->lent.count * MESSAGE_SIZE + part->lent.size;

    for (uint32_t i = 0; i < part->batch->stream_count; i++)
        size += 2 + strnlen(part->lent.streams[i], UINT16_MAX);
    return size;
}

size_t segment_frame_bound(const struct part *part)
{
    return SEGMENT_HEAD_SIZE + payload_size(part) + KEY_TAG_SIZE;
}

/* With room for a tag behind it. */
static unsigned char *payload_write(const struct part *part, size_t *size)
{
    const struct pen_batch *lent = &part->lent;
    unsigned char *payload, *at;

    *size = payload_size(part);
    assert(*size <= PAYLOAD_MAX);
    at = payload = malloc(*size + KEY_TAG_SIZE);
    if (payload == NULL)
        abort();
    put32(at, part->batch->stream_count);
    at += 4;
    for (uint32_t i = 0; i < part->batch->stream_count; i++) {
        size_t length = strnlen(lent->streams[i], UINT16_MAX);

        put16(at, (uint16_t)length);
        memcpy(at + 2, lent->streams[i], length);
        at += 2 + length;
    }
    for (uint32_t i = 0; i < lent->count; i++, at += MESSAGE_SIZE) {
        const struct pen_message *message = &lent->messages[i];

        put32(at, message->size);
        put32(at + 4, message->stream);
        put32(at + 8, message->source);
        put32(at + 12, 0);
        put64(at + 16, message->position);
        put64(at + 24, (uint64_t)message->ticks);
    }
    memcpy(at, lent->data, lent->size);
    return payload;
}

/* The payload as one zstd frame, in its place; where it does not shrink it stays as it is. */
static void payload_compress(unsigned char **payload, struct segment_frame *frame, ZSTD_CCtx *zstd)
{
    unsigned char *packed = malloc(frame->plain + KEY_TAG_SIZE);
    size_t got;

    if (packed == NULL)
        abort();
    got = ZSTD_compressCCtx(zstd, packed, frame->plain - 1, *payload, frame->plain, 1);
    if (ZSTD_isError(got)) {
        free(packed);
        return;
    }
    free(*payload);
    *payload = packed;
    frame->stored = (uint32_t)got;
    frame->flags |= FRAME_ZSTD;
}

static struct pen_span span(const void *data, size_t size)
{
    return (struct pen_span){ data, size };
}

/* Everything that is sealed with the payload: see the top. `head` and `context` are the caller's to lend. */
static struct key_place frame_place(const struct segment_header *header, const struct segment_frame *frame,
                                    const struct key *key, unsigned char head[SEGMENT_HEAD_SIZE],
                                    unsigned char context[SEGMENT_HEADER_SIZE])
{
    head_write(head, frame);
    header_write(context, header);
    return (struct key_place){
        .key = key, .salt = span(header->salt, KEY_SALT_SIZE), .context = span(context, HEADER_CRC_AT),
        .head = span(head, HEAD_SEALED), .place = frame->offset,
    };
}

static void payload_seal(unsigned char *payload, const struct segment_header *header, const struct key *key,
                         struct segment_frame *frame)
{
    unsigned char head[SEGMENT_HEAD_SIZE], context[SEGMENT_HEADER_SIZE];
    size_t size = frame->stored;
    struct key_place where;

    frame->flags |= FRAME_ENCRYPTED;
    frame->stored += KEY_TAG_SIZE;
    where = frame_place(header, frame, key, head, context);
    key_seal(&where, payload, size);
}

int segment_append(int fd, const struct segment_header *header, const struct key *key, ZSTD_CCtx *zstd,
                   const struct part *part, struct segment_frame *frame)
{
    unsigned char head[SEGMENT_HEAD_SIZE], *payload;
    size_t size;
    int r;

    assert(header->encrypted == (key != NULL));
    payload = payload_write(part, &size);
    frame->flags = 0;
    frame->kind = part->lent.kind;
    frame->messages = part->lent.count;
    frame->order = part->order;
    frame->tag = header_tag(header);
    frame->plain = frame->stored = (uint32_t)size;
    if (zstd != NULL)
        payload_compress(&payload, frame, zstd);
    if (key != NULL)
        payload_seal(payload, header, key, frame);
    frame->crc = crc32c(payload, frame->stored);
    frame->end = frame->offset + SEGMENT_HEAD_SIZE + frame->stored;
    head_write(head, frame);
    r = io_write_full(fd, head, SEGMENT_HEAD_SIZE, frame->offset);
    if (r == 0)
        r = io_write_full(fd, payload, frame->stored, frame->offset + SEGMENT_HEAD_SIZE);
    free(payload);
    return r;
}

/* The names at `at`; where they end, or NULL. */
static const unsigned char *payload_split_names(struct segment_payload *payload, const unsigned char *at,
                                                const unsigned char *end)
{
    char *name = payload->names;

    for (uint32_t i = 0; i < payload->stream_count; i++) {
        size_t length;

        if (end - at < 2 || (size_t)(end - at - 2) < (length = get16(at)))
            return NULL;
        memcpy(name, at + 2, length);
        name[length] = '\0';
        payload->streams[i] = name;
        name += length + 1;
        at += 2 + length;
    }
    return at;
}

/* Takes the plain bytes apart into names, index and data; false where they do not add up. */
static bool payload_split(struct segment_payload *payload, size_t size, uint32_t count)
{
    const unsigned char *at = (const unsigned char *)payload->data, *end = at + size;
    uint32_t offset = 0;

    if (size < 4 || (payload->stream_count = get32(at)) > size / 2)
        return false;
    payload->streams = calloc(payload->stream_count + 1, sizeof(*payload->streams));
    payload->names = malloc(size + 1);
    payload->messages = calloc(count, sizeof(*payload->messages));
    if (payload->streams == NULL || payload->names == NULL || payload->messages == NULL)
        abort();
    at = payload_split_names(payload, at + 4, end);
    if (at == NULL || (size_t)(end - at) / MESSAGE_SIZE < count)
        return false;
    for (uint32_t i = 0; i < count; i++, at += MESSAGE_SIZE) {
        struct pen_message *message = &payload->messages[i];

        message->offset = offset;
        message->size = get32(at);
        message->stream = get32(at + 4);
        message->source = get32(at + 8);
        message->position = get64(at + 16);
        message->ticks = (int64_t)get64(at + 24);
        if (message->stream >= payload->stream_count || message->size >= PAYLOAD_MAX || offset >= PAYLOAD_MAX)
            return false;
        offset += message->size + 1;
    }
    payload->size = (size_t)(end - at);
    if (payload->size + 1 != offset)
        return false;
    memmove(payload->data, at, payload->size);
    return true;
}

static bool payload_unpack(struct segment_payload *payload, const struct segment_frame *frame, size_t stored)
{
    char *plain;
    bool good;

    if ((frame->flags & FRAME_ZSTD) == 0)
        return stored == frame->plain;
    plain = malloc(frame->plain + 1u);
    if (plain == NULL)
        abort();
    good = ZSTD_decompress(plain, frame->plain, payload->data, stored) == frame->plain;
    free(payload->data);
    payload->data = plain;
    return good;
}

static enum segment_loaded payload_open(struct segment_payload *payload, const struct segment_file *file,
                                        const struct segment_frame *frame, const struct keys *keys, size_t *stored)
{
    unsigned char head[SEGMENT_HEAD_SIZE], context[SEGMENT_HEADER_SIZE];
    struct key_place where;
    const struct key *key;

    if ((frame->flags & FRAME_ENCRYPTED) == 0)
        return !file->has_header || !file->header.encrypted ? SEGMENT_LOADED : SEGMENT_DAMAGED;
    if (!file->has_header)
        return SEGMENT_DAMAGED;
    key = keys_find(keys, file->header.key_id);
    if (key == NULL)
        return SEGMENT_LOCKED;
    where = frame_place(&file->header, frame, key, head, context);
    if (!key_open(&where, (unsigned char *)payload->data, *stored))
        return SEGMENT_DAMAGED;
    *stored -= KEY_TAG_SIZE;
    return SEGMENT_LOADED;
}

/* The payload as stored, owned by the caller: 1, or 0 where it is not what was written; negative: trouble. */
static int payload_read(char **ret, const struct segment_file *file, const struct segment_frame *frame)
{
    char *stored = malloc(frame->stored);
    ssize_t got;

    if (stored == NULL)
        abort();
    *ret = stored;
    got = io_read_full(file->fd, stored, frame->stored, frame->offset + SEGMENT_HEAD_SIZE);
    return got < 0 ? (int)got : got == (ssize_t)frame->stored && crc32c(stored, frame->stored) == frame->crc;
}

int segment_verify(const struct segment_file *file, const struct segment_frame *frame)
{
    char *stored;
    int r = payload_read(&stored, file, frame);

    free(stored);
    return r;
}

enum segment_loaded segment_load(const struct segment_file *file, const struct segment_frame *frame,
                                 const struct keys *keys, struct segment_payload *payload)
{
    enum segment_loaded loaded;
    size_t stored = frame->stored;
    int r;

    *payload = (struct segment_payload){ .capacity = frame->plain };
    r = payload_read(&payload->data, file, frame);
    loaded = r < 0 ? SEGMENT_TROUBLE : r == 0 ? SEGMENT_DAMAGED : payload_open(payload, file, frame, keys, &stored);
    if (loaded == SEGMENT_LOADED &&
        (!payload_unpack(payload, frame, stored) || !payload_split(payload, frame->plain, frame->messages)))
        loaded = SEGMENT_DAMAGED;
    if (loaded != SEGMENT_LOADED)
        segment_payload_free(payload);
    return loaded;
}

void segment_payload_free(struct segment_payload *payload)
{
    free(payload->data);
    free(payload->messages);
    free(payload->names);
    free(payload->streams);
    *payload = (struct segment_payload){ 0 };
}

/* ---- The last segment of a spool ---- */

/* What ends the file may be an append that was never synced: whole heads with bytes that did not come. So the last frames, as
 * many as one append can have, count only up to the last whole one. */
uint64_t segment_measure(const struct segment_file *file)
{
    struct segment_frame tail[SEGMENT_TAIL_MAX], frame = { 0 };
    uint64_t count = 0, frames = 0, last;

    for (;; frames++) {
        (void)segment_next(file, frame.end, file->size, true, &frame);     /* passes over what cannot be read */
        if (frame.offset >= file->size)
            break;
        tail[frames % SEGMENT_TAIL_MAX] = frame;
    }
    for (last = frames; last > 0 && frames - last < SEGMENT_TAIL_MAX && count == 0; last--) {
        frame = tail[(last - 1) % SEGMENT_TAIL_MAX];
        if (segment_verify(file, &frame) > 0)
            count = (uint64_t)frame.before + frame.messages;
    }
    return count > 0 || last == 0 ? count : frame.before;
}
