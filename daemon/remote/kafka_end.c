/* kafka_end.c - see kafka_end.h. */
#include "daemon/remote/kafka_end.h"

#include <pthread.h>
#include <stdlib.h>
#include <uv.h>

struct ending {
    rd_kafka_t *client;
    uv_mutex_t lock;
    uv_cond_t ended;
    bool done, left;                 /* whoever comes second frees it */
};

static void ending_free(struct ending *ending)
{
    uv_cond_destroy(&ending->ended);
    uv_mutex_destroy(&ending->lock);
    free(ending);
}

static void *ending_run(void *arg)
{
    struct ending *ending = arg;
    bool left;

    rd_kafka_destroy_flags(ending->client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    uv_mutex_lock(&ending->lock);
    ending->done = true;
    left = ending->left;
    uv_cond_signal(&ending->ended);
    uv_mutex_unlock(&ending->lock);
    if (left)
        ending_free(ending);
    return NULL;
}

bool kafka_end(rd_kafka_t *client, uint64_t ms)
{
    struct ending *ending = calloc(1, sizeof(*ending));
    uint64_t end = uv_hrtime() + ms * 1000000, now;
    pthread_t thread;
    bool done;

    if (ending == NULL || uv_mutex_init(&ending->lock) != 0 || uv_cond_init(&ending->ended) != 0)
        abort();
    ending->client = client;
    if (pthread_create(&thread, NULL, ending_run, ending) != 0)
        abort();
    pthread_detach(thread);
    uv_mutex_lock(&ending->lock);
    while (!ending->done && (now = uv_hrtime()) < end)
        uv_cond_timedwait(&ending->ended, &ending->lock, end - now);
    done = ending->done;
    ending->left = !done;
    uv_mutex_unlock(&ending->lock);
    if (done)
        ending_free(ending);
    return done;
}
