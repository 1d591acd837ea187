/*
 * azure_notice.c - see azure_notice.h.
 *
 *   receive up to 32, hidden from others for HIDDEN_S ──▶ each: ask what the blob is now ──▶ as if listed ──▶ delete the message
 *
 * A message is deleted once the state of all its blobs has been read. Where that fails, or the blob is at work and has changed
 * under it, the message stays, and is seen again when it is not hidden any more. Messages about other containers are
 * deleted: the queue is ours. What is no event of a storage account at all stays, since then the queue may be another's.
 */
#include "daemon/source/azure_notice.h"

#include "daemon/base/log.h"
#include "daemon/source/azure_blob.h"
#include "daemon/source/azure_messages.h"

#include <stdlib.h>
#include <string.h>

#define FAILED_MAX 3                 /* from then on it is said; what passes by itself is no news */
#define HIDDEN_S 60                  /* more than 32 requests take; a blob that is at work is looked at again after it */

struct notice {
    LIST_ENTRY(notice) entry;
    struct notices *notices;
    struct storage_request *request;
    char *id, *receipt;
    char *names[NOTICE_NAMES_MAX];   /* still to be looked at */
    unsigned count;
};

struct notices {
    struct blob_source *source;
    struct storage *storage;         /* the queue's */
    struct storage_request *receiving;
    struct json *json;
    const char *container;           /* its name */
    LIST_HEAD(, notice) all;
    uint64_t due_ms, deleted, alien;
    unsigned failed;                 /* answers in a row that were none */
    bool heard, said;
};

static char *copied(const char *text)
{
    char *copy = strdup(text);

    if (copy == NULL)
        abort();
    return copy;
}

/* ---- What the queue says about us ------------------------------------------------------------------------------- */

/* Until it can be read again, hours are listed as often as without it. */
static void notices_heard(struct notices *notices, const struct storage_answer *answer)
{
    struct blob_source *source = notices->source;
    bool good = answer->verdict == STORAGE_OK;

    notices->failed = good ? 0 : notices->failed + 1;
    notices->heard = good;
    if (good && notices->said) {
        log_line(LOG_NOTE, "the queue can be read again", "source", source_name(source->host), NULL);
        notices->said = false;
    }
    if (!good && !notices->said && (answer->verdict == STORAGE_REFUSED || notices->failed >= FAILED_MAX)) {
        log_line(answer->verdict == STORAGE_REFUSED ? LOG_ERROR : LOG_WARN, "the queue cannot be read: hours are listed with every poll",
                 "source", source_name(source->host), "error", answer->why, NULL);
        source_trouble(source->host);
        notices->said = true;
    }
    if (!good) {
        notices->due_ms = source_now_ms(source->host) + source->poll_ms;
        find_hurry(source);
    }
}

/* ---- One message ----------------------------------------------------------------------------------------------- */

static void notice_free(struct notice *notice)
{
    LIST_REMOVE(notice, entry);
    while (notice->count > 0)
        free(notice->names[--notice->count]);
    free(notice->id);
    free(notice->receipt);
    free(notice);
}

/* Done with, or left to come again. */
static void notice_end(struct notice *notice)
{
    struct notices *notices = notice->notices;

    notice_free(notice);
    if (LIST_EMPTY(&notices->all))
        source_kick(notices->source);
}

static void on_deleted(void *arg, const struct storage_answer *answer)
{
    struct notice *notice = arg;

    notice->request = NULL;
    notice->notices->deleted += answer->verdict == STORAGE_OK;
    if (answer->verdict == STORAGE_REFUSED || answer->verdict == STORAGE_BUSY)
        notices_heard(notice->notices, answer);
    notice_end(notice);
}

static void notice_next(struct notice *notice);

static void on_looked(void *arg, const struct storage_answer *answer)
{
    struct notice *notice = arg;
    struct blob_source *source = notice->notices->source;
    struct storage_blob blob = answer->blob;
    bool done = answer->verdict == STORAGE_GONE;

    notice->request = NULL;
    source_heard(source, answer, false);
    blob.name = notice->names[notice->count - 1];
    if (answer->verdict == STORAGE_OK)
        done = find_hint(source, &blob);
    if (!done) {
        notice_end(notice);
        return;
    }
    free(notice->names[--notice->count]);
    notice_next(notice);
}

static void notice_next(struct notice *notice)
{
    struct notices *notices = notice->notices;

    if (notice->count > 0)
        notice->request = storage_head(notices->source->storage, notice->names[notice->count - 1], on_looked, notice);
    else
        notice->request = storage_delete(notices->storage, notice->id, notice->receipt, on_deleted, notice);
}

/* ---- Receiving ------------------------------------------------------------------------------------------------- */

static void on_name(void *arg, const char *name)
{
    struct notice *notice = arg;

    if (find_wants(notice->notices->source, name))
        notice->names[notice->count++] = copied(name);
}

static void on_message(void *arg, const struct message *message)
{
    struct notices *notices = arg;
    struct notice *notice = calloc(1, sizeof *notice);

    if (notice == NULL)
        abort();
    notice->notices = notices;
    notice->id = copied(message->id);
    notice->receipt = copied(message->receipt);
    LIST_INSERT_HEAD(&notices->all, notice, entry);
    if (notice_read(notices->json, message->text, notices->container, on_name, notice))
        return;
    notice_free(notice);             /* and is no trouble: it comes again for days, and all there is can be read */
    if (source_says(&notices->alien))
        log_line(LOG_WARN, "a message in the queue is no event of a storage account, and left there: is the queue another's?", "source",
                 source_name(notices->source->host), "messages", log_number(notices->alien), NULL);
}

static void on_received(void *arg, const struct storage_answer *answer)
{
    struct notices *notices = arg;
    struct notice *notice, *after;

    notices->receiving = NULL;
    notices->due_ms = source_now_ms(notices->source->host) + (LIST_EMPTY(&notices->all) ? notices->source->poll_ms : 0);
    notices_heard(notices, answer);
    json_shrink(notices->json, 0);
    for (notice = LIST_FIRST(&notices->all); notice != NULL; notice = after) {
        after = LIST_NEXT(notice, entry);
        if (answer->verdict == STORAGE_OK)
            notice_next(notice);
        else
            notice_free(notice);     /* of an answer that broke: it comes again */
    }
}

void notices_turn(struct notices *notices)
{
    if (notices == NULL || notices->receiving != NULL || !LIST_EMPTY(&notices->all) ||
        source_now_ms(notices->source->host) < notices->due_ms)
        return;
    if (!find_has_room(notices->source)) {         /* what is written now must not wait behind a queue that is full */
        if (notices->heard)
            find_hurry(notices->source);
        notices->heard = false;
        return;
    }
    notices->receiving = storage_receive(notices->storage, HIDDEN_S, on_message, on_received, notices);
}

bool notices_come(const struct notices *notices)
{
    return notices != NULL && notices->heard;
}

uint64_t notices_count(const struct notices *notices)
{
    return notices != NULL ? notices->deleted : 0;
}

/* ---- Life ------------------------------------------------------------------------------------------------------ */

int notices_new(struct notices **ret, struct blob_source *source, const struct storage_conf *conf, struct pen_error *err)
{
    struct notices *notices = calloc(1, sizeof *notices);
    int r;

    if (notices == NULL)
        abort();
    r = storage_new(&notices->storage, source_http(source->host), source_loop(source->host), conf, err);
    if (r < 0) {
        free(notices);
        return r;
    }
    notices->source = source;
    notices->container = strrchr(source->container, '/') + 1;
    notices->json = json_new();
    LIST_INIT(&notices->all);
    source_reserve(source->host, json_need(MESSAGE_TEXT_MAX));
    *ret = notices;
    return 0;
}

void notices_stop(struct notices *notices)
{
    struct notice *notice;

    if (notices == NULL)
        return;
    if (notices->receiving != NULL)
        storage_cancel(notices->receiving);
    notices->receiving = NULL;
    while ((notice = LIST_FIRST(&notices->all)) != NULL) {
        if (notice->request != NULL)
            storage_cancel(notice->request);
        notice_free(notice);
    }
}

void notices_close(struct notices *notices)
{
    if (notices == NULL)
        return;
    notices_stop(notices);
    storage_close(notices->storage);
    json_free(notices->json);
    free(notices);
}
