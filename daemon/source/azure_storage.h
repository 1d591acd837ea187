/*
 * azure_storage.h - one container of Azure Blob Storage, read-only: list, ask, get a range. Nothing else is ever sent to it.
 * Or one queue: receive messages, delete them.
 *
 * Knows how to enter (account key, SAS, Entra token), how to sign, and what the service means by its answers: a verdict
 * the caller acts by, and one sentence for people. It has no patience of its own: waiting and trying again are the
 * caller's. Secrets are read from their files when needed, and anew after a refusal, so that rotation needs no restart.
 */
#ifndef DAEMON_SOURCE_AZURE_STORAGE_H
#define DAEMON_SOURCE_AZURE_STORAGE_H

#include "daemon/base/buf.h"
#include "daemon/remote/entra.h"
#include "daemon/source/azure_messages.h"

#define STORAGE_VERSION "2021-12-02" /* of the REST API */
#define STORAGE_NAME_MAX 4096        /* bytes of a name; the service allows 1024 characters */
#define STORAGE_ETAG_MAX 64

struct storage;
struct storage_request;

enum storage_auth { STORAGE_ENTRA, STORAGE_KEY, STORAGE_SAS };

struct storage_conf {                /* texts are borrowed for the object's life */
    const char *container;           /* https://ACCOUNT.blob.core.windows.net/CONTAINER */
    bool queue;                      /* it is https://ACCOUNT.queue.core.windows.net/QUEUE */
    enum storage_auth auth;
    const char *sas_file, *key_file;
    struct entra_conf entra;
    struct http_conf http;
};

enum storage_kind { STORAGE_BLOCK, STORAGE_APPEND, STORAGE_OTHER /* page blobs, folders, deleted ones: not to be read */ };

/* A blob, as a listing or the headers of an answer tell of it. */
struct storage_blob {
    const char *name;                /* NULL in headers */
    const char *etag;                /* without quotes; "" where unknown */
    uint64_t size;                   /* of the whole blob */
    int64_t modified, created;       /* seconds since 1970, 0 where unknown */
    enum storage_kind kind;
    bool archived;                   /* in a tier that cannot be read */
};

enum storage_verdict {
    STORAGE_OK,
    STORAGE_CHANGED,                 /* not the blob of that ETag any more */
    STORAGE_BEYOND,                  /* the range begins at or behind its end */
    STORAGE_GONE,                    /* no such blob */
    STORAGE_LOCKED,                  /* this blob alone cannot be read: archived, another's key */
    STORAGE_BUSY,                    /* not now: overload, network */
    STORAGE_REFUSED,                 /* our settings or rights: a human must act */
};

struct storage_answer {
    enum storage_verdict verdict;
    int64_t retry_after_ms;          /* -1: the far end named none */
    struct storage_blob blob;        /* get, head: as far as verdict is OK */
    const char *marker;              /* list: where the next page begins, "" at the end */
    const char *why;                 /* where verdict is not OK */
};

typedef void (*storage_done)(void *arg, const struct storage_answer *answer);

/* Whether the settings can be what they should be; the sentence begins with the key. */
int storage_conf_check(const struct storage_conf *conf, struct pen_error *err);
int storage_new(struct storage **ret, struct http *http, uv_loop_t *loop, const struct storage_conf *conf,
                struct pen_error *err);
/* Cancels what is under way; wipes the secret. Accepts NULL. */
void storage_close(struct storage *storage);
/* Seconds since 1970 by the service's clock: by ours until it has told, which storage_has_time() says. */
int64_t storage_now(const struct storage *storage);
bool storage_has_time(const struct storage *storage);
struct storage_counts {
    uint64_t requests, fetched, listed;            /* the latter: bytes of blobs, and of listings */
};
const struct storage_counts *storage_counts(const struct storage *storage);
/* How long its token lives yet; UINT64_MAX where there is no need of one. */
uint64_t storage_token_ms(const struct storage *storage);

/* One page of a listing, in the order of names. The callbacks come while the page does, before done(); what they were told
 * holds even where the page then breaks. */
struct storage_list {
    const char *prefix;
    bool folders;                    /* with delimiter: what lies in folders comes as one on_folder() each */
    const char *marker;              /* NULL or "": from the start */
    unsigned max;                    /* entries */
    void (*on_blob)(void *arg, const struct storage_blob *blob);
    void (*on_folder)(void *arg, const char *prefix);              /* ends with '/' */
};

struct storage_get {
    const char *name;
    uint64_t from, size;
    const char *etag;                /* NULL: whatever is there now */
    /* Bytes from `from` on, in order, at most size. False: enough, hang up. */
    bool (*on_data)(void *arg, const char *data, size_t size);
};

/* Texts are copied; done() comes on a later turn, exactly once, unless it is cancelled. */
struct storage_request *storage_list(struct storage *storage, const struct storage_list *list, storage_done done, void *arg);
struct storage_request *storage_get(struct storage *storage, const struct storage_get *get, storage_done done, void *arg);
struct storage_request *storage_head(struct storage *storage, const char *name, storage_done done, void *arg);
/* Up to MESSAGES_MAX messages, which the queue then hides for so long; they come before done(). And to delete one of them:
 * GONE where the receipt is too old. */
struct storage_request *storage_receive(struct storage *storage, unsigned hidden_s, message_told told, storage_done done, void *arg);
struct storage_request *storage_delete(struct storage *storage, const char *id, const char *receipt, storage_done done, void *arg);
void storage_cancel(struct storage_request *request);

/* ---- For tests ---- */

struct storage_call {                /* a request, as far as it is signed */
    const char *method, *account;
    const char *path;                /* as it is sent */
    struct storage_pair { const char *name, *value; } query[6];   /* sorted; values as they are, not encoded */
    unsigned query_count;
    const char *date, *if_match, *range;                          /* the latter two may be NULL */
};
void storage_string_to_sign(struct buf *out, const struct storage_call *call);
/* "SharedKey ACCOUNT:SIGNATURE"; 0, or UV_EINVAL where the key is not base64. */
int storage_sign(struct buf *out, const struct storage_call *call, const char *key);
void storage_encode(struct buf *out, const char *text, const char *keep);   /* percent-encoded but for `keep` */

#endif
