/*
 * keys.h - the keys that what lies on disk is encrypted with: a ring read from one file, and sealing with one of them.
 *
 * `key_file` holds one key a line, 32 bytes as 64 hexadecimal digits or as base64; empty lines and lines that begin with
 * '#' are skipped. The last one writes, all of them read: a key is changed by adding a line, and the old line goes when
 * nothing is left that was written with it. A key is named by its id, the first 8 bytes of the SHA-256 of its bytes.
 *
 * The ring is read only, and may be used from any thread.
 */
#ifndef DAEMON_KEYS_H
#define DAEMON_KEYS_H

#include "parsers/parser.h"

#define KEY_ID_SIZE 8u
#define KEY_SALT_SIZE 32u
#define KEY_TAG_SIZE 16u             /* what sealing adds to the bytes */

struct keys;
struct key;

int keys_read(struct keys **ret, const char *path, struct pen_error *err);
void keys_free(struct keys *keys);                                 /* wiped; copes with NULL */

bool keys_agree(const struct keys *a, const struct keys *b);       /* the same keys in the same order; NULL: a ring of none */
const struct key *keys_newest(const struct keys *keys);            /* NULL without a ring */
const struct key *keys_find(const struct keys *keys, const unsigned char id[KEY_ID_SIZE]);   /* NULL: not there */
const unsigned char *key_id(const struct key *key);
void key_id_text(char out[2 * KEY_ID_SIZE + 1], const unsigned char id[KEY_ID_SIZE]);

/* Where sealed bytes belong. The key that seals them is derived from the ring's by salt and context (HKDF-SHA-256), so each
 * random salt has a key of its own under which `place` is never used twice; they open nowhere but there, under that head. */
struct key_place {
    const struct key *key;
    struct pen_span salt, context, head;
    uint64_t place;
};
/* In place; `bytes` has room for KEY_TAG_SIZE behind `size`. */
void key_seal(const struct key_place *where, unsigned char *bytes, size_t size);
/* In place: the first size - KEY_TAG_SIZE bytes are plain then. False: they are not what was sealed, and now nothing. */
bool key_open(const struct key_place *where, unsigned char *bytes, size_t size);

#endif
