/* buf.c - see buf.h. */
#include "daemon/base/buf.h"

#include <assert.h>
#include <endian.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define BUF_FIRST 4096u

static void *memory_or_abort(void *memory)
{
    if (memory == NULL)
        abort();
    return memory;
}

void buf_grow(struct buf *buf, size_t more)
{
    size_t wanted = buf->size + more;
    size_t capacity = buf->capacity > 0 ? buf->capacity : BUF_FIRST;

    assert(wanted >= more);
    while (capacity < wanted)
        capacity += capacity;
    buf->data = memory_or_abort(realloc(buf->data, capacity));
    buf->capacity = capacity;
}

void buf_free(struct buf *buf)
{
    free(buf->data);
    *buf = (struct buf){ 0 };
}

void buf_text(struct buf *buf, const char *format, ...)
{
    va_list args, again;
    int size;

    va_start(args, format);
    va_copy(again, args);
    size = vsnprintf(NULL, 0, format, again);
    va_end(again);
    assert(size >= 0);
    buf_reserve(buf, (size_t)size + 1);
    vsnprintf(buf->data + buf->size, (size_t)size + 1, format, args);
    va_end(args);
    buf->size += (size_t)size;
}

/* "00" to "99", one behind the other: two digits a step. */
#define TENS(ten) ten "0" ten "1" ten "2" ten "3" ten "4" ten "5" ten "6" ten "7" ten "8" ten "9"
static const char pairs[] =
    TENS("0") TENS("1") TENS("2") TENS("3") TENS("4") TENS("5") TENS("6") TENS("7") TENS("8") TENS("9");

/* The last `count` digits of the value; what is behind them. */
static char *digits_put(char *at, uint64_t value, unsigned count)
{
    unsigned i = count;

    for (; i >= 2; i -= 2, value /= 100)
        memcpy(at + i - 2, pairs + value % 100 * 2, 2);
    if (i == 1)
        at[0] = (char)('0' + value % 10);
    return at + count;
}

#define TEN_TO_8 UINT64_C(100000000)
#define TEN_TO_16 (TEN_TO_8 * TEN_TO_8)

/* The eight digits of a value below 10^8, a byte each, the first one lowest. Its halves, quarters and eighths are made side by
 * side in one word: 10486 / 2^20 is a hundredth, as exact as four digits need it, and 103 / 2^10 a tenth of two. */
static inline uint64_t digits_8(uint64_t value)
{
    uint64_t fours = value / 10000 | value % 10000 << 32;
    uint64_t hundreds = fours * 10486 >> 20 & UINT64_C(0x0000007F0000007F);
    uint64_t twos = hundreds | (fours - 100 * hundreds) << 16;
    uint64_t tens = twos * 103 >> 10 & UINT64_C(0x000F000F000F000F);

    return tens | (twos - 10 * tens) << 8;
}

static inline char *digits_store(char *at, uint64_t digits)
{
    digits = htole64(digits | UINT64_C(0x3030303030303030));
    memcpy(at, &digits, sizeof(digits));
    return at + sizeof(digits);
}

/* Without the zeros that lead; but eight bytes are written. */
static inline char *digits_store_first(char *at, uint64_t value)
{
    uint64_t digits = digits_8(value);
    unsigned zeros = (unsigned)__builtin_ctzll(digits | UINT64_C(1) << 56) / 8;      /* the last digit always stands */

    digits_store(at, digits >> 8 * zeros);
    return at + 8 - zeros;
}

/* How many digits a number has is anyone's guess, the processor's too: up to eight there is neither branch nor loop on it. */
void buf_int(struct buf *buf, int64_t value)
{
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    char *at;

    buf_reserve(buf, 32);            /* a sign and three times eight */
    at = buf->data + buf->size;
    if (value < 0)
        *at++ = '-';
    if (rest < TEN_TO_8) {
        at = digits_store_first(at, rest);
    } else if (rest < TEN_TO_16) {
        at = digits_store_first(at, rest / TEN_TO_8);
        at = digits_store(at, digits_8(rest % TEN_TO_8));
    } else {
        at = digits_store_first(at, rest / TEN_TO_16);
        at = digits_store(at, digits_8(rest / TEN_TO_8 % TEN_TO_8));
        at = digits_store(at, digits_8(rest % TEN_TO_8));
    }
    buf->size = (size_t)(at - buf->data);
}

void buf_real(struct buf *buf, double value)
{
    char text[32];
    int precision, size = 0;

    assert(isfinite(value));
    /* 15 digits suffice for what people write; 17 always read back the same. */
    for (precision = 15; precision <= 17; precision++) {
        size = snprintf(text, sizeof(text), "%.*g", precision, value);
        if (strtod(text, NULL) == value)
            break;
    }
    buf_add(buf, text, (size_t)size);
    if (value == 0 && size == 2)     /* "-0" would read back as the integer 0 */
        BUF_LITERAL(buf, ".0");
}

/* Length of the valid UTF-8 sequence at s (Unicode's table 3-7), or 0. */
static size_t utf8_size(const unsigned char *s, size_t size)
{
    unsigned char low = 0x80, high = 0xBF;
    size_t i, length;

    if (s[0] >= 0xC2 && s[0] <= 0xDF)
        length = 2;
    else if (s[0] >= 0xE0 && s[0] <= 0xEF)
        length = 3;
    else if (s[0] >= 0xF0 && s[0] <= 0xF4)
        length = 4;
    else
        return 0;
    if (length > size)
        return 0;
    if (s[0] == 0xE0)
        low = 0xA0;
    else if (s[0] == 0xED)
        high = 0x9F;
    else if (s[0] == 0xF0)
        low = 0x90;
    else if (s[0] == 0xF4)
        high = 0x8F;
    if (s[1] < low || s[1] > high)
        return 0;
    for (i = 2; i < length; i++)
        if (s[i] < 0x80 || s[i] > 0xBF)
            return 0;
    return length;
}

/* What a byte needs inside a JSON string: 0 nothing, 1 care (escape, or a look at its UTF-8). */
static const unsigned char needs_care[256] = {
    [0 ... 0x1F] = 1, ['"'] = 1, ['\\'] = 1, [0x7F] = 1, [0x80 ... 0xFF] = 1,
};

static void buf_json_escape(struct buf *buf, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char names[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    size_t i;

    for (i = 0; i < sizeof(names) - 1; i += 2) {
        if (c == (unsigned char)names[i]) {
            buf_char(buf, '\\');
            buf_char(buf, names[i + 1]);
            return;
        }
    }
    BUF_LITERAL(buf, "\\u00");
    buf_char(buf, hex[c >> 4]);
    buf_char(buf, hex[c & 15]);
}

/* Sixteen bytes at once, in the compiler's own vectors: every processor's, and as short as a loop over one. */
typedef unsigned char lane16 __attribute__((vector_size(16)));

/* Ones where JSON does not take a byte as it is, and where UTF-8 wants a look. */
static inline lane16 lanes_need_care(lane16 lanes)
{
    return (lane16)((lanes < 0x20) | (lanes >= 0x7F) | (lanes == '"') | (lanes == '\\'));
}

static inline bool lanes_are_zero(lane16 lanes)
{
    uint64_t halves[2];

    memcpy(halves, &lanes, sizeof(halves));
    return (halves[0] | halves[1]) == 0;
}

/* One to fifteen bytes, read as two words that overlap, or as three bytes of which some are the same. The words become lanes in
 * registers: stored by halves and loaded whole, the processor would wait for its own stores. */
static inline bool text_copy_few(char *to, const char *text, size_t size)
{
    typedef uint64_t lane2 __attribute__((vector_size(16)));
    const uint64_t blanks = UINT64_C(0x2020202020202020);
    uint64_t low = blanks, high = blanks;

    if (size >= 8) {
        memcpy(&low, text, 8);
        memcpy(&high, text + size - 8, 8);
        memcpy(to, &low, 8);
        memcpy(to + size - 8, &high, 8);
    } else if (size >= 4) {
        uint32_t first, last;

        memcpy(&first, text, 4);
        memcpy(&last, text + size - 4, 4);
        memcpy(to, &first, 4);
        memcpy(to + size - 4, &last, 4);
        low = first | (uint64_t)last << 32;
    } else {
        unsigned char first = (unsigned char)text[0], middle = (unsigned char)text[size / 2], last = (unsigned char)text[size - 1];

        to[0] = (char)first;
        to[size / 2] = (char)middle;
        to[size - 1] = (char)last;
        low = (blanks & ~UINT64_C(0xFFFFFF)) | first | (uint64_t)middle << 8 | (uint64_t)last << 16;
    }
    return lanes_are_zero(lanes_need_care((lane16)(lane2){ low, high }));
}

/* Copies while all is plain; false where it is not, with `to` in any state. */
static bool text_copy_plain(char *to, const char *text, size_t size)
{
    lane16 lanes, care = { 0 };
    size_t i;

    if (size < 16)
        return text_copy_few(to, text, size);
    for (i = 0; i + 16 <= size; i += 16) {
        memcpy(&lanes, text + i, 16);
        memcpy(to + i, &lanes, 16);
        care |= lanes_need_care(lanes);
    }
    memcpy(&lanes, text + size - 16, 16);    /* the last sixteen, some for the second time */
    memcpy(to + size - 16, &lanes, 16);
    return lanes_are_zero(care | lanes_need_care(lanes));
}

/* Whatever the bytes are. */
static void buf_json_careful(struct buf *buf, const char *data, size_t size)
{
    const unsigned char *s = (const unsigned char *)data;
    size_t at = 0, plain, length;

    buf_reserve(buf, size + 2);
    buf_char(buf, '"');
    while (at < size) {
        plain = at;
        while (at < size && !needs_care[s[at]])
            at++;
        buf_add(buf, data + plain, at - plain);
        if (at == size)
            break;
        if (s[at] < 0x80) {
            buf_json_escape(buf, s[at]);
            at++;
            continue;
        }
        length = utf8_size(s + at, size - at);
        if (length == 0) {
            BUF_LITERAL(buf, "\xEF\xBF\xBD");
            at++;
        } else {
            buf_add(buf, data + at, length);
            at += length;
        }
    }
    buf_char(buf, '"');
}

void buf_json_string(struct buf *buf, const char *data, size_t size)
{
    buf_reserve(buf, size + 2);
    if (size == 0 || !text_copy_plain(buf->data + buf->size + 1, data, size)) {
        buf_json_careful(buf, data, size);
        return;
    }
    buf->data[buf->size] = '"';
    buf->size += size + 2;
    buf->data[buf->size - 1] = '"';
}

#define TICKS_A_SECOND INT64_C(10000000)
#define TICKS_A_DAY (86400 * TICKS_A_SECOND)
#define DAYS_TO_0001 INT64_C(-719162)              /* 0001-01-01, counted from 1970-01-01 */
#define DAYS_TO_9999 INT64_C(2932896)              /* 9999-12-31 */

/* Gregorian date of a day number from DAYS_TO_0001 on: years start in March so that leap days come last. */
static void day_to_date(int64_t day, uint32_t *year, uint32_t *month, uint32_t *mday)
{
    uint32_t shifted = (uint32_t)(day + 719468);
    uint32_t era = shifted / 146097, of_era = shifted % 146097;
    uint32_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint32_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint32_t march = (5 * of_year + 2) / 153;

    *mday = of_year - (153 * march + 2) / 5 + 1;
    *month = march < 10 ? march + 3 : march - 9;
    *year = year_of_era + era * 400 + (*month <= 2);
}

void buf_time(struct buf *buf, int64_t ticks)
{
    int64_t day = ticks / TICKS_A_DAY, rest = ticks % TICKS_A_DAY;
    uint32_t year, month, mday, second, fraction;
    char *at;

    if (rest < 0) {
        rest += TICKS_A_DAY;
        day--;
    }
    if (day < DAYS_TO_0001) {
        day = DAYS_TO_0001;
        rest = 0;
    } else if (day > DAYS_TO_9999) {
        day = DAYS_TO_9999;
        rest = TICKS_A_DAY - 1;
    }
    day_to_date(day, &year, &month, &mday);
    second = (uint32_t)(rest / TICKS_A_SECOND);
    fraction = (uint32_t)(rest % TICKS_A_SECOND);

    buf_reserve(buf, 32);
    at = buf->data + buf->size;
    at = digits_put(at, year, 4);
    *at++ = '-';
    at = digits_put(at, month, 2);
    *at++ = '-';
    at = digits_put(at, mday, 2);
    *at++ = 'T';
    at = digits_put(at, second / 3600, 2);
    *at++ = ':';
    at = digits_put(at, second / 60 % 60, 2);
    *at++ = ':';
    at = digits_put(at, second % 60, 2);
    if (fraction > 0) {
        *at++ = '.';
        at = fraction % 10000 == 0 ? digits_put(at, fraction / 10000, 3) : digits_put(at, fraction, 7);
    }
    *at++ = 'Z';
    buf->size = (size_t)(at - buf->data);
}

/* ---- Arena ---- */

#define ARENA_BLOCK ((size_t)32 * 1024)

struct arena_block {
    struct arena_block *next;
    size_t size, used;
    _Alignas(16) char data[];
};

void *arena_alloc(struct arena *arena, size_t size)
{
    struct arena_block *block = arena->blocks;
    size_t wanted;
    void *ret;

    assert(size < SIZE_MAX - 4096);
    size = (size + 15) & ~(size_t)15;
    if (block == NULL || block->size - block->used < size) {
        wanted = size > ARENA_BLOCK ? size : ARENA_BLOCK;
        block = memory_or_abort(malloc(sizeof(*block) + wanted));
        block->size = wanted;
        block->used = 0;
        block->next = arena->blocks;
        arena->blocks = block;
        arena->held += wanted;
    }
    ret = block->data + block->used;
    block->used += size;
    return ret;
}

/* Frees all blocks but `keep`. */
static void arena_drop(struct arena *arena, struct arena_block *keep)
{
    struct arena_block *block, *next;

    for (block = arena->blocks; block != NULL; block = next) {
        next = block->next;
        if (block != keep)
            free(block);
    }
    arena->blocks = keep;
    arena->held = 0;
    if (keep != NULL) {
        keep->next = NULL;
        keep->used = 0;
        arena->held = keep->size;
    }
}

void arena_reset(struct arena *arena)
{
    struct arena_block *block = arena->blocks;

    if (block != NULL && block->next == NULL && block->size == ARENA_BLOCK) {
        block->used = 0;
        return;
    }
    while (block != NULL && block->size != ARENA_BLOCK)
        block = block->next;
    arena_drop(arena, block);
}

void arena_free(struct arena *arena)
{
    arena_drop(arena, NULL);
}
