/* unfinished.c - stands in for parts that have not landed; weak, so that each of them wins. Goes with the last of them. */
#include "daemon/commands.h"
#include "daemon/settings.h"
#include "daemon/work.h"

#define WEAK __attribute__((weak))

WEAK const struct pen_parser *const builtin_parsers[] = { NULL };
static const char *const unfinished_schemas[] = { "raw", NULL };
WEAK const struct pen_sink sentinel_sink = { .name = "sentinel", .schemas = unfinished_schemas };
WEAK const struct pen_sink kafka_sink = { .name = "kafka", .schemas = unfinished_schemas };

WEAK int work_plan_open(struct work_plan *plan, const char *parser, const char *plugin_dir, struct pen_error *err)
{
    (void)plan;
    (void)parser;
    (void)plugin_dir;
    (void)err;
    return 0;
}

WEAK void work_plan_close(struct work_plan *plan)
{
    (void)plan;
}

WEAK int command_run(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return 1;
}

WEAK int command_parse(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return 1;
}

WEAK int command_replay(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return 1;
}

WEAK void work_run(struct worker *worker, struct work *work)
{
    (void)worker;
    (void)work;
}

WEAK size_t worker_held(const struct worker *worker)
{
    (void)worker;
    return 0;
}

WEAK struct worker *worker_new(void)
{
    return NULL;
}

WEAK void worker_free(struct worker *worker)
{
    (void)worker;
}

WEAK void worker_shrink(struct worker *worker)
{
    (void)worker;
}
