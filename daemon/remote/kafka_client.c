/* kafka_client.c - see kafka_client.h. */
#include "daemon/remote/kafka_client.h"

#include "daemon/base/log.h"
#include "daemon/config/conf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <uv.h>

enum security { SECURITY_AUTO, SECURITY_PLAINTEXT, SECURITY_SSL, SECURITY_SASL_PLAINTEXT, SECURITY_SASL_SSL };

const char *const kafka_security_names[] = { "auto", "plaintext", "ssl", "sasl_plaintext", "sasl_ssl", NULL };
const char *const kafka_mechanism_names[] = { "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", NULL };

#define MECHANISM_OAUTHBEARER 3

static const struct kafka_kept kept_always[] = {
    { "bootstrap.servers",            "it has a setting of its own" },
    { "metadata.broker.list",         "it has a setting of its own" },
    { "security.protocol",            "use `security`" },
    { "sasl.mechanism",               "use `mechanism`" },
    { "sasl.mechanisms",              "use `mechanism`" },
    { "sasl.username",                "use `username`" },
    { "sasl.password",                "secrets come from files, use `password_file`" },
    { "ssl.ca.location",              "use `ca_file`" },
    { "ssl.key.password",             "secrets come from files, use a key without a password" },
    { "ssl.key.pem",                  "secrets come from files, use `kafka.ssl.key.location`" },
    { "ssl.keystore.password",        "secrets come from files, use `kafka.ssl.key.location`" },
    { "sasl.oauthbearer.client.secret", "secrets come from files, use `secret_file`" },
    { "sasl.oauthbearer.method",      "use `mechanism`, `tenant` and `client`" },
    { "enable.sasl.oauthbearer.unsecure.jwt", "tokens come from Entra" },
    { "log.queue",                    "log lines go to Penstock's log" },
    { "plugin.library.paths",         "no code is loaded into Penstock this way" },
    { NULL, NULL },
};

/* ---- One property ---- */

int kafka_put(rd_kafka_conf_t *conf, const char *key, const char *value, struct pen_error *err)
{
    char text[256];

    if (rd_kafka_conf_set(conf, key, value, text, sizeof(text)) != RD_KAFKA_CONF_OK)
        return pen_error_set(err, UV_EINVAL, "kafka.%s: %s", key, text);
    return 0;
}

int kafka_put_number(rd_kafka_conf_t *conf, const char *key, size_t number, struct pen_error *err)
{
    char text[24];

    snprintf(text, sizeof(text), "%zu", number);
    return kafka_put(conf, key, text, err);
}

int kafka_put_table(rd_kafka_conf_t *conf, const char *const (*table)[2], struct pen_error *err)
{
    int r = 0;

    for (size_t i = 0; table[i][0] != NULL && r == 0; i++)
        r = kafka_put(conf, table[i][0], table[i][1], err);
    return r;
}

size_t kafka_get_number(const rd_kafka_conf_t *conf, const char *key)
{
    char text[64];
    size_t size = sizeof(text);

    return rd_kafka_conf_get(conf, key, text, &size) == RD_KAFKA_CONF_OK ? strtoull(text, NULL, 10) : 0;
}

/* ---- The client's settings ---- */

bool kafka_client_is_event_hubs(const struct kafka_client *client)
{
    static const char *const domains[] = { ".servicebus.windows.net", ".servicebus.usgovcloudapi.net",
                                           ".servicebus.chinacloudapi.cn" };

    for (size_t i = 0; i < sizeof(domains) / sizeof(*domains); i++)
        if (strcasestr(client->brokers, domains[i]))
            return true;
    return client->connection_string_file != NULL;
}

bool kafka_client_has_tokens(const struct kafka_client *client)
{
    return client->mechanism == MECHANISM_OAUTHBEARER;
}

static int check_tokens(const struct kafka_client *client, struct pen_error *err)
{
    const struct entra_conf *entra = &client->entra;

    if (!kafka_client_has_tokens(client)) {
        if (entra->auth != ENTRA_AUTO || entra->tenant || entra->client || entra->identity || entra->secret_file ||
            entra->certificate_file || entra->certificate_password_file || entra->token_file || entra->authority || entra->scope)
            return pen_error_set(err, UV_EINVAL, "auth, tenant, client and what goes with them are for mechanism = OAUTHBEARER");
        return 0;
    }
    if (client->username || client->connection_string_file)
        return pen_error_set(err, UV_EINVAL, "mechanism = OAUTHBEARER takes no username, password_file or "
                                             "connection_string_file");
    if (client->security != SECURITY_AUTO && client->security != SECURITY_SASL_SSL)
        return pen_error_set(err, UV_EINVAL, "security = %s would show tokens to anyone on the way, or sends none: use "
                                             "sasl_ssl", kafka_security_names[client->security]);
    return 0;
}

/* librdkafka would take 9092 for a port that is missing, which no TLS listener has, and what stands before a "://" for a name. */
static bool broker_fits(struct pen_span broker)
{
    const char *colon = memrchr(broker.data, ':', broker.size), *end = broker.data + broker.size;
    unsigned port = 0;

    if (colon == NULL || colon == broker.data || end - colon > 6 || memchr(broker.data, '/', broker.size) != NULL)
        return false;
    for (const char *digit = colon + 1; digit < end; digit++) {
        if (*digit < '0' || *digit > '9')
            return false;
        port = port * 10 + (unsigned)(*digit - '0');
    }
    return port > 0 && port <= 65535;
}

static int check_brokers(const struct kafka_client *client, const char *brokers_key, struct pen_error *err)
{
    const char *next = client->brokers;
    struct pen_span broker;

    do {
        broker.data = next + strspn(next, " ");
        broker.size = strcspn(broker.data, ",");
        next = broker.data + broker.size;
        while (broker.size > 0 && broker.data[broker.size - 1] == ' ')
            broker.size--;
        if (!broker_fits(broker))
            return pen_error_set(err, UV_EINVAL, "%s: expected HOST:PORT, such as kafka1:9092, parted by commas, found \"%.*s\"",
                                 brokers_key, (int)(broker.size < 200 ? broker.size : 200), broker.data);
    } while (*next++ == ',');
    return 0;
}

int kafka_client_check(const struct kafka_client *client, const char *brokers_key, struct pen_error *err)
{
    int r = check_brokers(client, brokers_key, err);

    if (r == 0)
        r = check_tokens(client, err);
    if (r < 0)
        return r;
    if (client->connection_string_file && (client->username || client->password_file))
        return pen_error_set(err, UV_EINVAL, "connection_string_file takes the place of username and password_file");
    if (!client->username != !client->password_file)
        return pen_error_set(err, UV_EINVAL, "username and password_file belong together");
    if ((client->username || client->connection_string_file) &&
        (client->security == SECURITY_PLAINTEXT || client->security == SECURITY_SSL))
        return pen_error_set(err, UV_EINVAL, "security = %s sends no username or password: use sasl_ssl",
                             kafka_security_names[client->security]);
    if (client->connection_string_file && client->security == SECURITY_SASL_PLAINTEXT)
        return pen_error_set(err, UV_EINVAL, "Event Hubs takes TLS only: use security = sasl_ssl");
    if (kafka_client_is_event_hubs(client) && !client->username && !client->connection_string_file &&
        !kafka_client_has_tokens(client))
        return pen_error_set(err, UV_EINVAL, "Event Hubs wants a login: set connection_string_file, or mechanism = "
                                             "OAUTHBEARER with auth and what it goes with");
    for (size_t i = 0; i < client->pairs.count; i++)
        if (kafka_client_is_event_hubs(client) && strncmp(client->pairs.keys[i], "compression.", 12) == 0 &&
            strcmp(client->pairs.keys[i], "compression.level") != 0 && strcmp(client->pairs.values[i], "none") != 0 &&
            strcmp(client->pairs.values[i], "gzip") != 0)
            return pen_error_set(err, UV_EINVAL, "kafka.%s = %s: Event Hubs takes none or gzip only",
                                 client->pairs.keys[i], client->pairs.values[i]);
    return 0;
}

static int put_secret(rd_kafka_conf_t *conf, const struct kafka_client *client, struct pen_error *err)
{
    const char *path = client->connection_string_file ? client->connection_string_file : client->password_file;
    char *secret;
    size_t size;
    int r;

    r = pen_secret_read(&secret, &size, path, err);
    if (r < 0)
        return r;
    if (client->connection_string_file && strncasecmp(secret, "Endpoint=sb://", 14) != 0)
        r = pen_error_set(err, UV_EINVAL, "%s does not hold an Event Hubs connection string (Endpoint=sb://…)", path);
    /* librdkafka's words about a password it does not like may hold it: ours don't. */
    else if (rd_kafka_conf_set(conf, "sasl.password", secret, NULL, 0) != RD_KAFKA_CONF_OK)
        r = pen_error_set(err, UV_EINVAL, "%s: librdkafka does not take its content as password", path);
    pen_secret_wipe(secret, size);
    return r;
}

int kafka_client_put_login(rd_kafka_conf_t *conf, const struct kafka_client *client, struct pen_error *err)
{
    const char *username = client->connection_string_file ? "$ConnectionString" : client->username;
    enum security security = (enum security)client->security;
    int r;

    if (security == SECURITY_AUTO)
        security = username || kafka_client_has_tokens(client) ? SECURITY_SASL_SSL : client->ca_file ? SECURITY_SSL : SECURITY_PLAINTEXT;
    r = kafka_put(conf, "security.protocol", kafka_security_names[security], err);
    if (r == 0 && client->ca_file)
        r = kafka_put(conf, "ssl.ca.location", client->ca_file, err);
    if (r < 0 || security == SECURITY_PLAINTEXT || security == SECURITY_SSL)
        return r;
    r = kafka_put(conf, "sasl.mechanism", kafka_mechanism_names[client->mechanism], err);
    if (r == 0 && username)
        r = kafka_put(conf, "sasl.username", username, err);
    if (r == 0 && username)
        r = put_secret(conf, client, err);
    return r;
}

static const char *kept_why(const struct kafka_kept *kept, const char *key)
{
    for (; kept->key != NULL; kept++)
        if (strcmp(key, kept->key) == 0)
            return kept->why;
    return NULL;
}

int kafka_client_put_pairs(rd_kafka_conf_t *conf, const struct kafka_client *client, const struct kafka_kept *kept,
                           struct pen_error *err)
{
    int r = 0;

    for (size_t i = 0; i < client->pairs.count && r == 0; i++) {
        const char *key = client->pairs.keys[i], *why = kept_why(kept_always, key);

        if (why == NULL)
            why = kept_why(kept, key);
        if (why != NULL)
            return pen_error_set(err, UV_EINVAL, "kafka.%s cannot be set: %s", key, why);
        r = kafka_put(conf, key, client->pairs.values[i], err);
    }
    return r;
}

void kafka_client_warn(const struct kafka_client *client, const char *kind, const char *name)
{
    for (size_t i = 0; i < client->pairs.count; i++)
        if ((strcmp(client->pairs.keys[i], "enable.ssl.certificate.verification") == 0 &&
             strcmp(client->pairs.values[i], "true") != 0) ||
            (strcmp(client->pairs.keys[i], "ssl.endpoint.identification.algorithm") == 0 &&
             strcmp(client->pairs.values[i], "https") != 0))
            log_line(LOG_WARN, "brokers are not verified: anyone on the way can read and change events", kind, name, "key",
                     client->pairs.keys[i], NULL);
}
