/*
 * Promise: the power may go at any call that reaches the disk, and the disk may then hold any part of what was not synced:
 * nothing that was safe is lost, no cursor goes back, no message is changed, and order holds. Then the same again while the
 * next start recovers, and over several lives.
 *
 *   power [IMAGES]      about so many images (the default is a sample)
 */
#include "crash/bench.h"
#include "crash/disk_io.h"
#include "crash/oracle.h"
#include "crash/script.h"
#include "daemon/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned long cuts, images, violations;
static const char *const words[CUTS] = { "nothing", "all", "prefix", "torn", "any", "kill" };

/* ---- One cut ---- */

struct place {                       /* of a cut, for people */
    const char *workload, *variant;
    unsigned seed;
    size_t step;
    enum disk_cut how;
};

/* What is left after the cut is opened and judged; once more after a cut in that opening, as long as `deeper`. */
static void judge(struct disk *disk, size_t step, enum disk_cut how, unsigned seed, const struct variant *variant,
                  const struct facts *before, bool ordered, unsigned deeper, const char *place)
{
    const char *dir = bench_folder(false);
    struct disk *cut = disk_cut(disk, step, how, seed, dir);
    struct facts *facts = malloc(sizeof(*facts));
    char where[256];

    assert(facts != NULL);
    *facts = *before;
    facts_add(facts, disk, disk_first_step(disk), step);
    facts_cut(facts);
    snprintf(where, sizeof(where), "%s, step %zu %s %u", place, step, words[how], seed);
    images++;
    disk_use(cut);
    violations += oracle(dir, variant, facts, ordered, where);
    if (deeper > 0 && disk_end_step(cut) > disk_first_step(cut)) {
        size_t steps = disk_end_step(cut) - disk_first_step(cut);

        judge(cut, disk_first_step(cut) + (size_t)rand_r(&seed) % (steps + 1), (enum disk_cut)((unsigned)rand_r(&seed) % CUTS),
              seed, variant, facts, ordered, deeper - 1, where);
    }
    free(facts);
    disk_free(cut);
}

/* ---- A short workload, cut at every step in every way ---- */

static void every_step(const struct variant *variant, unsigned seed, uint32_t records)
{
    const char *dir = bench_folder(true);
    struct disk *disk = disk_new(dir);
    struct facts *none = calloc(1, sizeof(*none));
    char place[128];

    assert(none != NULL);
    snprintf(place, sizeof(place), "script %s %u", variant->name, seed);
    disk_use(disk);
    assert(script_live(dir, variant, seed, 3 * records, records, true));
    for (size_t step = 0; step <= disk_end_step(disk); step++) {
        cuts++;
        for (unsigned how = 0; how < CUTS; how++)
            judge(disk, step, (enum disk_cut)how, seed + (unsigned)step, variant, none, false, 1, place);
        bench_drop();
    }
    free(none);
    disk_free(disk);
}

/* ---- Lives, each on what the last one's end has left ---- */

static void many_lives(const struct variant *variant, unsigned seed, uint32_t records)
{
    struct facts *facts = calloc(1, sizeof(*facts));
    const char *dir = bench_folder(true);
    struct disk *disk = disk_new(dir), *next;
    unsigned lives;
    char place[128];

    assert(facts != NULL);
    snprintf(place, sizeof(place), "lives %s %u", variant->name, seed);
    lives = 3 + (unsigned)rand_r(&seed) % 6;
    for (unsigned life = 0; life < lives; life++) {
        enum disk_cut how = (enum disk_cut)((unsigned)rand_r(&seed) % CUTS);
        size_t first = disk_first_step(disk), step;

        disk_use(disk);
        assert(script_live(dir, variant, seed + life, 20 + (unsigned)rand_r(&seed) % 100, records, false));
        step = first + (size_t)rand_r(&seed) % (disk_end_step(disk) - first + 1);
        judge(disk, step, how, seed, variant, facts, false, 0, place);
        cuts++;
        facts_add(facts, disk, first, step);
        facts_cut(facts);
        dir = bench_folder(false);
        next = disk_cut(disk, step, how, seed, dir);
        disk_free(disk);
        disk = next;
    }
    disk_use(disk);
    assert(script_live(dir, variant, seed, 0, records, true));
    facts_add(facts, disk, disk_first_step(disk), disk_end_step(disk));
    violations += oracle_end(dir, facts, records, place);
    free(facts);
    disk_free(disk);
    bench_drop();
}

int main(int argc, char **argv)
{
    unsigned long wanted = argc > 1 ? strtoul(argv[1], NULL, 10) : 6000;
    char json[256];

    log_set_level((enum log_level)0);              /* damage is what we make here: no news */
    io = &disk_io;
    for (size_t i = 0; i < variant_count; i++)
        every_step(&variants[i], (unsigned)i, 12);
    for (unsigned seed = 1; images < wanted; seed++) {
        const struct variant *variant = &variants[seed % variant_count];

        many_lives(variant, seed, 100 + seed % 100);
        if (argc > 1 && seed % 100 == 0)
            every_step(variant, seed, 20);
    }
    snprintf(json, sizeof(json), "{\"cuts\": %lu, \"images\": %lu, \"violations\": %lu}", cuts, images, violations);
    bench_report("power", json);
    return violations == 0 ? 0 : 1;
}
