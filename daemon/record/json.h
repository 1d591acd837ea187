/*
 * json.h - simdjson behind a C face: the daemon's side. What parsers may call is in parsers/parser.h.
 *
 * A tree belongs to one worker. Its memory grows to about 14 times the largest text parsed and is given back by
 * json_shrink(). Strict RFC 8259 with UTF-8 validation; a value deeper than JSON_DEPTH_MAX, the root being at 1, is refused.
 */
#ifndef DAEMON_JSON_H
#define DAEMON_JSON_H

#include "daemon/base/buf.h"

#ifdef __cplusplus
extern "C" {
#endif

#define JSON_DEPTH_MAX 256
#define JSON_PADDING 64              /* readable bytes that must follow the text; their values do not matter */

struct json;

struct json *json_new(void);
void json_free(struct json *json);
/* Parses the text, which JSON_PADDING readable bytes must follow; on success *root is valid until the next parse with
 * this tree, and 0 is returned. On failure UV_EINVAL, and *why is a static sentence ("a string is not closed"). */
int json_parse(struct json *json, const char *text, size_t size, struct pen_json *root, const char **why);
/* Bytes of memory the tree holds now. */
size_t json_held(const struct json *json);
/* Gives back what goes beyond a text of `size`. Invalidates nodes. */
void json_shrink(struct json *json, size_t size);
/* What parsing a text of this size may take at worst. */
size_t json_need(size_t size);

/* Writes the node as compact JSON: keys and texts as they were, numbers in their shortest form. */
void json_write(const struct pen_json *node, struct buf *out);

#ifdef __cplusplus
}
#endif
#endif
