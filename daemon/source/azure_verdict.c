/* azure_verdict.c - see azure_verdict.h. */
#include "daemon/source/azure_verdict.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SKEW_MAX_S 900               /* what the service puts up with */

/* By code first, then by status. Sentences name the setting to change. */
static const struct judgement {
    int status;
    const char *code;
    enum storage_verdict verdict;
    const char *sentence;
} judgements[] = {
    { 0, "AuthenticationFailed", STORAGE_REFUSED, "the service does not take our proof: check key_file, sas_file, or tenant and "
      "client, and that the container's account is the one they are for" },
    { 0, "InvalidAuthenticationInfo", STORAGE_REFUSED, "the service does not take our proof: check key_file or sas_file; for "
      "an identity of Entra, check tenant, and cloud or scope" },
    { 0, "AuthorizationPermissionMismatch", STORAGE_REFUSED, "we may not do this here: a SAS needs the rights read and list "
      "(sp=rl); an identity of Entra needs the role Storage Blob Data Reader on the container (a new assignment takes up to 10 "
      "minutes)" },
    { 0, "AuthorizationFailure", STORAGE_REFUSED, "the storage account does not let us in from this network, or not with this "
      "proof: look at its Networking page, and at key_file, sas_file or the app's role" },
    { 0, "InsufficientAccountPermissions", STORAGE_REFUSED, "we may not do this here: read and list are needed" },
    { 0, "AuthorizationSourceIPMismatch", STORAGE_REFUSED, "the SAS is for other addresses than this machine's (sip): make a new "
      "one" },
    { 0, "AuthorizationProtocolMismatch", STORAGE_REFUSED, "the SAS is for https alone: container must begin with https://" },
    { 0, "AuthorizationServiceMismatch", STORAGE_REFUSED, "the SAS is for another service: it must allow blobs (ss=b)" },
    { 0, "AuthorizationResourceTypeMismatch", STORAGE_REFUSED, "the SAS does not cover containers and blobs: it needs srt=co, or "
      "must be the container's own" },
    { 0, "KeyBasedAuthenticationNotPermitted", STORAGE_REFUSED, "the storage account takes neither keys nor a SAS made from one: "
      "use auth = entra" },
    { 0, "NoAuthenticationInformation", STORAGE_REFUSED, "the service wants to know who we are: check auth" },
    { 0, "PublicAccessNotPermitted", STORAGE_REFUSED, "the service wants to know who we are: check auth" },
    { 0, "ContainerNotFound", STORAGE_REFUSED, "there is no such container in this account: check container" },
    { 0, "ResourceNotFound", STORAGE_REFUSED, "there is no such container in this account: check container" },
    { 0, "ContainerDisabled", STORAGE_REFUSED, "the container is disabled" },
    { 0, "ContainerBeingDeleted", STORAGE_REFUSED, "the container is being deleted" },
    { 0, "AccountIsDisabled", STORAGE_REFUSED, "the storage account is disabled" },
    { 0, "InvalidResourceName", STORAGE_REFUSED, "container does not name a container" },
    { 0, "InvalidUri", STORAGE_REFUSED, "container does not name a container" },
    { 0, "AccountRequiresHttps", STORAGE_REFUSED, "the storage account takes https alone: container must begin with https://" },
    { 0, "BlobNotFound", STORAGE_GONE, "there is no such blob any more" },
    { 0, "BlobArchived", STORAGE_LOCKED, "the blob lies in the archive tier and cannot be read" },
    { 0, "BlobBeingRehydrated", STORAGE_LOCKED, "the blob is on its way out of the archive tier" },
    { 0, "BlobUsesCustomerSpecifiedEncryption", STORAGE_LOCKED, "the blob is encrypted with a key that only its writer has" },
    { 0, "BlobImmutableDueToPolicy", STORAGE_LOCKED, "a policy locks the blob" },
    { 0, "ConditionNotMet", STORAGE_CHANGED, "the blob has changed" },
    { 0, "InvalidRange", STORAGE_BEYOND, "the blob is shorter" },
    { 304, NULL, STORAGE_CHANGED, "the blob has not changed" },
    { 401, NULL, STORAGE_REFUSED, "the service does not know us: check auth and its files" },
    { 403, NULL, STORAGE_REFUSED, "we may not do this here: check auth, its rights, and the account's Networking page" },
    { 404, NULL, STORAGE_GONE, "there is no such blob any more" },
    { 407, NULL, STORAGE_REFUSED, "the proxy wants to know who we are: it must let this machine through" },
    { 408, NULL, STORAGE_BUSY, "the service waited too long for us" },
    { 409, NULL, STORAGE_LOCKED, "the blob cannot be read as it is" },
    { 412, NULL, STORAGE_CHANGED, "the blob has changed" },
    { 416, NULL, STORAGE_BEYOND, "the blob is shorter" },
    { 429, NULL, STORAGE_BUSY, "the account's limit of requests is reached" },
};

/* What of it means something else of a queue. */
static const struct judgement queue_judgements[] = {
    { 0, "AuthorizationPermissionMismatch", STORAGE_REFUSED, "we may not do this here: a SAS needs the right process (sp=p); an "
      "identity of Entra needs the role Storage Queue Data Message Processor on the queue (a new assignment takes up to 10 "
      "minutes)" },
    { 0, "InsufficientAccountPermissions", STORAGE_REFUSED, "we may not do this here: the right to process messages is needed" },
    { 0, "AuthorizationServiceMismatch", STORAGE_REFUSED, "the SAS is for another service: it must allow queues (ss=q)" },
    { 0, "AuthorizationResourceTypeMismatch", STORAGE_REFUSED, "the SAS does not cover messages: it needs srt=o, or must be the queue's "
      "own" },
    { 0, "QueueNotFound", STORAGE_REFUSED, "there is no such queue in this account: check queue" },
    { 0, "ResourceNotFound", STORAGE_REFUSED, "there is no such queue in this account: check queue" },
    { 0, "MessageNotFound", STORAGE_GONE, "there is no such message any more" },
    { 0, "PopReceiptMismatch", STORAGE_GONE, "the message is another reader's by now" },
    { 404, NULL, STORAGE_REFUSED, "there is no such queue in this account: check queue" },
};

static const struct judgement *judgement_find(const struct judgement *rows, size_t count, int status, const char *code)
{
    for (size_t i = 0; i < count; i++)
        if (rows[i].code != NULL ? code != NULL && strcmp(code, rows[i].code) == 0 : status == rows[i].status)
            return &rows[i];
    return NULL;
}

enum storage_verdict verdict_judge(bool queue, int status, const char *code, const char **sentence)
{
    const struct judgement *row = NULL;

    if (queue)
        row = judgement_find(queue_judgements, sizeof queue_judgements / sizeof *queue_judgements, status, code);
    if (row == NULL)
        row = judgement_find(judgements, sizeof judgements / sizeof *judgements, status, code);
    if (row != NULL) {
        *sentence = row->sentence;
        return row->verdict;
    }
    *sentence = status / 100 == 2 ? "taken" : status / 100 == 3 ? "the address redirects: container is not the address of one"
              : status >= 500 ? "the service is in trouble" : "the service refuses the request: check container and prefix";
    return status / 100 == 2 ? STORAGE_OK : status >= 500 ? STORAGE_BUSY : STORAGE_REFUSED;
}

static const struct judgement failures[] = {
    [HTTP_ANSWERED] = { 0, NULL, STORAGE_BUSY, "an answer that makes no sense" },
    [HTTP_UNUSABLE] = { 0, NULL, STORAGE_REFUSED, "check the address, proxy and ca_file" },
    [HTTP_UNTRUSTED] = { 0, NULL, STORAGE_REFUSED, "the service's certificate is not trusted: check the address, ca_file, and who "
                         "is in between" },
    [HTTP_UNREACHED] = { 0, NULL, STORAGE_BUSY, "the service cannot be reached: check the address, the network, proxy" },
    [HTTP_SLOW] = { 0, NULL, STORAGE_BUSY, "the service did not answer in time" },
    [HTTP_BROKEN] = { 0, NULL, STORAGE_BUSY, "the connection was lost" },
};

enum storage_verdict verdict_failure(enum http_failure failure, const char **sentence)
{
    *sentence = failures[failure].sentence;
    return failures[failure].verdict;
}

/* ---- What a refusal does not say ------------------------------------------------------------------------------- */

/* The value of a parameter of the SAS, or NULL. */
static const char *sas_value(const char *sas, const char *name, char value[static 64])
{
    size_t size = strlen(name), n;

    for (; sas != NULL && *sas != '\0'; sas += strcspn(sas, "&"), sas += *sas == '&') {
        if (strncmp(sas, name, size) != 0 || sas[size] != '=')
            continue;
        n = strcspn(sas + size + 1, "&");
        if (n >= 64)
            return NULL;
        memcpy(value, sas + size + 1, n);
        value[n] = '\0';
        for (char *at = value; (at = strstr(at, "%3")) != NULL; at++)    /* colons, as every tool writes them */
            if ((at[2] | 32) == 'a') {
                *at = ':';
                memmove(at + 1, at + 3, strlen(at + 3) + 1);
            }
        return value;
    }
    return NULL;
}

static int64_t sas_time(const char *sas, const char *name)
{
    char value[64];
    struct tm tm = { 0 };
    const char *text = sas_value(sas, name, value);

    if (text == NULL || (strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) == NULL && strptime(text, "%Y-%m-%dT%H:%M", &tm) == NULL &&
                         strptime(text, "%Y-%m-%d", &tm) == NULL))
        return 0;
    return timegm(&tm);
}

const char *verdict_hint(const struct storage_conf *conf, const char *sas, int64_t skew_s)
{
    int64_t now = (int64_t)time(NULL) + skew_s, until, from;
    char value[64];

    if (conf->auth != STORAGE_SAS && llabs((long long)skew_s) > SKEW_MAX_S)
        return "this machine's clock is more than 15 minutes off the service's: set it right (timedatectl)";
    until = sas_time(sas, "se");
    from = sas_time(sas, "st");
    if (until > 0 && until <= now)
        return "the SAS has expired: make a new one and put it into sas_file";
    if (from > now)
        return "the SAS is not valid yet (st): wait, or make a new one";
    if (conf->queue)
        return sas_value(sas, "sp", value) == NULL || strchr(value, 'p') != NULL
                   ? NULL : "the SAS does not allow to process messages (sp): make a new one with p";
    if (sas_value(sas, "sp", value) != NULL && (strchr(value, 'r') == NULL || strchr(value, 'l') == NULL))
        return "the SAS does not allow both read and list (sp): make a new one with both";
    if (sas_value(sas, "srt", value) != NULL && (strchr(value, 'c') == NULL || strchr(value, 'o') == NULL))
        return "the SAS does not cover containers and objects (srt): make a new one with both";
    return NULL;
}
