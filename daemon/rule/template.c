/*
 * template.c - see template.h.
 *
 * Members are written through `struct writer`, which knows how JSON and Bicep spell them; the trees below are written once for
 * both. Expressions differ in more than spelling and are given in both languages. Sources: Microsoft's template references of
 * Microsoft.Insights/dataCollectionRules 2023-03-11, Microsoft.OperationalInsights/workspaces/tables 2022-10-01 and
 * Microsoft.Authorization/roleAssignments 2022-04-01.
 */
#include "daemon/rule/template.h"

#include <assert.h>
#include <stdio.h>

#define RULES "Microsoft.Insights/dataCollectionRules"
#define RULES_VERSION "2023-03-11"
#define WORKSPACES "Microsoft.OperationalInsights/workspaces"
#define TABLES_VERSION "2022-10-01"
#define ROLES "Microsoft.Authorization/roleAssignments"
#define ROLES_VERSION "2022-04-01"
#define PUBLISHER "3913510d-42f4-4e42-8a64-420c390055eb"           /* Monitoring Metrics Publisher, in every tenant */

struct writer {
    struct buf *out;
    enum template_form form;
    unsigned depth;
    bool first;                      /* nothing stands between the brace and here */
    bool flat;                       /* all on one line */
};

/* ---- Members --------------------------------------------------------------------------------------------------- */

static void write_indent(struct writer *writer)
{
    buf_char(writer->out, '\n');
    for (unsigned i = 0; i < writer->depth; i++)
        BUF_LITERAL(writer->out, "  ");
}

static void write_json_text(struct writer *writer, const char *text)
{
    buf_json_string(writer->out, text, strlen(text));
}

static void write_bicep_text(struct writer *writer, const char *text)
{
    buf_char(writer->out, '\'');
    for (; *text != '\0'; text++) {
        if (*text == '\'' || *text == '\\' || (text[0] == '$' && text[1] == '{'))
            buf_char(writer->out, '\\');
        buf_char(writer->out, *text);
    }
    buf_char(writer->out, '\'');
}

static void write_text(struct writer *writer, const char *text)
{
    if (writer->form == TEMPLATE_ARM)
        write_json_text(writer, text);
    else
        write_bicep_text(writer, text);
}

static bool is_identifier(const char *text)
{
    return text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

/* What stands before a value: the comma, the line, the key. key NULL: an item of a list. */
static void write_key(struct writer *writer, const char *key)
{
    if (!writer->first && (writer->form == TEMPLATE_ARM || writer->flat))
        buf_char(writer->out, ',');
    if (writer->flat)
        buf_char(writer->out, ' ');
    else
        write_indent(writer);
    writer->first = false;
    if (key == NULL)
        return;
    if (writer->form == TEMPLATE_BICEP && is_identifier(key))
        buf_text(writer->out, "%s", key);
    else
        write_text(writer, key);
    BUF_LITERAL(writer->out, ": ");
}

static void member_text(struct writer *writer, const char *key, const char *text)
{
    write_key(writer, key);
    write_text(writer, text);
}

/* The same value in either language: "[resourceId(…)]" or an expression of Bicep. */
static void member_expression(struct writer *writer, const char *key, const char *arm, const char *bicep)
{
    write_key(writer, key);
    if (writer->form == TEMPLATE_ARM)
        write_json_text(writer, arm);
    else
        buf_text(writer->out, "%s", bicep);
}

static void member_open(struct writer *writer, const char *key, char brace)
{
    write_key(writer, key);
    buf_char(writer->out, brace);
    writer->depth++;
    writer->first = true;
}

static void member_close(struct writer *writer, char brace)
{
    assert(writer->depth > 0);
    writer->depth--;
    if (writer->flat)
        buf_char(writer->out, ' ');
    else
        write_indent(writer);
    buf_char(writer->out, brace);
    writer->first = false;
}

/* One line a column: there are hundreds. */
static void write_column(struct writer *writer, const struct table_column *column, bool described)
{
    const char *type = column_type_names[column->type];

    member_open(writer, NULL, '{');
    writer->flat = true;
    member_text(writer, "name", column->name);
    /* Tables spell this one type their own way. */
    member_text(writer, "type", described && column->type == COLUMN_DATETIME ? "dateTime" : type);
    if (described)
        member_text(writer, "description", column_describe(column->name));
    member_close(writer, '}');
    writer->flat = false;
}

static void write_columns(struct writer *writer, const struct table *table, bool described)
{
    member_open(writer, "columns", '[');
    for (size_t i = 0; i < table->count; i++)
        write_column(writer, &table->columns[i], described);
    member_close(writer, ']');
}

/* ---- Tables ---------------------------------------------------------------------------------------------------- */

/* TimeGenerated is every table's; where messages have none, the transformation makes it. */
static void write_table_properties(struct writer *writer, const struct rule_stream *stream)
{
    struct table table = stream->table;

    table_add(&table, "TimeGenerated", COLUMN_DATETIME);
    table_sort(&table);
    member_open(writer, "properties", '{');
    member_text(writer, "plan", "Analytics");
    member_open(writer, "schema", '{');
    member_text(writer, "name", rule_stream_table(stream));
    write_columns(writer, &table, true);
    member_close(writer, '}');
    member_close(writer, '}');
}

static bool stream_has_table(const struct rule_stream *stream)
{
    return !stream->open && rule_stream_table(stream) != NULL;
}

/* ---- The rule -------------------------------------------------------------------------------------------------- */

static void write_declarations(struct writer *writer, const struct rule *rule)
{
    member_open(writer, "streamDeclarations", '{');
    for (size_t i = 0; i < rule->count; i++) {
        if (rule->streams[i]->open || rule_stream_is_native(rule->streams[i]))
            continue;
        member_open(writer, rule->streams[i]->name, '{');
        write_columns(writer, &rule->streams[i]->table, false);
        member_close(writer, '}');
    }
    member_close(writer, '}');
}

static void write_destinations(struct writer *writer)
{
    member_open(writer, "destinations", '{');
    member_open(writer, "logAnalytics", '[');
    member_open(writer, NULL, '{');
    member_text(writer, "name", "workspace");
    member_expression(writer, "workspaceResourceId", "[parameters('workspaceResourceId')]", "workspaceResourceId");
    member_close(writer, '}');
    member_close(writer, ']');
    member_close(writer, '}');
}

static void write_list_of_one(struct writer *writer, const char *key, const char *text)
{
    member_open(writer, key, '[');
    member_text(writer, NULL, text);
    member_close(writer, ']');
}

static void write_flows(struct writer *writer, const struct rule *rule)
{
    member_open(writer, "dataFlows", '[');
    for (size_t i = 0; i < rule->count; i++) {
        if (rule->streams[i]->open)
            continue;
        member_open(writer, NULL, '{');
        write_list_of_one(writer, "streams", rule->streams[i]->name);
        write_list_of_one(writer, "destinations", "workspace");
        member_text(writer, "transformKql", rule->streams[i]->table.transform);
        member_text(writer, "outputStream", rule->streams[i]->output);
        member_close(writer, '}');
    }
    member_close(writer, ']');
}

static void write_rule_properties(struct writer *writer, const struct rule *rule)
{
    member_open(writer, "properties", '{');
    write_declarations(writer, rule);
    write_destinations(writer);
    write_flows(writer, rule);
    member_close(writer, '}');
}

/* ---- The ARM template ------------------------------------------------------------------------------------------ */

#define ARM_WORKSPACE "last(split(parameters('workspaceResourceId'), '/'))"
#define ARM_RULE "resourceId('" RULES "', parameters('dcrName'))"
#define ARM_ROLE "subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '" PUBLISHER "')"

static void arm_parameter(struct writer *writer, const char *name, const char *fallback, const char *description)
{
    member_open(writer, name, '{');
    member_text(writer, "type", "string");
    if (fallback != NULL)
        member_text(writer, "defaultValue", fallback);
    member_open(writer, "metadata", '{');
    member_text(writer, "description", description);
    member_close(writer, '}');
    member_close(writer, '}');
}

#define WORKSPACE_HELP "Resource id of the Log Analytics workspace; deploy into its resource group"
#define LOCATION_HELP "Region of the workspace"
#define NAME_HELP "Name of the data collection rule"
#define PRINCIPAL_HELP "Object id of the service principal or managed identity that sends"

static void arm_parameters(struct writer *writer, const char *principal)
{
    member_open(writer, "parameters", '{');
    arm_parameter(writer, "workspaceResourceId", NULL, WORKSPACE_HELP);
    arm_parameter(writer, "location", "[resourceGroup().location]", LOCATION_HELP);
    arm_parameter(writer, "dcrName", "penstock", NAME_HELP);
    if (principal != NULL)
        arm_parameter(writer, "principalId", principal, PRINCIPAL_HELP);
    member_close(writer, '}');
}

static void arm_resource(struct writer *writer, const char *type, const char *version, const char *name)
{
    member_open(writer, NULL, '{');
    member_text(writer, "type", type);
    member_text(writer, "apiVersion", version);
    member_text(writer, "name", name);
}

static void arm_table(struct writer *writer, const struct rule_stream *stream)
{
    char name[RULE_OUTPUT_MAX + 128];

    snprintf(name, sizeof(name), "[format('{0}/%s', " ARM_WORKSPACE ")]", rule_stream_table(stream));
    arm_resource(writer, WORKSPACES "/tables", TABLES_VERSION, name);
    write_table_properties(writer, stream);
    member_close(writer, '}');
}

static void arm_rule(struct writer *writer, const struct rule *rule)
{
    char id[RULE_OUTPUT_MAX + 128];

    arm_resource(writer, RULES, RULES_VERSION, "[parameters('dcrName')]");
    member_text(writer, "location", "[parameters('location')]");
    member_text(writer, "kind", "Direct");
    member_open(writer, "dependsOn", '[');
    for (size_t i = 0; i < rule->count; i++) {
        if (!stream_has_table(rule->streams[i]))
            continue;
        snprintf(id, sizeof(id), "[resourceId('" WORKSPACES "/tables', " ARM_WORKSPACE ", '%s')]",
                 rule_stream_table(rule->streams[i]));
        member_text(writer, NULL, id);
    }
    member_close(writer, ']');
    write_rule_properties(writer, rule);
    member_close(writer, '}');
}

static void arm_role(struct writer *writer)
{
    arm_resource(writer, ROLES, ROLES_VERSION, "[guid(" ARM_RULE ", parameters('principalId'), '" PUBLISHER "')]");
    member_text(writer, "scope", "[" ARM_RULE "]");
    write_list_of_one(writer, "dependsOn", "[" ARM_RULE "]");
    member_open(writer, "properties", '{');
    member_text(writer, "roleDefinitionId", "[" ARM_ROLE "]");
    member_text(writer, "principalId", "[parameters('principalId')]");
    member_text(writer, "principalType", "ServicePrincipal");
    member_close(writer, '}');
    member_close(writer, '}');
}

static void arm_output(struct writer *writer, const char *name, const char *value)
{
    member_open(writer, name, '{');
    member_text(writer, "type", "string");
    member_text(writer, "value", value);
    member_close(writer, '}');
}

static void arm_write(struct writer *writer, const struct rule *rule, const char *principal)
{
    buf_char(writer->out, '{');
    writer->depth = 1;
    writer->first = true;
    member_text(writer, "$schema", "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#");
    member_text(writer, "contentVersion", "1.0.0.0");
    arm_parameters(writer, principal);
    member_open(writer, "resources", '[');
    for (size_t i = 0; i < rule->count; i++)
        if (stream_has_table(rule->streams[i]))
            arm_table(writer, rule->streams[i]);
    arm_rule(writer, rule);
    if (principal != NULL)
        arm_role(writer);
    member_close(writer, ']');
    member_open(writer, "outputs", '{');
    arm_output(writer, "immutableId", "[reference(" ARM_RULE ", '" RULES_VERSION "').immutableId]");
    arm_output(writer, "logsIngestion", "[reference(" ARM_RULE ", '" RULES_VERSION "').endpoints.logsIngestion]");
    arm_output(writer, "dcrResourceId", "[" ARM_RULE "]");
    member_close(writer, '}');
    member_close(writer, '}');
    buf_char(writer->out, '\n');
}

/* ---- Bicep ----------------------------------------------------------------------------------------------------- */

static void bicep_parameter(struct writer *writer, const char *name, const char *fallback, const char *description)
{
    buf_text(writer->out, "@description('%s')\nparam %s string", description, name);
    if (fallback != NULL)
        buf_text(writer->out, " = %s", fallback);
    BUF_LITERAL(writer->out, "\n\n");
}

static void bicep_open(struct writer *writer, const char *symbol, const char *type, const char *version)
{
    buf_text(writer->out, "resource %s '%s@%s' = {", symbol, type, version);
    writer->depth = 1;
    writer->first = true;
}

static void bicep_close(struct writer *writer)
{
    member_close(writer, '}');
    BUF_LITERAL(writer->out, "\n\n");
}

static void bicep_table(struct writer *writer, const struct rule_stream *stream)
{
    char symbol[RULE_OUTPUT_MAX + 8];

    snprintf(symbol, sizeof(symbol), "table_%s", rule_stream_table(stream));
    bicep_open(writer, symbol, WORKSPACES "/tables", TABLES_VERSION);
    member_expression(writer, "parent", "", "workspace");
    member_text(writer, "name", rule_stream_table(stream));
    write_table_properties(writer, stream);
    bicep_close(writer);
}

static void bicep_rule(struct writer *writer, const struct rule *rule)
{
    bicep_open(writer, "rule", RULES, RULES_VERSION);
    member_expression(writer, "name", "", "dcrName");
    member_expression(writer, "location", "", "location");
    member_text(writer, "kind", "Direct");
    member_open(writer, "dependsOn", '[');
    for (size_t i = 0; i < rule->count; i++) {
        if (!stream_has_table(rule->streams[i]))
            continue;
        write_key(writer, NULL);
        buf_text(writer->out, "table_%s", rule_stream_table(rule->streams[i]));
    }
    member_close(writer, ']');
    write_rule_properties(writer, rule);
    bicep_close(writer);
}

static void bicep_role(struct writer *writer)
{
    bicep_open(writer, "publisher", ROLES, ROLES_VERSION);
    member_expression(writer, "name", "", "guid(rule.id, principalId, '" PUBLISHER "')");
    member_expression(writer, "scope", "", "rule");
    member_open(writer, "properties", '{');
    member_expression(writer, "roleDefinitionId", "",
                      "subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '" PUBLISHER "')");
    member_expression(writer, "principalId", "", "principalId");
    member_text(writer, "principalType", "ServicePrincipal");
    member_close(writer, '}');
    bicep_close(writer);
}

static void bicep_write(struct writer *writer, const struct rule *rule, const char *principal)
{
    char quoted[64];

    bicep_parameter(writer, "workspaceResourceId", NULL, WORKSPACE_HELP);
    bicep_parameter(writer, "location", "resourceGroup().location", LOCATION_HELP);
    bicep_parameter(writer, "dcrName", "'penstock'", NAME_HELP);
    if (principal != NULL) {
        snprintf(quoted, sizeof(quoted), "'%s'", principal);
        bicep_parameter(writer, "principalId", quoted, PRINCIPAL_HELP);
    }
    buf_text(writer->out, "resource workspace '%s@%s' existing = {\n  name: last(split(workspaceResourceId, '/'))\n}\n\n",
             WORKSPACES, TABLES_VERSION);
    for (size_t i = 0; i < rule->count; i++)
        if (stream_has_table(rule->streams[i]))
            bicep_table(writer, rule->streams[i]);
    bicep_rule(writer, rule);
    if (principal != NULL)
        bicep_role(writer);
    BUF_LITERAL(writer->out, "output immutableId string = rule.properties.immutableId\n"
                             "output logsIngestion string = rule.properties.endpoints.logsIngestion\n"
                             "output dcrResourceId string = rule.id\n");
}

void template_write(struct buf *out, enum template_form form, const struct rule *rule, const char *principal)
{
    struct writer writer = { .out = out, .form = form };

    if (form == TEMPLATE_ARM)
        arm_write(&writer, rule, principal);
    else
        bicep_write(&writer, rule, principal);
}
