/*
 * framer.c - any bytes, from any state, cut anywhere: the pieces are the same, lie in the chunk, and stand in order.
 *
 * Input: 1 byte how the stream is cut, 1 byte of record_max, 1 byte whether a state follows, 8 bytes of it; the stream.
 */
#include "tests/fuzz/fuzz.h"

#include "daemon/record/framer.h"

#include <assert.h>
#include <stdlib.h>

#define PIECES_MAX 4096

struct found {
    enum framer_found found;
    uint64_t position;
    size_t size;
    const char *why;
};

struct run {
    struct found pieces[PIECES_MAX];
    size_t count;
    uint64_t behind;                 /* where the last piece ended */
};

static void run_add(struct run *run, const struct framer *framer, enum framer_found found, const struct framer_piece *piece)
{
    assert(piece->data >= framer->data && piece->data + piece->size <= framer->data + framer->size && piece->size > 0);
    assert(piece->position == framer->offset + (uint64_t)(piece->data - framer->data));
    assert((piece->why == NULL) == (found == FRAMER_RECORD));
    assert(piece->position >= run->behind);
    assert(found == FRAMER_OVERSIZE || piece->size <= framer->record_max);
    /* Of an oversize piece only the beginning counts as told: the next record may lie within what was kept of it. */
    run->behind = piece->position + (found == FRAMER_OVERSIZE ? 1 : piece->size);
    if (run->count < PIECES_MAX)
        run->pieces[run->count++] = (struct found){ found, piece->position, piece->size, piece->why };
}

/* As the daemon does it: what was not consumed comes again, with more behind it. */
static void run_cut(struct run *run, struct pen_span all, uint64_t word, size_t record_max, size_t step)
{
    size_t at = 0, size = step < all.size ? step : all.size;
    enum framer_found found;
    struct framer framer;

    for (;;) {
        char *chunk = fuzz_copy((struct pen_span){ all.data + at, size }, 0);
        bool final = at + size == all.size;
        size_t consumed = 0;

        framer_begin(&framer, word, chunk, size, at, final, record_max);
        do {
            struct framer_piece piece;

            found = framer_next(&framer, &piece);
            if (found < FRAMER_MORE)
                run_add(run, &framer, found, &piece);
            assert(framer_consumed(&framer) >= consumed && framer_consumed(&framer) <= size);
            consumed = framer_consumed(&framer);
        } while (found < FRAMER_MORE);
        assert(final ? found == FRAMER_DONE && consumed == size : found == FRAMER_MORE);
        word = framer_word(&framer);
        at += consumed;
        free(chunk);
        if (final)
            return;
        assert(consumed > 0 || size <= framer.record_max + FRAMER_HELD_MAX);   /* a chunk of more never starves */
        size = consumed > 0 ? size - consumed + step : size + step;
        if (size > all.size - at)
            size = all.size - at;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct run whole, cut;
    struct feed feed = feed_of(data, size);
    uint8_t step = feed_byte(&feed), limit = feed_byte(&feed);
    uint64_t word = feed_byte(&feed) & 1 ? feed_number(&feed, 8) : 0;
    size_t record_max = FRAMER_RECORD_MIN + (size_t)limit * 64;
    struct pen_span all = feed_span(&feed, SIZE_MAX);

    whole.count = cut.count = 0;
    whole.behind = cut.behind = 0;
    run_cut(&whole, all, word, record_max, all.size + 1);
    /* Small steps cost a scan each, of all that is not consumed: only short streams are cut into bytes. */
    run_cut(&cut, all, word, record_max, (step % 64 + 1) * (1 + all.size / 512));
    assert(whole.count == cut.count);
    for (size_t i = 0; i < whole.count; i++) {
        const struct found *a = &whole.pieces[i], *b = &cut.pieces[i];

        assert(a->found == b->found && a->position == b->position && a->size == b->size && a->why == b->why);
    }
    return 0;
}
