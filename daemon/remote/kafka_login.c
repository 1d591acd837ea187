/* kafka_login.c - see kafka_login.h. */
#include "daemon/remote/kafka_login.h"

#include "daemon/remote/entra.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TOKEN_TIMEOUT_MS         30000
#define TOKEN_CONNECT_TIMEOUT_MS 10000

struct kafka_login {
    struct entra *entra;
    char *scope;
    rd_kafka_t *rk;                  /* who asked last; NULL: nobody, or it is gone */
    bool asked;                      /* Entra is at it */
    bool refused;                    /* the token it holds was */
};

/* What the token is for: the first broker's namespace, unless the user says otherwise. */
static char *login_scope(const struct kafka_client *client)
{
    char *scope;

    if (client->entra.scope != NULL)
        scope = strdup(client->entra.scope);
    else if (asprintf(&scope, "https://%.*s/.default", (int)strcspn(client->brokers, ":,"), client->brokers) < 0)
        scope = NULL;
    if (scope == NULL)
        abort();
    return scope;
}

static struct entra_conf login_conf(const struct kafka_client *client, const char *scope)
{
    struct entra_conf conf = client->entra;

    conf.scope = scope;
    conf.http = (struct http_conf){ .ca_file = client->ca_file, .timeout_ms = TOKEN_TIMEOUT_MS,
                                    .connect_timeout_ms = TOKEN_CONNECT_TIMEOUT_MS };
    return conf;
}

int kafka_login_check(const struct kafka_client *client, struct pen_error *err)
{
    struct entra_conf conf = login_conf(client, client->entra.scope);
    int r;

    if (!kafka_client_has_tokens(client))
        return 0;
    r = entra_conf_check(&conf, err);
    return r < 0 ? r : entra_cloud_check(&conf, "the first broker", client->brokers, err);
}

int kafka_login_new(struct kafka_login **ret, const struct kafka_client *client, struct http *http, uv_loop_t *loop,
                    struct pen_error *err)
{
    struct kafka_login *login;
    struct entra_conf conf;
    int r;

    *ret = NULL;
    if (!kafka_client_has_tokens(client))
        return 0;
    login = calloc(1, sizeof(*login));
    assert(login);
    login->scope = login_scope(client);
    conf = login_conf(client, login->scope);
    r = entra_new(&login->entra, http, loop, &conf, err);
    if (r < 0) {
        free(login->scope);
        free(login);
        return r;
    }
    *ret = login;
    return 0;
}

/* librdkafka counts a token's life by the wall clock. */
static int64_t wall_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void on_token(void *arg, const char *token, bool refused, int64_t retry_after_ms, const char *why)
{
    struct kafka_login *login = arg;
    char text[256];

    (void)refused, (void)retry_after_ms;
    login->asked = false;
    if (login->rk == NULL)
        return;
    if (token != NULL && login->refused) {
        login->refused = false;
        entra_spoiled(login->entra, token);
        kafka_login_refresh(login, login->rk);
        return;
    }
    if (token != NULL) {
        if (rd_kafka_oauthbearer_set_token(login->rk, token, wall_ms() + (int64_t)entra_life_ms(login->entra), "penstock", NULL,
                                           0, text, sizeof(text)) == RD_KAFKA_RESP_ERR_NO_ERROR)
            return;
        why = "librdkafka does not take Entra's token";      /* its own words may hold it */
    }
    rd_kafka_oauthbearer_set_token_failure(login->rk, why);
}

void kafka_login_refresh(struct kafka_login *login, rd_kafka_t *rk)
{
    if (login == NULL)
        return;
    login->rk = rk;
    if (!login->asked)
        entra_token(login->entra, on_token, login);
    login->asked = true;
}

void kafka_login_forget(struct kafka_login *login, bool refused)
{
    if (login == NULL)
        return;
    login->rk = NULL;
    login->refused |= refused;
}

uint64_t kafka_login_life_ms(const struct kafka_login *login)
{
    return login != NULL ? entra_life_ms(login->entra) : UINT64_MAX;
}

void kafka_login_close(struct kafka_login *login)
{
    if (login == NULL)
        return;
    entra_close(login->entra);
    free(login->scope);
    free(login);
}
