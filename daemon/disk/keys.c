/*
 * keys.c - see keys.h. AES-256-GCM and HKDF-SHA-256 are OpenSSL's.
 *
 * GCM falls apart when a nonce is used twice under one key. Random nonces of 96 bits would need counting over the life of a
 * key, across restarts; so every salt gets a derived key of its own, and its nonces are the places of its frames, of which
 * no two are alike.
 */
#include "daemon/disk/keys.h"

#include "daemon/base/log.h"
#include "daemon/config/conf.h"

#include <assert.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <uv.h>

#define KEY_SIZE 32u
#define KEYS_MAX 64u
#define NONCE_SIZE 12u

struct key {
    unsigned char id[KEY_ID_SIZE], bytes[KEY_SIZE];
};

struct keys {
    size_t count;
    struct key at[KEYS_MAX];
};

/* ---- The file ---- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool key_from_hex(unsigned char out[KEY_SIZE], const char *text, size_t size)
{
    for (size_t i = 0; i < KEY_SIZE; i++) {
        if (size != 2 * KEY_SIZE || hex_digit(text[2 * i]) < 0 || hex_digit(text[2 * i + 1]) < 0)
            return false;
        out[i] = (unsigned char)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
    }
    return true;
}

/* 32 bytes are 44 characters of base64, the last of them one '='; OpenSSL counts the byte that it stands for. */
static bool key_from_base64(unsigned char out[KEY_SIZE], const char *text, size_t size)
{
    unsigned char bytes[KEY_SIZE + 1];
    bool good = size == 44 && text[43] == '=' && text[42] != '=' &&
        EVP_DecodeBlock(bytes, (const unsigned char *)text, 44) == (int)sizeof(bytes);

    if (good)
        memcpy(out, bytes, KEY_SIZE);
    explicit_bzero(bytes, sizeof(bytes));
    return good;
}

static int keys_add(struct keys *keys, const char *line, size_t size, unsigned number, const char *path,
                    struct pen_error *err)
{
    struct key *key = &keys->at[keys->count];
    unsigned char hash[SHA256_DIGEST_LENGTH];

    while (size > 0 && strchr(" \t\r", line[size - 1]) != NULL)
        size--;
    if (size == 0 || *line == '#')
        return 0;
    if (keys->count == KEYS_MAX)
        return pen_error_set(err, UV_E2BIG, "%s:%u: there are more than %u keys", path, number, KEYS_MAX);
    if (!key_from_hex(key->bytes, line, size) && !key_from_base64(key->bytes, line, size))
        return pen_error_set(err, UV_EINVAL, "%s:%u: expected a key of 32 bytes, as 64 hexadecimal digits or in base64; "
                             "\"openssl rand -hex 32\" makes one", path, number);
    SHA256(key->bytes, KEY_SIZE, hash);
    memcpy(key->id, hash, KEY_ID_SIZE);
    keys->count++;
    return 0;
}

static int keys_split(struct keys *keys, const char *text, const char *path, struct pen_error *err)
{
    unsigned number = 1;
    int r = 0;

    for (size_t size; r == 0; text += size + 1, number++) {
        size = strcspn(text, "\n");
        r = keys_add(keys, text, size, number, path, err);
        if (text[size] == '\0')
            break;
    }
    if (r == 0 && keys->count == 0)
        r = pen_error_set(err, UV_EINVAL, "%s holds no key; \"openssl rand -hex 32\" makes one", path);
    return r;
}

int keys_read(struct keys **ret, const char *path, struct pen_error *err)
{
    struct keys *keys;
    char *text;
    size_t size;
    int r = pen_secret_read(&text, &size, path, err);

    if (r < 0)
        return r;
    /* Pages of its own, which are neither swapped nor dumped. */
    keys = mmap(NULL, sizeof(*keys), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (keys == MAP_FAILED)
        abort();
    (void)madvise(keys, sizeof(*keys), MADV_DONTDUMP);
    if (mlock(keys, sizeof(*keys)) < 0)
        log_line(LOG_WARN, "keys cannot be locked into memory and may be swapped to disk", "file", path, NULL);
    r = keys_split(keys, text, path, err);
    pen_secret_wipe(text, size);
    if (r < 0)
        keys_free(keys);
    else
        *ret = keys;
    return r;
}

void keys_free(struct keys *keys)
{
    if (keys == NULL)
        return;
    explicit_bzero(keys, sizeof(*keys));
    munmap(keys, sizeof(*keys));
}

bool keys_agree(const struct keys *a, const struct keys *b)
{
    if (a == NULL || b == NULL)
        return a == b;
    return a->count == b->count && memcmp(a->at, b->at, a->count * sizeof(a->at[0])) == 0;
}

const struct key *keys_newest(const struct keys *keys)
{
    return keys != NULL ? &keys->at[keys->count - 1] : NULL;
}

const struct key *keys_find(const struct keys *keys, const unsigned char id[KEY_ID_SIZE])
{
    for (size_t i = 0; keys != NULL && i < keys->count; i++)
        if (memcmp(keys->at[i].id, id, KEY_ID_SIZE) == 0)
            return &keys->at[i];
    return NULL;
}

const unsigned char *key_id(const struct key *key)
{
    return key->id;
}

void key_id_text(char out[2 * KEY_ID_SIZE + 1], const unsigned char id[KEY_ID_SIZE])
{
    for (size_t i = 0; i < KEY_ID_SIZE; i++)
        snprintf(out + 2 * i, 3, "%02x", id[i]);
}

/* ---- Sealing ---- */

static void key_derive(unsigned char out[KEY_SIZE], const struct key_place *where)
{
    char digest[] = "SHA256";
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *context = EVP_KDF_CTX_new(kdf);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)where->key->bytes, KEY_SIZE),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)where->salt.data, where->salt.size),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)where->context.data, where->context.size),
        OSSL_PARAM_construct_end(),
    };

    /* It can only fail for want of memory or of the algorithm, and then nothing may be written in its place. */
    if (context == NULL || EVP_KDF_derive(context, out, KEY_SIZE, params) != 1)
        abort();
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(kdf);
}

static EVP_CIPHER_CTX *cipher_begin(const struct key_place *where, int encrypt)
{
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    unsigned char key[KEY_SIZE], nonce[NONCE_SIZE] = { 0 };
    int got;

    key_derive(key, where);
    for (size_t i = 0; i < 8; i++)
        nonce[i] = (unsigned char)(where->place >> 8 * i);
    if (cipher == NULL || EVP_CipherInit_ex(cipher, EVP_aes_256_gcm(), NULL, key, nonce, encrypt) != 1 ||
        EVP_CipherUpdate(cipher, NULL, &got, (const unsigned char *)where->head.data, (int)where->head.size) != 1)
        abort();
    explicit_bzero(key, sizeof(key));
    return cipher;
}

void key_seal(const struct key_place *where, unsigned char *bytes, size_t size)
{
    EVP_CIPHER_CTX *cipher = cipher_begin(where, 1);
    int got;

    assert(size <= INT32_MAX);
    if (EVP_CipherUpdate(cipher, bytes, &got, bytes, (int)size) != 1 || (size_t)got != size ||
        EVP_CipherFinal_ex(cipher, bytes + size, &got) != 1 ||
        EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_GET_TAG, KEY_TAG_SIZE, bytes + size) != 1)
        abort();
    EVP_CIPHER_CTX_free(cipher);
}

bool key_open(const struct key_place *where, unsigned char *bytes, size_t size)
{
    EVP_CIPHER_CTX *cipher;
    bool good;
    int got;

    if (size < KEY_TAG_SIZE || size > INT32_MAX)
        return false;
    size -= KEY_TAG_SIZE;
    cipher = cipher_begin(where, 0);
    good = EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_SET_TAG, KEY_TAG_SIZE, bytes + size) == 1 &&
        EVP_CipherUpdate(cipher, bytes, &got, bytes, (int)size) == 1 &&
        EVP_CipherFinal_ex(cipher, bytes + size, &got) == 1;
    EVP_CIPHER_CTX_free(cipher);
    if (!good)
        explicit_bzero(bytes, size);
    return good;
}
