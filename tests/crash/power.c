/*
 * Promise: the power may go at any call that reaches the disk, and the disk may then hold any part of what was not synced:
 * nothing that was safe is lost, no cursor goes back, no message is changed, and order holds. Then the same again while the
 * next start recovers, and over several lives.
 *
 *   power [IMAGES]      about so many images (the default is a sample)
 */
#include "crash/bench.h"
#include "crash/disk_io.h"
#include "crash/loop.h"
#include "crash/oracle.h"
#include "crash/script.h"
#include "daemon/base/log.h"
#include "daemon/disk/cursor.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned long cuts, images, violations;
static const char *const words[CUTS] = { "nothing", "all", "prefix", "torn", "any", "kill" };

/* ---- One cut ---- */

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

static const struct workload {
    const char *name;
    bool (*live)(const char *dir, const struct variant *variant, unsigned seed, unsigned actions, uint32_t count, bool drain);
    bool ordered;
    unsigned pace;                   /* actions for one change, or so */
} script = { "script", script_live, false, 1 }, loop = { "loop", loop_live, true, 8 };

static void every_step(const struct workload *workload, const struct variant *variant, unsigned seed, uint32_t records)
{
    const char *dir = bench_folder(true);
    struct disk *disk = disk_new(dir);
    struct facts *none = calloc(1, sizeof(*none));
    char place[128];

    assert(none != NULL);
    snprintf(place, sizeof(place), "%s %s %u", workload->name, variant->name, seed);
    disk_use(disk);
    assert(workload->live(dir, variant, seed, 3 * records * workload->pace, records, true));
    for (size_t step = 0; step <= disk_end_step(disk); step += BENCH_SAMPLE) {
        cuts++;
        for (unsigned how = 0; how < CUTS; how++)
            judge(disk, step, (enum disk_cut)how, seed + (unsigned)step, variant, none, workload->ordered, 1, place);
        bench_drop();
    }
    free(none);
    disk_free(disk);
}

/* ---- Lives, each on what the last one's end has left ---- */

static void many_lives(const struct workload *workload, const struct variant *variant, unsigned seed, uint32_t records)
{
    struct facts *facts = calloc(1, sizeof(*facts));
    const char *dir = bench_folder(true);
    struct disk *disk = disk_new(dir), *next;
    unsigned lives;
    char place[128];

    assert(facts != NULL);
    snprintf(place, sizeof(place), "lives of %s %s %u", workload->name, variant->name, seed);
    lives = 3 + (unsigned)rand_r(&seed) % 6;
    for (unsigned life = 0; life < lives; life++) {
        enum disk_cut how = (enum disk_cut)((unsigned)rand_r(&seed) % CUTS);
        size_t first = disk_first_step(disk), step;

        disk_use(disk);
        assert(workload->live(dir, variant, seed + life, (20 + (unsigned)rand_r(&seed) % 100) * workload->pace, records, false));
        step = first + (size_t)rand_r(&seed) % (disk_end_step(disk) - first + 1);
        judge(disk, step, how, seed, variant, facts, workload->ordered, 0, place);
        cuts++;
        facts_add(facts, disk, first, step);
        facts_cut(facts);
        dir = bench_folder(false);
        next = disk_cut(disk, step, how, seed, dir);
        disk_free(disk);
        disk = next;
    }
    disk_use(disk);
    assert(workload->live(dir, variant, seed, 0, records, true));
    facts_add(facts, disk, disk_first_step(disk), disk_end_step(disk));
    violations += oracle_end(dir, facts, records, place);
    free(facts);
    disk_free(disk);
    bench_drop();
}

/* ---- Saves until SQLite moves its log into the database and begins it anew, cut at every step around that ---- */

static void compaction(void)
{
    const char *dir = bench_folder(true);
    struct disk *disk = disk_new(dir);
    struct facts *none = calloc(1, sizeof(*none));
    struct cursor_change change = { 0 };
    struct cursors *cursors;
    struct pen_error err = { 0 };
    size_t last = 0, longest = 0, begin = 0;
    char path[256];

    assert(none != NULL);
    disk_use(disk);
    snprintf(path, sizeof(path), "%s/state.db", dir);
    assert(cursors_open(&cursors, path, &err) == 0);
    for (uint64_t i = 0; i < 900; i++) {
        struct cursor cursor = { .key = "stream", .attrs = "", .position = i };

        disk_note(NOTE_DELIVERED, i, 0);
        cursor_change_row(&change, SOURCE, &cursor, false);
        cursor_change_place(&change, SINK, (struct spool_place){ 1 + i, 0 });
        assert(cursors_save(cursors, &change, &err) == 0);
        cursor_change_clear(&change);
        disk_note(NOTE_SAVED, i, 0);
        /* The save that took the most calls is the one. */
        if (i > 10 && disk_end_step(disk) - last > longest) {
            longest = disk_end_step(disk) - last;
            begin = last;
        }
        last = disk_end_step(disk);
    }
    cursors_close(cursors);
    for (size_t step = begin - 5; step < begin + longest + 40; step += BENCH_SAMPLE) {
        cuts++;
        for (unsigned how = 0; how < CUTS; how++)
            judge(disk, step, (enum disk_cut)how, (unsigned)step, &variants[0], none, false, 0, "compaction");
        bench_drop();
    }
    free(none);
    disk_free(disk);
}

int main(int argc, char **argv)
{
    unsigned long wanted = argc > 1 ? strtoul(argv[1], NULL, 10) : 7000 / BENCH_SAMPLE;
    char json[256];

    log_set_level((enum log_level)0);              /* damage is what we make here: no news */
    io = &disk_io;
    for (size_t i = 0; i < variant_count; i++)
        every_step(&script, &variants[i], (unsigned)i, 12);
    compaction();
    for (unsigned seed = 1; images < wanted; seed++) {
        const struct variant *variant = &variants[seed % variant_count];

        many_lives(seed % 2 == 0 ? &script : &loop, variant, seed, 100 + seed % 100);
        if (seed % 100 == 0)
            every_step(seed % 200 == 0 ? &script : &loop, variant, seed, 20);
    }
    snprintf(json, sizeof(json), "{\"cuts\": %lu, \"images\": %lu, \"violations\": %lu}", cuts, images, violations);
    bench_report("power", json);
    return violations == 0 ? 0 : 1;
}
