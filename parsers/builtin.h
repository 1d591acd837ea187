/* builtin.h - the parsers that come with Penstock. */
#ifndef PARSERS_BUILTIN_H
#define PARSERS_BUILTIN_H

#include "parsers/parser.h"

extern const struct pen_parser activity_log_parser, nsg_flow_parser, vnet_flow_parser, defender_alert_parser;
extern const struct pen_parser unknown_parser;       /* claims everything: asked last */

#endif
