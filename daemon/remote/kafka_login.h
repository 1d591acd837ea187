/*
 * kafka_login.h - tokens of Entra for a Kafka client: SASL OAUTHBEARER, as Event Hubs takes it.
 *
 * librdkafka says when it wants a token (at first, and after four fifths of one's life); one is fetched on the loop and handed
 * over, or why there is none. It asks again by itself, 10 s after a failure.
 */
#ifndef DAEMON_KAFKA_LOGIN_H
#define DAEMON_KAFKA_LOGIN_H

#include "daemon/remote/http.h"
#include "daemon/remote/kafka_client.h"

struct kafka_login;

/* *ret is NULL where this client logs in by other means; the functions below take it all the same. */
int kafka_login_new(struct kafka_login **ret, const struct kafka_client *client, struct http *http, uv_loop_t *loop,
                    struct pen_error *err);
/* What can be said of the settings without network and secrets. */
int kafka_login_check(const struct kafka_client *client, struct pen_error *err);
/* librdkafka asks: from the refresh callback or its event, on the loop's thread. */
void kafka_login_refresh(struct kafka_login *login, rd_kafka_t *rk);
/* The client is about to be destroyed. refused: the brokers did not take its token, so that the next one is fetched anew. */
void kafka_login_forget(struct kafka_login *login, bool refused);
/* How long the token lives yet; UINT64_MAX where there is no need of one. */
uint64_t kafka_login_life_ms(const struct kafka_login *login);
void kafka_login_close(struct kafka_login *login);

#endif
