/*
 * assertion.c - header.claims.signature, each base64url; the signature is OpenSSL's over the first two.
 *
 * The file is read anew each time, and the key lives for the one signature: a certificate that was replaced is simply
 * the next one, and there is no key to steal in between.
 */
#include "daemon/remote/assertion.h"

#include "daemon/base/secret.h"

#include <assert.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define ASSERTION_LIFE_S 600         /* Entra takes 5 to 10 minutes; MSAL's figure */
#define RSA_BITS_MIN 2048            /* what Entra takes at least */

struct certificate {
    X509 *x509;
    EVP_PKEY *key;
};

static void certificate_clear(struct certificate *certificate)
{
    X509_free(certificate->x509);
    EVP_PKEY_free(certificate->key);         /* wipes it */
}

/* ---- The file -------------------------------------------------------------------------------------------------- */

/* Without a password there is none to be had: OpenSSL would ask the terminal. */
static int on_password(char *into, int room, int writing, void *arg)
{
    const char *password = arg;
    size_t size = password != NULL ? strlen(password) : 0;

    (void)writing;
    if (password == NULL || size > (size_t)room)
        return -1;
    memcpy(into, password, size);
    return (int)size;
}

/* The certificate that goes with the key: a file may hold its issuers as well, in any order. */
static X509 *pem_certificate(const char *data, size_t size, EVP_PKEY *key)
{
    BIO *bio = BIO_new_mem_buf(data, (int)size);
    X509 *x509;

    assert(bio != NULL);
    while ((x509 = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL && X509_check_private_key(x509, key) != 1)
        X509_free(x509);
    BIO_free(bio);
    return x509;
}

static int pem_read(struct certificate *certificate, const char *data, size_t size, char *password, const char *path,
                    struct pen_error *err)
{
    BIO *bio = BIO_new_mem_buf(data, (int)size);

    assert(bio != NULL);
    certificate->key = PEM_read_bio_PrivateKey(bio, NULL, on_password, password);
    BIO_free(bio);
    if (certificate->key == NULL)
        return pen_error_set(err, UV_EINVAL, "%s holds no private key (PEM) that can be read%s", path,
                             password != NULL ? " with the password given"
                                              : "; if it is encrypted, name its password in certificate_password_file");
    certificate->x509 = pem_certificate(data, size, certificate->key);
    return certificate->x509 != NULL ? 0 : pen_error_set(err, UV_EINVAL, "%s holds no certificate that goes with its key", path);
}

static int pkcs12_read(struct certificate *certificate, const char *data, size_t size, const char *password, const char *path,
                       struct pen_error *err)
{
    const unsigned char *at = (const unsigned char *)data;
    PKCS12 *pkcs12 = d2i_PKCS12(NULL, &at, (long)size);
    int r = 0;

    if (pkcs12 == NULL)
        return pen_error_set(err, UV_EINVAL, "%s is neither PEM nor PKCS#12", path);
    if (PKCS12_parse(pkcs12, password, &certificate->key, &certificate->x509, NULL) != 1)
        r = pen_error_set(err, UV_EINVAL, "%s cannot be opened%s (or it is encrypted in a way of the past: write it anew with "
                          "openssl pkcs12 -export)", path,
                          password != NULL ? " with the password given" : "; is there a password for certificate_password_file?");
    else if (certificate->key == NULL || certificate->x509 == NULL)
        r = pen_error_set(err, UV_EINVAL, "%s lacks the certificate or its key", path);
    PKCS12_free(pkcs12);
    return r;
}

static int certificate_read(struct certificate *certificate, const struct assertion_conf *conf, struct pen_error *err)
{
    const char *path = conf->certificate_file;
    char *data = NULL, *password = NULL;
    size_t size = 0, password_size = 0;
    int r = pen_secret_read(&data, &size, path, err);

    if (r == 0 && conf->password_file != NULL)
        r = pen_secret_read(&password, &password_size, conf->password_file, err);
    if (r == 0 && memmem(data, size, "-----BEGIN ", 11) != NULL)
        r = pem_read(certificate, data, size, password, path, err);
    else if (r == 0)
        r = pkcs12_read(certificate, data, size, password, path, err);
    pen_secret_wipe(data, size);
    pen_secret_wipe(password, password_size);
    ERR_clear_error();
    if (r == 0 && (!EVP_PKEY_is_a(certificate->key, "RSA") || EVP_PKEY_get_bits(certificate->key) < RSA_BITS_MIN))
        r = pen_error_set(err, UV_EINVAL, "the key in %s is not RSA of %d bits or more: Entra takes no other", path, RSA_BITS_MIN);
    return r;
}

/* ---- The JWT --------------------------------------------------------------------------------------------------- */

/* base64url without padding: the text's end is cut, and two of its letters are others. */
static char *base64url(const unsigned char *data, size_t size)
{
    char *text = secret_alloc((size + 2) / 3 * 4 + 1);

    EVP_EncodeBlock((unsigned char *)text, data, (int)size);
    text[strcspn(text, "=")] = '\0';
    for (char *at = text; *at != '\0'; at++)
        *at = *at == '+' ? '-' : *at == '/' ? '_' : *at;
    return text;
}

static char *header_make(const struct certificate *certificate, bool rs256)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    char *thumbprint, *json, *text;
    unsigned size = 0;

    if (X509_digest(certificate->x509, rs256 ? EVP_sha1() : EVP_sha256(), digest, &size) != 1)
        abort();
    thumbprint = base64url(digest, size);
    json = secret_text("{\"alg\":\"%s\",\"typ\":\"JWT\",\"%s\":\"%s\"}", rs256 ? "RS256" : "PS256", rs256 ? "x5t" : "x5t#S256",
                       thumbprint);
    text = base64url((unsigned char *)json, strlen(json));
    secret_text_free(thumbprint);
    secret_text_free(json);
    return text;
}

/* Nothing in it needs escaping: the audience was checked as a URL and its tenant by letter, the client is a GUID. */
static char *claims_make(const struct assertion_conf *conf)
{
    unsigned char b[16];
    char *json, *text;
    int r = uv_random(NULL, NULL, b, sizeof(b), 0, NULL);

    assert(r == 0);
    json = secret_text("{\"aud\":\"%s\",\"iss\":\"%s\",\"sub\":\"%s\",\"iat\":%lld,\"nbf\":%lld,\"exp\":%lld,\"jti\":\"%02x%02x%02x%02x-"
                       "%02x%02x-4%01x%02x-8%01x%02x-%02x%02x%02x%02x%02x%02x\"}",
                       conf->audience, conf->client, conf->client, (long long)conf->now, (long long)conf->now,
                       (long long)(conf->now + ASSERTION_LIFE_S), b[0], b[1], b[2], b[3], b[4], b[5], b[6] & 15, b[7], b[8] & 15,
                       b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    text = base64url((unsigned char *)json, strlen(json));
    secret_text_free(json);
    return text;
}

/* NULL: OpenSSL cannot, as with a key that its policy finds too weak. */
static char *signature_make(EVP_PKEY *key, bool rs256, const char *text)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_PKEY_CTX *how = NULL;
    size_t size = (size_t)EVP_PKEY_get_size(key);
    unsigned char *raw = secret_alloc(size);
    char *signature = NULL;
    bool well;

    assert(context != NULL);
    well = EVP_DigestSignInit(context, &how, EVP_sha256(), NULL, key) == 1 &&
           (rs256 || (EVP_PKEY_CTX_set_rsa_padding(how, RSA_PKCS1_PSS_PADDING) == 1 &&
                      EVP_PKEY_CTX_set_rsa_pss_saltlen(how, RSA_PSS_SALTLEN_DIGEST) == 1)) &&
           EVP_DigestSign(context, raw, &size, (const unsigned char *)text, strlen(text)) == 1;
    if (well)
        signature = base64url(raw, size);
    secret_free(raw, size);
    EVP_MD_CTX_free(context);
    ERR_clear_error();
    return signature;
}

int assertion_make(char **ret, const struct assertion_conf *conf, struct pen_error *err)
{
    struct certificate certificate = { 0 };
    char *header = NULL, *claims = NULL, *body = NULL, *signature = NULL;
    int r = certificate_read(&certificate, conf, err);

    if (r < 0)
        goto fail;
    header = header_make(&certificate, conf->rs256);
    claims = claims_make(conf);
    body = secret_text("%s.%s", header, claims);
    signature = signature_make(certificate.key, conf->rs256, body);
    if (signature != NULL)
        *ret = secret_text("%s.%s", body, signature);
    else
        r = pen_error_set(err, UV_EINVAL, "the key in %s cannot sign %s", conf->certificate_file, conf->rs256 ? "RS256" : "PS256");
fail:
    secret_text_free(header);
    secret_text_free(claims);
    secret_text_free(body);
    secret_text_free(signature);
    certificate_clear(&certificate);
    return r;
}
