/*
 * Promise: whatever call to the disk fails, and however (no space, an error, an interruption, half of it done), once or for a
 * while: nothing that was safe is lost, not even if the power goes then, and when the disk is well again everything arrives.
 * For each fault, call by call, until a run of the same workload meets no fault any more.
 *
 *   nth [RECORDS [STRIDE]]      the length of the workload, and every which call (the default is a sample)
 */
#include "crash/bench.h"
#include "crash/disk_io.h"
#include "crash/fault_io.h"
#include "crash/loop.h"
#include "crash/oracle.h"
#include "crash/script.h"
#include "daemon/base/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define LIVES_MAX 200

static unsigned long calls, faults, violations;

static const struct workload {
    const char *name;
    bool (*live)(const char *dir, const struct variant *variant, unsigned seed, unsigned actions, uint32_t count, bool drain);
    unsigned pace;                   /* actions for one record, or so */
    bool ordered;
} script = { "script", script_live, 2, false }, loop = { "loop", loop_live, 20, true };

/* As a service manager has it: a life that does not get on is followed by the next one. */
static bool lives(const struct workload *workload, const char *dir, const struct variant *variant, unsigned seed, uint32_t records)
{
    for (unsigned life = 0; life < LIVES_MAX; life++)
        if (workload->live(dir, variant, seed + life, life == 0 ? workload->pace * records : 0, records, true))
            return true;
    return false;
}

static void judge_cut(const struct workload *workload, struct disk *disk, enum disk_cut how, unsigned seed,
                      const struct variant *variant, const struct facts *facts, const char *where)
{
    const char *dir = bench_folder(false);
    struct disk *cut = disk_cut(disk, disk_end_step(disk), how, seed, dir);

    disk_use(cut);
    violations += oracle(dir, variant, facts, workload->ordered, where);
    disk_free(cut);
}

/* One run with the fault at the nth call; false: there was no such call. */
static bool run(const struct workload *workload, const struct variant *variant, enum fault fault, unsigned long nth,
                unsigned long lasts, uint32_t records)
{
    const char *dir = bench_folder(true);
    struct disk *disk = disk_new(dir);
    struct facts *facts = calloc(1, sizeof(*facts));
    bool met, arrived;
    char where[128];

    assert(facts != NULL);
    snprintf(where, sizeof(where), "%s %s, %s at call %lu for %lu", workload->name, variant->name, fault_words[fault], nth, lasts);
    disk_use(disk);
    fault_set(fault, nth, lasts);
    /* In the midst of it: the first life alone, then the power goes. */
    workload->live(dir, variant, 1, workload->pace * records, records, false);
    met = fault_hits() > 0;
    calls += fault_calls();
    faults += fault_hits();
    fault_set(fault, 0, 0);
    facts_add(facts, disk, 0, disk_end_step(disk));
    facts_cut(facts);
    judge_cut(workload, disk, CUT_NOTHING, 1, variant, facts, where);
    judge_cut(workload, disk, CUT_ANY, (unsigned)nth, variant, facts, where);
    disk_use(disk);
    fault_set(fault, met ? nth : 0, lasts);        /* the same once more, for lives that follow a start that failed */
    arrived = lives(workload, dir, variant, 1, records);
    fault_set(fault, 0, 0);
    if (!arrived) {
        fprintf(stderr, "violated: it did not get on (%s)\n", where);
        violations++;
    }
    facts_add(facts, disk, 0, disk_end_step(disk));
    violations += oracle_end(dir, facts, records, where);
    free(facts);
    disk_free(disk);
    bench_drop();
    return met;
}

static const unsigned long lasting[] = { 1, 4, 40 };

static void every_call(const struct workload *workload, uint32_t records, unsigned long stride, size_t lastings)
{
    for (size_t v = 0; v < variant_count; v++)
        for (unsigned fault = 0; fault < FAULTS; fault++)
            for (size_t l = 0; l < lastings; l++)
                for (unsigned long nth = 1 + l; run(workload, &variants[v], (enum fault)fault, nth, lasting[l], records);
                     nth += stride)
                    ;
}

int main(int argc, char **argv)
{
    uint32_t records = argc > 1 ? (uint32_t)atoi(argv[1]) : 12;
    unsigned long stride = argc > 2 ? strtoul(argv[2], NULL, 10) : 11 * BENCH_SAMPLE;
    char json[128];

    assert(records > 0 && records <= RECORDS_MAX && stride > 0);
    log_set_level((enum log_level)0);
    io = &fault_io;
    every_call(&script, records, stride, 3);
    every_call(&loop, records, 5 * stride, 2);     /* here somebody waits after every fault */
    snprintf(json, sizeof(json), "{\"calls\": %lu, \"faults\": %lu, \"violations\": %lu}", calls, faults, violations);
    bench_report("nth", json);
    return violations == 0 ? 0 : 1;
}
