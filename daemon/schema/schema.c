/* schema.c - the schemas by name. */
#include "daemon/schema/schema.h"

static const struct schema *const schemas[] = { &asim_schema, &ocsf_schema, &raw_schema };

const char *const schema_names[] = { "asim", "ocsf", "raw", NULL };

const struct schema *schema_find(const char *name)
{
    for (size_t i = 0; i < sizeof(schemas) / sizeof(*schemas); i++)
        if (strcmp(schemas[i]->name, name) == 0)
            return schemas[i];
    return NULL;
}
