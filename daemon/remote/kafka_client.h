/*
 * kafka_client.h - what the Kafka sink and the Kafka source share: brokers, TLS, login, librdkafka's own properties, and
 * what Event Hubs wants of all of them.
 */
#ifndef DAEMON_KAFKA_CLIENT_H
#define DAEMON_KAFKA_CLIENT_H

#include "daemon/remote/entra.h"

#include <librdkafka/rdkafka.h>

/* Settings, filled by rows; texts belong to the configuration. */
struct kafka_client {
    char *brokers;
    int security, mechanism;         /* private enumerations */
    char *ca_file, *username, *password_file, *connection_string_file;
    struct entra_conf entra;         /* for OAUTHBEARER */
    struct pen_pairs pairs;
};

extern const char *const kafka_security_names[], *const kafka_mechanism_names[];

/* The rows of a struct that has a struct kafka_client as `member`. `brokers_key` and `verb` tell sink from source. */
#define KAFKA_CLIENT_BROKERS(type, member, brokers_key)                                                                 \
    { brokers_key, PEN_TEXT, offsetof(type, member.brokers), .required = true,                                          \
      .help = "Brokers to start from: host:port, comma separated." }
#define KAFKA_CLIENT_LOGIN(type, member)                                                                                \
    { "security", PEN_CHOICE, offsetof(type, member.security), .fallback = "auto", .choices = kafka_security_names,     \
      .help = "Protocol; auto is sasl_ssl with a login, ssl with a ca_file alone, else plaintext." },                   \
    { "mechanism", PEN_CHOICE, offsetof(type, member.mechanism), .fallback = "PLAIN", .choices = kafka_mechanism_names, \
      .help = "SASL mechanism: for username and password, or OAUTHBEARER with tokens of Entra: then auth and what "     \
              "follows it say who we are." },                                                                           \
    { "ca_file", PEN_PATH, offsetof(type, member.ca_file),                                                              \
      .help = "Certificates (PEM) that the brokers' are verified against, in place of the system's; and, with "         \
              "OAUTHBEARER, the token endpoint's." },                                                                   \
    { "username", PEN_TEXT, offsetof(type, member.username), .help = "SASL user." },                                    \
    { "password_file", PEN_SECRET_FILE, offsetof(type, member.password_file),                                           \
      .help = "File with the SASL password; read again for every new client." },                                        \
    { "connection_string_file", PEN_SECRET_FILE, offsetof(type, member.connection_string_file),                         \
      .help = "File with an Event Hubs connection string; takes the place of username and password." },                 \
    ENTRA_AUTH_ROW(type, member.entra),                                                                                 \
    ENTRA_ROWS(type, member.entra)
#define KAFKA_CLIENT_PAIRS(type, member)                                                                                \
    { "kafka.", PEN_PAIRS, offsetof(type, member.pairs),                                                                \
      .help = "Any property of librdkafka's clients, as in kafka.compression.codec = lz4." }

/* A property that is not the user's to set: it would break a promise or has a row of its own. Tables end with NULL. */
struct kafka_kept {
    const char *key, *why;
};

/* What single rows cannot tell. `brokers_key`: what the row of the brokers is called. */
int kafka_client_check(const struct kafka_client *client, const char *brokers_key, struct pen_error *err);
/* One of the brokers is an Event Hubs namespace. */
bool kafka_client_is_event_hubs(const struct kafka_client *client);
/* It logs in with tokens (OAUTHBEARER): daemon/remote/kafka_login.h. */
bool kafka_client_has_tokens(const struct kafka_client *client);
/* TLS and login; reads the secret, so that a rotated one is taken up by the next client. */
int kafka_client_put_login(rd_kafka_conf_t *conf, const struct kafka_client *client, struct pen_error *err);
/* The user's properties, but those kept from him: here for every client, or in the caller's table. */
int kafka_client_put_pairs(rd_kafka_conf_t *conf, const struct kafka_client *client, const struct kafka_kept *kept,
                           struct pen_error *err);
/* An unverified far end is taken, because a laboratory may need it; never silently. `kind`: "sink" or "source". */
void kafka_client_warn(const struct kafka_client *client, const char *kind, const char *name);

/* One property; the error names it. */
int kafka_put(rd_kafka_conf_t *conf, const char *key, const char *value, struct pen_error *err);
int kafka_put_number(rd_kafka_conf_t *conf, const char *key, size_t number, struct pen_error *err);
/* Pairs of key and value, ended by NULL. */
int kafka_put_table(rd_kafka_conf_t *conf, const char *const (*table)[2], struct pen_error *err);
size_t kafka_get_number(const rd_kafka_conf_t *conf, const char *key);

#endif
