/*
 * The promises of daemon/remote/credential.h and daemon/remote/assertion.h, without a network: who we are by rows and environment,
 * what is sent for each, certificates in every shape they come in, and that Arc's challenge opens no file but a key.
 */
#include "daemon/base/secret.h"
#include "daemon/remote/assertion.h"
#include "daemon/remote/credential.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#define TENANT "00000000-0000-0000-0000-0000000000aa"
#define CLIENT "00000000-0000-0000-0000-0000000000bb"
#define OBJECT "00000000-0000-0000-0000-0000000000cc"
#define RESOURCE "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i"

static char folder[] = "/tmp/penstock-credential-XXXXXX";

static const char *at(const char *name)
{
    static char paths[64][128];           /* tables keep them */
    static unsigned turn;
    char *path = paths[turn++ % 64];

    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static const char *put(const char *name, const char *data, size_t size)
{
    const char *path = at(name);
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fclose(file);
    assert_int_equal(chmod(path, 0600), 0);
    return path;
}

static const char *const variables[] = {
    "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST", "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT",
    "MSI_ENDPOINT", "MSI_SECRET",
};

static int setup(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++)
        unsetenv(variables[i]);
    return 0;
}

/* "NAME=value NAME=value" */
static void environment(const char *text)
{
    char copy[512], *rest = copy, *pair, *value;

    setup(NULL);
    snprintf(copy, sizeof(copy), "%s", text);
    while ((pair = strsep(&rest, " "))) {
        value = strchr(pair, '=');
        if (value == NULL)
            continue;
        *value = '\0';
        setenv(pair, value + 1, 1);
    }
}

/* ---- Who we are ------------------------------------------------------------------------------------------------ */

#define APP "AZURE_TENANT_ID=" TENANT " AZURE_CLIENT_ID=" CLIENT " "
#define HOST "https://login.microsoftonline.com/"
#define PATH "/oauth2/v2.0/token"

static void test_who_we_are(void **state)
{
    static const struct {
        const char *environment;
        struct entra_conf conf;
        enum credential_kind kind;
        const char *url, *client, *file;
    } rows[] = {
        /* What rows name goes before all that the environment says. */
        { APP "AZURE_CLIENT_SECRET=x", { .tenant = TENANT, .client = CLIENT, .secret_file = "/s" },
          CREDENTIAL_SECRET, HOST TENANT PATH, CLIENT, "/s" },
        { "", { .tenant = "acme.example", .client = CLIENT, .certificate_file = "/c" },
          CREDENTIAL_CERTIFICATE, HOST "acme.example" PATH, CLIENT, "/c" },
        { "", { .cloud = ENTRA_USGOV, .tenant = TENANT, .client = CLIENT, .secret_file = "/s" },
          CREDENTIAL_SECRET, "https://login.microsoftonline.us/" TENANT PATH, CLIENT, "/s" },
        { "", { .cloud = ENTRA_CHINA, .tenant = TENANT, .client = CLIENT, .secret_file = "/s" },
          CREDENTIAL_SECRET, "https://login.chinacloudapi.cn/" TENANT PATH, CLIENT, "/s" },
        { "AZURE_AUTHORITY_HOST=https://elsewhere.example", { .tenant = TENANT, .client = CLIENT, .secret_file = "/s",
          .authority = "https://here.example//" }, CREDENTIAL_SECRET, "https://here.example/" TENANT PATH, CLIENT, "/s" },
        { "AZURE_AUTHORITY_HOST=https://elsewhere.example", { .tenant = TENANT, .client = CLIENT, .secret_file = "/s" },
          CREDENTIAL_SECRET, HOST TENANT PATH, CLIENT, "/s" },
        /* The order of Azure's libraries. */
        { APP "AZURE_CLIENT_CERTIFICATE_PATH=/c AZURE_FEDERATED_TOKEN_FILE=/t", { 0 },
          CREDENTIAL_CERTIFICATE, HOST TENANT PATH, CLIENT, "/c" },
        { APP "AZURE_FEDERATED_TOKEN_FILE=/t AZURE_AUTHORITY_HOST=https://login.microsoftonline.us/", { 0 },
          CREDENTIAL_FEDERATED, "https://login.microsoftonline.us/" TENANT PATH, CLIENT, "/t" },
        { APP "AZURE_FEDERATED_TOKEN_FILE=/t", { .auth = ENTRA_WORKLOAD, .client = OBJECT, .token_file = "/own" },
          CREDENTIAL_FEDERATED, HOST TENANT PATH, OBJECT, "/own" },
        { "AZURE_TENANT_ID= AZURE_CLIENT_ID=" CLIENT " AZURE_FEDERATED_TOKEN_FILE=/t", { 0 },
          CREDENTIAL_IMDS, "http://169.254.169.254/metadata/identity/oauth2/token", CLIENT, NULL },
        { "", { 0 }, CREDENTIAL_IMDS, "http://169.254.169.254/metadata/identity/oauth2/token", NULL, NULL },
        { APP "AZURE_CLIENT_SECRET=x", { .auth = ENTRA_MANAGED }, CREDENTIAL_IMDS,
          "http://169.254.169.254/metadata/identity/oauth2/token", NULL, NULL },
        { "AZURE_POD_IDENTITY_AUTHORITY_HOST=http://127.0.0.1:1/", { .client = CLIENT },
          CREDENTIAL_IMDS, "http://127.0.0.1:1/metadata/identity/oauth2/token", CLIENT, NULL },
        { "IDENTITY_ENDPOINT=http://127.0.0.1:2/msi/token IDENTITY_HEADER=h IMDS_ENDPOINT=x", { 0 },
          CREDENTIAL_APP_SERVICE, "http://127.0.0.1:2/msi/token", NULL, NULL },
        { "IDENTITY_ENDPOINT=http://localhost:3/metadata/identity/oauth2/token IMDS_ENDPOINT=http://localhost:3", { 0 },
          CREDENTIAL_ARC, "http://localhost:3/metadata/identity/oauth2/token", NULL, NULL },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct credential credential;
        struct pen_error err = { 0 };

        environment(rows[i].environment);
        if (credential_new(&credential, &rows[i].conf, &err) < 0)
            fail_msg("row %zu: %s", i, err.text);
        assert_int_equal(credential.kind, rows[i].kind);
        assert_string_equal(credential.url, rows[i].url);
        assert_string_equal(credential.client ? credential.client : "", rows[i].client ? rows[i].client : "");
        assert_string_equal(credential.file ? credential.file : "", rows[i].file ? rows[i].file : "");
        credential_clear(&credential);
    }
}

static void test_who_we_cannot_be(void **state)
{
    static const struct {
        const char *environment;
        struct entra_conf conf;
        const char *says;
    } rows[] = {
        { APP "AZURE_CLIENT_SECRET=hunter2", { 0 }, "auth: AZURE_CLIENT_SECRET is set, but secrets come from files" },
        { APP "AZURE_CLIENT_CERTIFICATE_PATH=/c AZURE_CLIENT_CERTIFICATE_PASSWORD=hunter2", { 0 }, "certificate_password_file" },
        { "IDENTITY_ENDPOINT=https://x IDENTITY_HEADER=h IDENTITY_SERVER_THUMBPRINT=t", { 0 }, "Service Fabric" },
        { "MSI_ENDPOINT=http://x MSI_SECRET=s", { 0 }, "Azure ML" },
        { "IDENTITY_ENDPOINT=http://127.0.0.1/t IMDS_ENDPOINT=x", { .client = CLIENT }, "client: a machine of Azure Arc" },
        { "IDENTITY_ENDPOINT=file:///etc/passwd IDENTITY_HEADER=h", { 0 }, "no URL" },
        { "IDENTITY_ENDPOINT=http://127.0.0.1/?a=b IDENTITY_HEADER=h", { 0 }, "no URL" },
        { APP "AZURE_FEDERATED_TOKEN_FILE=/t AZURE_AUTHORITY_HOST=ftp://x", { 0 }, "authority: " },
        { APP "AZURE_FEDERATED_TOKEN_FILE=/t AZURE_AUTHORITY_HOST=https://x/\"y", { 0 }, "authority: " },
        { "AZURE_TENANT_ID=../x AZURE_CLIENT_ID=" CLIENT " AZURE_FEDERATED_TOKEN_FILE=/t", { 0 }, "tenant: " },
        { "", { .auth = ENTRA_WORKLOAD }, "tenant: it is not set, and neither is AZURE_TENANT_ID" },
        { APP, { .auth = ENTRA_WORKLOAD }, "token_file: it is not set, and neither is AZURE_FEDERATED_TOKEN_FILE" },
        { "", { .auth = ENTRA_SECRET, .tenant = TENANT, .client = CLIENT }, "secret_file: auth = secret needs it" },
        { "", { .tenant = TENANT, .certificate_file = "/c" }, "client: auth = certificate needs it" },
        { "", { .auth = ENTRA_MANAGED, .secret_file = "/s" }, "secret_file: auth = managed-identity has no use for it" },
        { "", { .tenant = TENANT, .client = CLIENT, .secret_file = "/s", .certificate_file = "/c" }, "certificate_file: auth = secret" },
        { "", { .tenant = TENANT, .client = CLIENT }, "tenant: an app needs a secret_file" },
        { "", { .client = "penstock" }, "client: expected" },
        { "", { .identity = "penstock" }, "identity: expected" },
        { "", { .identity = RESOURCE, .client = CLIENT }, "identity: it names the identity in place of client" },
        { "", { .scope = "https://monitor.azure.com" }, "scope: expected" },
        { "", { .scope = "/.default" }, "scope: expected" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct credential credential;
        struct pen_error err = { 0 };

        environment(rows[i].environment);
        assert_true(credential_new(&credential, &rows[i].conf, &err) < 0);
        if (!strstr(err.text, rows[i].says))
            fail_msg("row %zu: %s", i, err.text);
        assert_null(strstr(err.text, "hunter2"));
    }
}

static void test_a_far_end_in_another_cloud_is_named(void **state)
{
    static const struct {
        struct entra_conf conf;
        const char *far_end, *says;
    } rows[] = {
        { { 0 }, "https://a-b.westeurope-1.ingest.monitor.azure.com", NULL },
        { { 0 }, "https://a-b.usgovvirginia-1.ingest.monitor.azure.us/", "set cloud = usgov" },
        { { .cloud = ENTRA_CHINA }, "https://acme.blob.core.windows.net/logs", "set cloud = public" },
        { { .cloud = ENTRA_USGOV }, "acme.servicebus.chinacloudapi.cn:9093,other:9093", "set cloud = china" },
        { { .cloud = ENTRA_USGOV }, "acme.servicebus.usgovcloudapi.net:9093", NULL },
        { { .cloud = ENTRA_USGOV }, "https://127.0.0.1:4711/x.windows.net", NULL },
        { { .cloud = ENTRA_USGOV }, "https://windows.net", NULL },
        { { .authority = "https://a.example", .scope = "https://b.example/.default" }, "https://x.monitor.azure.us", NULL },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct pen_error err = { 0 };
        int r = entra_cloud_check(&rows[i].conf, "endpoint", rows[i].far_end, &err);

        assert_int_equal(r, rows[i].says ? UV_EINVAL : 0);
        if (r < 0)
            assert_non_null(strstr(err.text, rows[i].says));
    }
}

static void test_two_are_one_only_if_all_is_the_same(void **state)
{
    const struct entra_conf conf = { .tenant = TENANT, .client = CLIENT, .secret_file = "/s" };
    struct entra_conf other = conf;
    struct credential one, two;

    (void)state;
    assert_int_equal(credential_new(&one, &conf, NULL), 0);
    assert_int_equal(credential_new(&two, &other, NULL), 0);
    assert_true(credential_same(&one, &two));
    credential_clear(&two);
    other.audience = ENTRA_STORAGE;
    assert_int_equal(credential_new(&two, &other, NULL), 0);
    assert_false(credential_same(&one, &two));
    credential_clear(&two);
    other = conf;
    other.secret_file = "/other";
    assert_int_equal(credential_new(&two, &other, NULL), 0);
    assert_false(credential_same(&one, &two));
    credential_clear(&two);
    credential_clear(&one);
}

/* ---- What is sent ---------------------------------------------------------------------------------------------- */

#define IMDS_URL "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmonitor.azure.com"

static void test_what_is_sent(void **state)
{
    static const struct {
        const char *environment;
        struct entra_conf conf;
        const char *url, *header;
    } rows[] = {
        { "", { 0 }, IMDS_URL, "Metadata: true" },
        { "", { .client = CLIENT }, IMDS_URL "&client_id=" CLIENT, "Metadata: true" },
        { "", { .identity = OBJECT }, IMDS_URL "&object_id=" OBJECT, "Metadata: true" },
        { "", { .identity = "/subscriptions/a b&c" }, IMDS_URL "&msi_res_id=%2Fsubscriptions%2Fa%20b%26c", "Metadata: true" },
        { "IDENTITY_ENDPOINT=http://127.0.0.1:2/msi/token IDENTITY_HEADER=h3ader", { .identity = "/s", .audience = ENTRA_STORAGE },
          "http://127.0.0.1:2/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fstorage.azure.com&mi_res_id=%2Fs",
          "X-IDENTITY-HEADER: h3ader" },
        { "IDENTITY_ENDPOINT=http://127.0.0.1:3/x IMDS_ENDPOINT=x", { .cloud = ENTRA_USGOV },
          "http://127.0.0.1:3/x?api-version=2020-06-01&resource=https%3A%2F%2Fmonitor.azure.us", "Metadata: true" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct credential credential;
        struct credential_call call;

        environment(rows[i].environment);
        assert_int_equal(credential_new(&credential, &rows[i].conf, NULL), 0);
        assert_int_equal(credential_call(&credential, &call, NULL), 0);
        assert_string_equal(call.method, "GET");
        assert_string_equal(call.url, rows[i].url);
        assert_string_equal(call.headers[0], rows[i].header);
        assert_null(call.headers[1]);
        assert_null(call.body);
        credential_call_wipe(&call);
        credential_clear(&credential);
    }
}

/* The token of another issuer may be open to all, as Kubernetes mounts it; a secret may not. */
static void test_a_federated_token(void **state)
{
    struct entra_conf conf = { .tenant = TENANT, .client = CLIENT, .token_file = put("token", "ey.J.x\n", 7) };
    struct credential credential;
    struct credential_call call;
    struct pen_error err = { 0 };

    (void)state;
    assert_int_equal(chmod(conf.token_file, 0644), 0);
    assert_int_equal(credential_new(&credential, &conf, &err), 0);
    assert_int_equal(credential_call(&credential, &call, &err), 0);
    assert_string_equal(call.method, "POST");
    assert_string_equal(call.url, HOST TENANT PATH);
    assert_string_equal(call.body, "grant_type=client_credentials&client_id=" CLIENT
                        "&scope=https%3A%2F%2Fmonitor.azure.com%2F.default&client_assertion_type="
                        "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=ey.J.x");
    credential_call_wipe(&call);
    unlink(conf.token_file);
    assert_int_equal(credential_call(&credential, &call, &err), UV_ENOENT);
    credential_clear(&credential);
}

static void test_a_stamp_tells_a_new_file_from_the_old(void **state)
{
    struct entra_conf conf = { .tenant = TENANT, .client = CLIENT, .secret_file = put("secret", "one", 3) };
    struct credential credential;
    struct credential_stamp before, after;

    (void)state;
    assert_int_equal(credential_new(&credential, &conf, NULL), 0);
    before = credential_stamp(&credential);
    after = credential_stamp(&credential);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(rename(put("secret.new", "two", 3), at("secret")), 0);
    after = credential_stamp(&credential);
    assert_memory_not_equal(&before, &after, sizeof(before));
    unlink(at("secret"));
    before = credential_stamp(&credential);
    assert_memory_not_equal(&before, &after, sizeof(before));
    credential_clear(&credential);
}

/* ---- Arc ------------------------------------------------------------------------------------------------------- */

static void test_arc_opens_no_file_but_a_key(void **state)
{
    static const char *const attacks[] = {
        "", "Basic", "Basic realm=", "Basic realm=%s", "Basic realm=%s/", "Basic realm=%s/.key", "Basic realm=%s/secret",
        "Basic realm=%s/../secret.key", "Basic realm=%s/sub/x.key", "Basic realm=/etc/shadow", "Basic realm=/etc/shadow.key",
        "Basic realm=%sx/good.key", "Basic realm=%s//good.key", "Basic realm=good.key", "Basic realm=../good.key",
        "Basic realm=%s/good.key?x", "Basic realm=%s/good.key\x01", "Basic realm=%s/good.key\n", "Bearer realm=%s/good.key",
        "Basic realm=%s/link.key", "Basic realm=%s/large.key", "Basic realm=%s/empty.key", "Basic realm=%s/folder.key",
        "Basic realm=%s/missing.key", "Basic realm=%s/fifo.key",
    };
    char large[4097], challenge[256], *key = NULL;
    struct pen_error err = { 0 };

    (void)state;
    put("good.key", "the key\n", 8);
    memset(large, 'x', sizeof(large));
    put("large.key", large, sizeof(large));
    put("empty.key", "", 0);
    put("secret", "hunter2", 7);
    assert_int_equal(symlink(at("secret"), at("link.key")), 0);
    assert_int_equal(mkdir(at("folder.key"), 0700), 0);
    assert_int_equal(mkfifo(at("fifo.key"), 0600), 0);
    for (size_t i = 0; i < sizeof(attacks) / sizeof(*attacks); i++) {
        const char *hole = strstr(attacks[i], "%s");
        int before = hole ? (int)(hole - attacks[i]) : (int)strlen(attacks[i]);

        snprintf(challenge, sizeof(challenge), "%.*s%s%s", before, attacks[i], hole ? folder : "", hole ? hole + 2 : "");
        if (managed_read_key(&key, challenge, folder, &err) == 0)
            fail_msg("taken: %s", challenge);
        assert_null(strstr(err.text, "hunter2"));
    }
    /* A folder whose name is as long. */
    snprintf(challenge, sizeof(challenge), "Basic realm=/x%s/good.key", folder + 2);
    assert_true(managed_read_key(&key, challenge, folder, &err) < 0);
    snprintf(challenge, sizeof(challenge), "Basic realm=%s/good.key", folder);
    assert_int_equal(managed_read_key(&key, challenge, folder, &err), 0);
    assert_string_equal(key, "the key");
    secret_text_free(key);
    assert_int_equal(rmdir(at("folder.key")), 0);
}

/* ---- Certificates ---------------------------------------------------------------------------------------------- */

static EVP_PKEY *rsa, *other_rsa, *small_rsa, *ec;
static X509 *leaf, *stranger, *small_leaf, *ec_leaf;

static X509 *certify(EVP_PKEY *key)
{
    X509 *x509 = X509_new();

    ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
    X509_gmtime_adj(X509_getm_notBefore(x509), 0);
    X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x509), "CN", MBSTRING_ASC, (const unsigned char *)"penstock", -1, -1, 0);
    X509_set_issuer_name(x509, X509_get_subject_name(x509));
    X509_set_pubkey(x509, key);
    assert_true(X509_sign(x509, key, EVP_sha256()) > 0);
    return x509;
}

static int make_certificates(void **state)
{
    (void)state;
    rsa = EVP_RSA_gen(2048);
    other_rsa = EVP_RSA_gen(2048);
    small_rsa = EVP_RSA_gen(1024);
    ec = EVP_EC_gen("P-256");
    leaf = certify(rsa);
    stranger = certify(other_rsa);
    small_leaf = certify(small_rsa);
    ec_leaf = certify(ec);
    return 0;
}

static int free_certificates(void **state)
{
    (void)state;
    X509_free(leaf), X509_free(stranger), X509_free(small_leaf), X509_free(ec_leaf);
    EVP_PKEY_free(rsa), EVP_PKEY_free(other_rsa), EVP_PKEY_free(small_rsa), EVP_PKEY_free(ec);
    return 0;
}

static const char *put_bio(const char *name, BIO *bio)
{
    char *data;
    long size = BIO_get_mem_data(bio, &data);
    const char *path = put(name, data, (size_t)size);

    BIO_free(bio);
    return path;
}

/* Certificates first, in this order, or the key first. */
static const char *put_pem(const char *name, EVP_PKEY *key, X509 *first, X509 *second, const char *password, bool key_first)
{
    BIO *bio = BIO_new(BIO_s_mem());

    for (int turn = 0; turn < 2; turn++) {
        if ((turn == 0) == key_first)
            PEM_write_bio_PKCS8PrivateKey(bio, key, password ? EVP_aes_256_cbc() : NULL, password, password ? (int)strlen(password) : 0,
                                          NULL, NULL);
        else {
            if (first)
                PEM_write_bio_X509(bio, first);
            if (second)
                PEM_write_bio_X509(bio, second);
        }
    }
    return put_bio(name, bio);
}

static const char *put_pkcs12(const char *name, EVP_PKEY *key, X509 *x509, const char *password)
{
    PKCS12 *pkcs12 = PKCS12_create(password, "penstock", key, x509, NULL, 0, 0, 0, 0, 0);
    BIO *bio = BIO_new(BIO_s_mem());

    assert_non_null(pkcs12);
    i2d_PKCS12_bio(bio, pkcs12);
    PKCS12_free(pkcs12);
    return put_bio(name, bio);
}

/* One part, decoded; its size. */
static int decode(unsigned char out[2048], const char *part, size_t size)
{
    char text[2048];
    int got;

    assert_true(size < sizeof(text) - 4);
    snprintf(text, sizeof(text), "%.*s", (int)size, part);
    assert_int_equal(strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), size);
    for (char *c = text; *c; c++)
        *c = *c == '-' ? '+' : *c == '_' ? '/' : *c;
    while (strlen(text) % 4 != 0)
        strcat(text, "=");
    got = EVP_DecodeBlock(out, (unsigned char *)text, (int)strlen(text));
    assert_true(got > 0);
    got -= (int)(strlen(text) - size);
    out[got] = '\0';
    return got;
}

static void verify(const char *jwt, bool rs256)
{
    const char *claims = strchr(jwt, '.') + 1, *signature = strchr(claims, '.') + 1;
    unsigned char header[2048], body[2048], raw[2048], digest[EVP_MAX_MD_SIZE], wanted[2048];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_PKEY_CTX *how;
    unsigned size;
    char thumbprint[128], *end;
    int raw_size;

    decode(header, jwt, (size_t)(claims - 1 - jwt));
    decode(body, claims, (size_t)(signature - 1 - claims));
    raw_size = decode(raw, signature, strlen(signature));
    assert_non_null(strstr((char *)header, rs256 ? "\"alg\":\"RS256\"" : "\"alg\":\"PS256\""));
    end = strstr((char *)header, rs256 ? "\"x5t\":\"" : "\"x5t#S256\":\"") + (rs256 ? 7 : 12);
    snprintf(thumbprint, sizeof(thumbprint), "%.*s", (int)strcspn(end, "\""), end);
    X509_digest(leaf, rs256 ? EVP_sha1() : EVP_sha256(), digest, &size);
    assert_int_equal(decode(wanted, thumbprint, strlen(thumbprint)), size);
    assert_memory_equal(wanted, digest, size);
    assert_non_null(strstr((char *)body, "\"aud\":\"https://a.example/t\",\"iss\":\"" CLIENT "\",\"sub\":\"" CLIENT "\""));
    assert_non_null(strstr((char *)body, "\"iat\":1000,\"nbf\":1000,\"exp\":1600,\"jti\":\""));
    assert_int_equal(EVP_DigestVerifyInit(context, &how, EVP_sha256(), NULL, rsa), 1);
    if (!rs256) {
        EVP_PKEY_CTX_set_rsa_padding(how, RSA_PKCS1_PSS_PADDING);
        EVP_PKEY_CTX_set_rsa_pss_saltlen(how, 32);
    }
    assert_int_equal(EVP_DigestVerify(context, raw, (size_t)raw_size, (const unsigned char *)jwt, (size_t)(signature - 1 - jwt)), 1);
    EVP_MD_CTX_free(context);
}

static void test_certificates(void **state)
{
    const char *const password = put("password", "hunter2\n", 8);
    const struct {
        const char *file, *password_file, *says;
    } rows[] = {
        { put_pem("plain.pem", rsa, leaf, NULL, NULL, true), NULL, NULL },
        { put_pem("chain.pem", rsa, stranger, leaf, NULL, false), NULL, NULL },
        { put_pem("locked.pem", rsa, leaf, NULL, "hunter2", true), password, NULL },
        { put_pem("locked.pem", rsa, leaf, NULL, "hunter2", true), NULL, "certificate_password_file" },
        { put_pem("other.pem", rsa, leaf, NULL, "other", true), password, "with the password given" },
        { put_pem("bare.pem", rsa, NULL, NULL, NULL, true), NULL, "no certificate that goes with its key" },
        { put_pem("mixed.pem", rsa, stranger, NULL, NULL, true), NULL, "no certificate that goes with its key" },
        { put_pem("small.pem", small_rsa, small_leaf, NULL, NULL, true), NULL, "2048" },
        { put_pem("ec.pem", ec, ec_leaf, NULL, NULL, true), NULL, "not RSA" },
        { put_pkcs12("open.pfx", rsa, leaf, ""), NULL, NULL },
        { put_pkcs12("locked.pfx", rsa, leaf, "hunter2"), password, NULL },
        { put_pkcs12("locked.pfx", rsa, leaf, "hunter2"), NULL, "certificate_password_file" },
        { put_pkcs12("other.pfx", rsa, leaf, "other"), password, "with the password given" },
        { put("noise", "\x30\x82\x01noise", 8), NULL, "neither PEM nor PKCS#12" },
        { put("torn.pem", "-----BEGIN PRIVATE KEY-----\nMIIE", 32), NULL, "no private key" },
        { "/nowhere/x.pem", NULL, "cannot open" },
    };

    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        struct assertion_conf conf = { .rs256 = turn == 1, .audience = "https://a.example/t", .client = CLIENT, .now = 1000 };
        struct pen_error err = { 0 };
        char *jwt = NULL, *again = NULL;

        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
            conf.certificate_file = rows[i].file;
            conf.password_file = rows[i].password_file;
            if (rows[i].says) {
                assert_true(assertion_make(&jwt, &conf, &err) < 0);
                if (!strstr(err.text, rows[i].says))
                    fail_msg("row %zu: %s", i, err.text);
                assert_null(strstr(err.text, "hunter2"));
                continue;
            }
            if (assertion_make(&jwt, &conf, &err) < 0)
                fail_msg("row %zu: %s", i, err.text);
            verify(jwt, conf.rs256);
            assert_int_equal(assertion_make(&again, &conf, &err), 0);
            assert_string_not_equal(jwt, again);               /* no two have one jti */
            secret_text_free(jwt);
            secret_text_free(again);
        }
    }
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_who_we_are), TEST(test_who_we_cannot_be), TEST(test_a_far_end_in_another_cloud_is_named),
        TEST(test_two_are_one_only_if_all_is_the_same), TEST(test_what_is_sent),
        TEST(test_a_federated_token), TEST(test_a_stamp_tells_a_new_file_from_the_old), TEST(test_arc_opens_no_file_but_a_key),
        TEST(test_certificates),
    };
    char command[96];
    int failed;

    alarm(60);
    if (mkdtemp(folder) == NULL)
        return 1;
    failed = cmocka_run_group_tests(tests, make_certificates, free_certificates);
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command) == 0 ? failed : 1;
}
