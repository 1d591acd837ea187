/*
 * plugin.c - which parsers a plan has: the built-in ones, and users' own from a folder of shared objects.
 *
 * A shared object runs with all our rights, so neither it nor its folder may be writable by everybody. Its pen_parser is
 * copied as far as both sides know it: members that it was compiled without are zero, and members that we don't know
 * must be, since ignoring them could mean something else than its author had in mind.
 */
#include "daemon/record/work.h"
#include "parsers/builtin.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <uv.h>

#define PARSERS_MAX 64
#define PARSER_NAME_MAX 32
#define PARSER_SIZE_MAX 4096         /* of struct pen_parser in any version to come */

const struct pen_parser *const builtin_parsers[] = {
    &activity_log_parser, &nsg_flow_parser, &vnet_flow_parser, &defender_alert_parser, &unknown_parser, NULL,
};

struct plugin {
    void *handle;
    struct pen_parser parser;        /* our copy */
};

/* ---- One shared object ------------------------------------------------------------------------------------------ */

static bool name_is_valid(const char *name)
{
    size_t size = strnlen(name, PARSER_NAME_MAX + 1);

    return size > 0 && size <= PARSER_NAME_MAX && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == size &&
           strcmp(name, "auto") != 0;
}

/* What is wrong with the parser that the object handed over, or NULL. Copies it to *copy. */
static const char *plugin_copy(const struct pen_parser *theirs, struct pen_parser *copy)
{
    const char *bytes = (const char *)theirs;

    if (theirs == NULL)
        return "its pen_parser_v1() returns nothing";
    if (theirs->size < offsetof(struct pen_parser, parse) + sizeof(theirs->parse) || theirs->size > PARSER_SIZE_MAX)
        return "it says an impossible size of its struct pen_parser";
    for (size_t i = sizeof(*copy); i < theirs->size; i++)
        if (bytes[i] != 0)
            return "it was built for a newer Penstock, and uses what this one does not have";
    memset(copy, 0, sizeof(*copy));
    memcpy(copy, theirs, theirs->size < sizeof(*copy) ? theirs->size : sizeof(*copy));
    if (copy->name == NULL || !name_is_valid(copy->name))
        return "its parser has no proper name: lower case letters, digits and dashes, 32 at most";
    if (copy->claims == NULL || copy->parse == NULL)
        return "its parser lacks claims() or parse()";
    if (copy->options != NULL && copy->options[0].name != NULL)
        return "its parser wants settings, and parsers are given none";
    return NULL;
}

static void plugin_close(struct plugin *plugin)
{
    if (plugin == NULL)
        return;
    if (plugin->handle != NULL)
        dlclose(plugin->handle);
    free(plugin);
}

static int plugin_check_rights(const char *path, mode_t type, struct pen_error *err)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return pen_error_set(err, uv_translate_sys_error(errno), "cannot use %s for parsers: %s", path, strerror(errno));
    if ((st.st_mode & S_IFMT) != type)
        return pen_error_set(err, UV_EINVAL, "cannot use %s for parsers: it is no %s", path,
                             type == S_IFDIR ? "folder" : "regular file");
    if (st.st_mode & S_IWOTH)
        return pen_error_set(err, UV_EPERM, "cannot use %s for parsers: everybody may write to it", path);
    return 0;
}

static int plugin_open(struct plugin **ret, const char *path, struct pen_error *err)
{
    struct plugin *plugin = calloc(1, sizeof(*plugin));
    const struct pen_parser *(*parser_v1)(void);
    const char *wrong;
    int r = plugin_check_rights(path, S_IFREG, err);

    if (plugin == NULL)
        abort();
    if (r < 0)
        goto fail;
    r = UV_EINVAL;
    plugin->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (plugin->handle == NULL) {
        pen_error_set(err, r, "cannot load the parser %s: %s", path, dlerror());
        goto fail;
    }
    /* ISO C has no cast from an object's address to a function's; POSIX has this one. */
    *(void **)&parser_v1 = dlsym(plugin->handle, "pen_parser_v1");
    if (parser_v1 == NULL) {
        pen_error_set(err, r, "cannot use the parser %s: it has no pen_parser_v1()", path);
        goto fail;
    }
    wrong = plugin_copy(parser_v1(), &plugin->parser);
    if (wrong != NULL) {
        pen_error_set(err, r, "cannot use the parser %s: %s", path, wrong);
        goto fail;
    }
    *ret = plugin;
    return 0;
fail:
    plugin_close(plugin);
    return r;
}

/* ---- The plan --------------------------------------------------------------------------------------------------- */

static int plan_add(struct work_plan *plan, const struct pen_parser *parser, struct plugin *plugin, struct pen_error *err)
{
    struct work_parser *parsers = (struct work_parser *)plan->parsers;
    void *self = NULL;
    int r;

    if (plan->parser_count == PARSERS_MAX)
        return pen_error_set(err, UV_EINVAL, "there are more than %d parsers", PARSERS_MAX);
    if (parser->open != NULL) {
        r = parser->open(&self, NULL, err);
        if (r < 0)
            return r;
    }
    parsers[plan->parser_count++] = (struct work_parser){ .parser = parser, .self = self, .plugin = plugin };
    return 0;
}

static bool name_is_taken(const struct work_plan *plan, const char *name)
{
    for (size_t i = 0; i < plan->parser_count; i++)
        if (strcmp(plan->parsers[i].parser->name, name) == 0)
            return true;
    for (size_t i = 0; builtin_parsers[i] != NULL; i++)
        if (strcmp(builtin_parsers[i]->name, name) == 0)
            return true;
    return false;
}

static int plan_add_plugin(struct work_plan *plan, const char *path, struct pen_error *err)
{
    struct plugin *plugin;
    int r = plugin_open(&plugin, path, err);

    if (r < 0)
        return r;
    if (name_is_taken(plan, plugin->parser.name))
        r = pen_error_set(err, UV_EEXIST, "cannot use the parser %s: another one is called \"%s\" already", path,
                          plugin->parser.name);
    else
        r = plan_add(plan, &plugin->parser, plugin, err);
    if (r < 0)
        plugin_close(plugin);
    return r;
}

static int is_shared_object(const struct dirent *entry)
{
    size_t size = strlen(entry->d_name);

    return entry->d_name[0] != '.' && size > 3 && strcmp(entry->d_name + size - 3, ".so") == 0;
}

static int by_name(const struct dirent **left, const struct dirent **right)
{
    return strcmp((*left)->d_name, (*right)->d_name);      /* in every locale */
}

static int plan_add_plugins(struct work_plan *plan, const char *dir, struct pen_error *err)
{
    struct dirent **entries;
    int count, r = plugin_check_rights(dir, S_IFDIR, err);

    if (r < 0)
        return r;
    count = scandir(dir, &entries, is_shared_object, by_name);
    if (count < 0)
        return pen_error_set(err, uv_translate_sys_error(errno), "cannot read %s: %s", dir, strerror(errno));
    for (int i = 0; i < count; i++) {
        char *path = NULL;

        if (r == 0 && asprintf(&path, "%s/%s", dir, entries[i]->d_name) < 0)
            abort();
        if (r == 0)
            r = plan_add_plugin(plan, path, err);
        free(path);
        free(entries[i]);
    }
    free(entries);
    return r;
}

static void parser_close(const struct work_parser *parser)
{
    if (parser->parser->close != NULL)
        parser->parser->close(parser->self);
    plugin_close(parser->plugin);
}

static int plan_keep_refuse(const struct work_plan *plan, struct pen_error *err)
{
    char names[384] = "";

    for (size_t i = 0, at = 0; i < plan->parser_count && at < sizeof(names); i++)
        at += (size_t)snprintf(names + at, sizeof(names) - at, ", %s", plan->parsers[i].parser->name);
    return pen_error_set(err, UV_ENOENT, "there is no such parser: expected one of auto%s", names);
}

/* Of all parsers only the named one stays, and `unknown` behind it. */
static int plan_keep(struct work_plan *plan, const char *name, struct pen_error *err)
{
    struct work_parser *parsers = (struct work_parser *)plan->parsers;
    size_t count = plan->parser_count, i = 0;

    while (i < count && strcmp(parsers[i].parser->name, name) != 0)
        i++;
    if (i == count)
        return plan_keep_refuse(plan, err);
    plan->parser_count = 0;
    for (i = 0; i < count; i++) {
        if (i == count - 1 || strcmp(parsers[i].parser->name, name) == 0)
            parsers[plan->parser_count++] = parsers[i];
        else
            parser_close(&parsers[i]);
    }
    return 0;
}

int work_plan_open(struct work_plan *plan, const char *parser, const char *plugin_dir, struct pen_error *err)
{
    int r = 0;

    plan->parser_count = 0;
    plan->parsers = calloc(PARSERS_MAX, sizeof(*plan->parsers));
    if (plan->parsers == NULL)
        abort();
    if (plugin_dir != NULL)
        r = plan_add_plugins(plan, plugin_dir, err);
    for (size_t i = 0; r == 0 && builtin_parsers[i] != NULL; i++)
        r = plan_add(plan, builtin_parsers[i], NULL, err);
    if (r == 0 && strcmp(parser, "auto") != 0)
        r = plan_keep(plan, parser, err);
    if (r < 0)
        work_plan_close(plan);
    return r;
}

void work_plan_close(struct work_plan *plan)
{
    for (size_t i = 0; i < plan->parser_count; i++)
        parser_close(&plan->parsers[i]);
    free((struct work_parser *)plan->parsers);
    plan->parsers = NULL;
    plan->parser_count = 0;
}
