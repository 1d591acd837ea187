/*
 * azure_verdict.h - what an answer of the storage service means: the verdict a caller acts by, and a sentence for people.
 *
 * A refusal is worth a sentence that names the setting to change. The service's own code tells most of it; for a SAS its
 * text tells the rest (what it allows, until when), and the service's clock beside ours tells whether ours is off.
 */
#ifndef DAEMON_SOURCE_AZURE_VERDICT_H
#define DAEMON_SOURCE_AZURE_VERDICT_H

#include "daemon/source/azure_storage.h"

/* code: x-ms-error-code, or NULL. Sentences are static. */
enum storage_verdict verdict_judge(bool queue, int status, const char *code, const char **sentence);
/* Where no answer came. */
enum storage_verdict verdict_failure(enum http_failure failure, const char **sentence);
/* What we can tell of a refusal beyond its code, or NULL. Nothing of the SAS, which may be NULL, is repeated. skew_s: the
 * service's clock less ours. */
const char *verdict_hint(const struct storage_conf *conf, const char *sas, int64_t skew_s);

#endif
