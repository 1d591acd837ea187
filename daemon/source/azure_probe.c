/*
 * azure_probe.c - `penstock check --online` at a container: one entry is listed, and asked for; and its queue is read from, where
 * it has one.
 */
#include "daemon/source/azure_blob.h"
#include "daemon/remote/probe.h"

#include <stdlib.h>

struct asking {
    struct probe *probe;
    char *name;                      /* of the entry; NULL: there is none */
    bool good, done;
};

static void on_blob(void *arg, const struct storage_blob *blob)
{
    struct asking *asking = arg;

    if (asking->name == NULL && (asking->name = strdup(blob->name)) == NULL)
        abort();
}

static void on_answer(void *arg, const struct storage_answer *answer)
{
    struct asking *asking = arg;

    asking->good = answer->verdict == STORAGE_OK;
    asking->done = true;
    if (!asking->good)
        probe_tell(asking->probe, FINDING_WRONG, "%s", answer->why);
}

static bool ask_for_entry(struct asking *asking, struct storage *storage, const char *prefix)
{
    struct storage_list list = { .prefix = prefix, .max = 1, .on_blob = on_blob };

    (void)storage_list(storage, &list, on_answer, asking);
    probe_wait(asking->probe, &asking->done);
    return asking->good;
}

/* The right to list is not the right to read. */
static void ask_for_blob(struct asking *asking, struct storage *storage)
{
    if (asking->name == NULL) {
        probe_tell(asking->probe, FINDING_GOOD, "the container can be listed, and holds nothing to read yet");
        return;
    }
    asking->done = false;
    (void)storage_head(storage, asking->name, on_answer, asking);
    probe_wait(asking->probe, &asking->done);
    if (asking->good)
        probe_tell(asking->probe, FINDING_GOOD, "the container can be listed and read");
}

static void on_message(void *arg, const struct message *message)
{
    (void)arg, (void)message;
}

/* The right to look at messages is not the right to take them. So they are taken, and are back in a second. */
static void ask_queue(struct asking *asking, const struct blob_source *source)
{
    struct storage_conf conf = source_queue_conf(source);
    struct storage *queue;
    struct pen_error err = { 0 };

    if (storage_new(&queue, asking->probe->http, asking->probe->loop, &conf, &err) < 0) {
        probe_tell(asking->probe, FINDING_WRONG, "%s", err.text);
        return;
    }
    asking->done = false;
    (void)storage_receive(queue, 1, on_message, on_answer, asking);
    probe_wait(asking->probe, &asking->done);
    if (asking->good)
        probe_tell(asking->probe, FINDING_GOOD, "the queue can be read");
    storage_close(queue);
}

void blob_source_probe(struct probe *probe, const struct pen_conf *conf)
{
    struct asking asking = { .probe = probe };
    struct blob_source *source = calloc(1, sizeof(*source));
    struct storage_conf storage_conf;
    struct storage *storage = NULL;
    struct pen_error err = { 0 };

    if (source == NULL)
        abort();
    if (blob_source_read(source, conf, &storage_conf, &err) < 0 ||
        storage_new(&storage, probe->http, probe->loop, &storage_conf, &err) < 0)
        probe_tell(probe, FINDING_WRONG, "%s", err.text);
    else if (ask_for_entry(&asking, storage, source->prefix.count > 0 ? source->prefix.items[0] : ""))
        ask_for_blob(&asking, storage);
    if (storage != NULL && source->queue != NULL)
        ask_queue(&asking, source);
    storage_close(storage);
    free(asking.name);
    free(source);
}
