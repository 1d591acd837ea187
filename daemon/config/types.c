/* types.c - the one place that knows the sources and sinks by name. */
#include "daemon/config/settings.h"

const struct source_type *const source_types[] = { &file_source, &azure_blob_source, &event_hub_source, &kafka_source, NULL };

const struct pen_sink *const sink_types[] = { &sentinel_sink, &kafka_sink, NULL };
