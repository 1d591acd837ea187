/* entra_answer.c - see entra_answer.h. */
#include "daemon/remote/entra_answer.h"

#include "daemon/base/secret.h"
#include "daemon/record/json.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LIFE_MAX_S  (48 * 3600)      /* Entra's longest is 28 h; a later end is not believed */
#define TOKEN_MAX   (16 * 1024)

_Static_assert(HTTP_ANSWER_PADDING >= JSON_PADDING, "an answer's body can be parsed where it lies");

/* ---- What it says when it says no ------------------------------------------------------------------------------ */

/* AADSTS…: the first of error_codes [entra reference-error-codes.md; those marked * are known from the field]. */
static const struct {
    int64_t code;
    const char *advice;
} refusals[] = {
    { 7000215, "the secret is wrong: put the secret's value, not its id, into secret_file" },
    { 7000222, "the secret has expired: make a new one for the app and put its value into secret_file" },
    { 700016,  "the app is not known in this tenant: check client and tenant" },
    { 7000112, "the app is disabled in this tenant: enable its service principal" },
    { 7000229, "the app has no service principal in this tenant: az ad sp create --id CLIENT" },
    { 700027,  "the app does not know this certificate, or it has expired: upload the one in certificate_file to the app" },
    { 1000502, "the certificate is outside its validity: renew it in certificate_file and upload it to the app" },        /* * */
    { 700024,  "the assertion is outside its validity: set this machine's clock right; with token_file, is it still renewed?" },
    { 700023,  "the assertion is for another audience: check authority and cloud" },
    { 700021,  "the assertion is for another app: check client" },                                                        /* * */
    { 70021,   "no federated credential of the app matches the token: compare issuer, subject and audience" },
    { 700211,  "no federated credential of the app names the token's issuer: add it, or check token_file" },
    { 700212,  "no federated credential of the app takes the token's audience: it must be api://AzureADTokenExchange" },
    { 700213,  "no federated credential of the app names the token's subject: add it, or check token_file" },
    { 50013,   "the token in token_file is not valid: is it still renewed?" },                                            /* * */
    { 90002,   "the tenant does not exist: check tenant, and authority for its cloud" },
    { 900023,  "tenant is neither a tenant's id nor a domain of it" },
    { 900382,  "the tenant lives in another cloud: check cloud" },
    { 90038,   "the tenant lives in another cloud: check cloud" },                                                        /* * */
    { 70011,   "the scope is not valid: it must be the far end's address followed by /.default" },
    { 1002012, "the scope is not valid: it must be the far end's address followed by /.default" },
    { 500011,  "the tenant does not know the scope's resource: check cloud and scope" },
    { 50001,   "the tenant does not know the scope's resource: check cloud and scope" },
    { 53003,   "a conditional access policy of the tenant blocks the app" },
    { 50034,   "the app is not known in this tenant: check client and tenant" },
};

static const char *app_advice(const struct credential *credential, int64_t code)
{
    for (size_t i = 0; i < sizeof(refusals) / sizeof(*refusals); i++)
        if (refusals[i].code == code)
            return refusals[i].advice;
    switch (credential->kind) {
    case CREDENTIAL_CERTIFICATE:
        return "check tenant, client, certificate_file, cloud and scope";
    case CREDENTIAL_FEDERATED:
        return "check tenant, client, token_file, cloud and scope";
    default:
        return "check tenant, client, secret_file, authority, cloud and scope";
    }
}

/* The endpoints of machines: by `error` where there is one [entra how-to-use-vm-token.md]. */
static const struct {
    int status;                      /* 0: any */
    const char *error;               /* NULL: any */
    const char *advice;
} managed_refusals[] = {
    { 0, "invalid_resource", "the tenant does not know what the token is for: check cloud and scope" },
    { 0, "bad_request_102", "the endpoint was asked in a way it does not take" },
    { 0, "invalid_request", "this machine has no such identity: assign one to it, and check client and identity" },
    { 0, "unauthorized_client", "the identity may not have tokens in its tenant: is it disabled?" },
    { 401, NULL, "the endpoint does not know this process: for Azure Arc, the user needs the group himds" },
    { 403, NULL, "the endpoint does not let this process in" },
    { 0, NULL, "check client, identity and scope, and that the machine has an identity" },
};

static const char *managed_advice(int status, struct pen_span error)
{
    size_t i = 0;

    while ((managed_refusals[i].status != 0 && managed_refusals[i].status != status) ||
           (managed_refusals[i].error != NULL && !pen_span_is_nocase(error, managed_refusals[i].error)))
        i++;
    return managed_refusals[i].advice;
}

/* ---- Outcomes -------------------------------------------------------------------------------------------------- */

void entra_answer_refuse(struct entra_answer *answer, const char *format, ...)
{
    va_list args;

    *answer = (struct entra_answer){ .refused = true, .hold_ms = -1 };
    va_start(args, format);
    vsnprintf(answer->why, sizeof(answer->why), format, args);
    va_end(args);
}

static void answer_pass(struct entra_answer *answer, int64_t hold_ms, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void answer_pass(struct entra_answer *answer, int64_t hold_ms, const char *format, ...)
{
    va_list args;

    *answer = (struct entra_answer){ .hold_ms = hold_ms };
    va_start(args, format);
    vsnprintf(answer->why, sizeof(answer->why), format, args);
    va_end(args);
}

/* It goes into a header: nothing but visible ASCII. */
static bool token_fits(struct pen_span token)
{
    if (token.size == 0 || token.size > TOKEN_MAX)
        return false;
    for (size_t i = 0; i < token.size; i++)
        if (token.data[i] <= ' ' || token.data[i] >= 0x7f)
            return false;
    return true;
}

/* App Service may name the end alone. 0: neither a life nor an end that makes sense. */
static int64_t life_read(const struct pen_json *root, int64_t now)
{
    struct pen_json life = pen_json_get(root, "expires_in"), end = pen_json_get(root, "expires_on");
    int64_t s = 0;

    if (!pen_json_int(&life, &s) && (!pen_json_int(&end, &s) || __builtin_sub_overflow(s, now, &s)))
        return 0;
    return s < 0 ? 0 : s < LIFE_MAX_S ? s : LIFE_MAX_S;
}

/* A 200's body. False: it holds no token. */
static bool answer_take(struct entra_answer *answer, const struct pen_json *root, int64_t now)
{
    struct pen_json renew = pen_json_get(root, "refresh_in");
    struct pen_span token = pen_json_text(root, "access_token");
    int64_t life_s = life_read(root, now), renew_s = 0;

    if (!token_fits(token) || !pen_span_is_nocase(pen_json_text(root, "token_type"), "Bearer") || life_s == 0)
        return false;
    if (!pen_json_int(&renew, &renew_s) || renew_s < 0 || renew_s > LIFE_MAX_S)
        renew_s = 0;
    *answer = (struct entra_answer){ .life_s = life_s, .renew_s = renew_s };
    answer->token = secret_alloc(token.size + 1);
    memcpy(answer->token, token.data, token.size);
    explicit_bzero((char *)token.data, token.size);           /* the tree is ours and goes next */
    return true;
}

/* An error's body. The description is Entra's prose, with who knows what in it: not for our log. */
static void answer_refuse(struct entra_answer *answer, const struct credential *credential, int status,
                          const struct pen_json *root)
{
    struct pen_json codes = pen_json_get(root, "error_codes"), first = pen_json_item(&codes, 0);
    struct pen_span trace = pen_json_text(root, "trace_id");
    int64_t code = 0;

    if (!pen_guid_valid(trace))
        trace = PEN_SPAN("-");
    if (credential_is_managed(credential))
        entra_answer_refuse(answer, "the managed identity's endpoint gives no token: status %d, %s", status,
                            managed_advice(status, pen_json_text(root, "error")));
    else if (pen_json_int(&first, &code))
        entra_answer_refuse(answer, "Entra gives no token: AADSTS%lld, %s (trace id %.*s)", (long long)code,
                            app_advice(credential, code), (int)trace.size, trace.data);
    else
        entra_answer_refuse(answer, "Entra gives no token: status %d, %s (trace id %.*s)", status, app_advice(credential, 0),
                            (int)trace.size, trace.data);
}

static void answer_parse(struct entra_answer *answer, const struct credential *credential, const struct http_answer *http,
                         int64_t now)
{
    struct json *json = json_new();
    struct pen_json root = { 0 };
    const char *why;

    if (json_parse(json, http->body.data, http->body.size, &root, &why) < 0)
        root = (struct pen_json){ 0 };
    if (http->status != 200)
        answer_refuse(answer, credential, http->status, &root);
    else if (!answer_take(answer, &root, now))
        answer_pass(answer, -1, "the token endpoint answered 200 without a token that can be used");
    json_free(json);
}

/* IMDS says 404 and 410 while it is being updated, for 70 s at most [entra how-to-use-vm-token.md]. */
static bool status_passes(const struct credential *credential, int status)
{
    return status == 408 || status == 429 || status >= 500 ||
           (credential_is_managed(credential) && (status == 404 || status == 410));
}

void entra_answer_read(struct entra_answer *answer, const struct credential *credential, const struct http_answer *http,
                       int64_t now)
{
    bool managed = credential_is_managed(credential);
    int status = http->status;

    if (status == 0 && (http->failure == HTTP_UNUSABLE || http->failure == HTTP_UNTRUSTED))
        entra_answer_refuse(answer, "the token endpoint cannot be asked: %s; check authority, proxy, ca_file and this machine's "
                                    "clock", http->trouble);
    else if (status == 0 && managed)
        answer_pass(answer, -1, "the managed identity's endpoint did not answer: %s; if this is no machine of Azure's, say who we "
                                "are (auth)", http->trouble);
    else if (status == 0)
        answer_pass(answer, -1, "the token endpoint did not answer: %s", http->trouble);
    else if (status_passes(credential, status))
        answer_pass(answer, http->retry_after_ms, "the token endpoint is busy or in trouble: status %d", status);
    else if (status >= 300 && status < 400)
        entra_answer_refuse(answer, "the token endpoint redirects (status %d): check authority", status);
    else
        answer_parse(answer, credential, http, now);
}
