/*
 * pipeline_inside.h - the pipeline from the inside: its hosts, jobs and budget, for the five files it is made of.
 *
 * pipeline.c has the whole picture: chunks, jobs, commits, the two marks. pipeline_source.c is what a source may ask;
 * pipeline_life.c opens, saves, stops and closes; pipeline_change.c changes the configuration
 * under way; pipeline_see.c tells what there is to see. All of it is the loop's; on
 * the pool, a job has its worker and its chunk to itself.
 */
#ifndef DAEMON_PIPELINE_INSIDE_H
#define DAEMON_PIPELINE_INSIDE_H

#include "daemon/disk/io.h"
#include "daemon/pipeline/pipeline.h"
#include "daemon/pipeline/stream.h"
#include "daemon/record/work.h"

#define PIPELINE_WORKERS_MAX 64
#define PIPELINE_TICKS_PER_MS 10000  /* a tick is 100 ns */

struct source_host {
    struct pipeline *pipeline;
    const struct source_settings *settings;
    struct settings *opened;                       /* the configuration that it was opened with: its texts are lent by that */
    struct settings_print print;                   /* and its files, as they were then */
    uint32_t index;                                /* among the settings' sources, for the sinks' masks; a reload may change it … */
    uint32_t row;                                  /* … but never the row in every sink's ledger */
    void *self;
    size_t reserved, kept;                         /* of the budget */
    struct work_plan plan;
    struct stream_list streams;
    uint64_t troubles;
    bool ailing;                                   /* it, or some of it, cannot be read */
    uint64_t bytes;                                /* of chunks done with */
    struct work_counts counts;
    int64_t newest_ticks;                          /* newest event time accepted; 0: none yet */
    uint64_t faults_unsaid, fault_said_ms;
    bool drained, stopped;
    bool goes;                                     /* the change under way takes it away, … */
    bool leaving;                                  /* … and has begun to: it is given nothing more, nor asked for anything */
};

struct sink_host {
    struct outlet *outlet;
    struct settings *opened;                       /* as a source's */
    struct settings_print print;
    struct spool_place saved;
    bool goes;
};

struct change;                                     /* of the configuration, under way: pipeline_change.c */

struct job {
    uv_work_t work;
    struct worker *worker;
    size_t worker_bytes;                           /* as counted in the budget */
    struct stream *stream;                         /* NULL: free */
    struct work run;
    uint32_t message;                              /* of the chunk, where it has messages: the one that `run` is at */
    uint64_t since_ms;
};

struct pipeline {
    struct pipeline_conf conf;
    struct settings *settings;                     /* held */
    int lock_fd;
    uint64_t started_ms;                           /* since 1970 */
    struct http *http;
    struct cursors *cursors;
    struct keys *keys;               /* NULL: nothing is encrypted */
    struct keys **keys_before;       /* of earlier configurations: a job on the pool may still read with them */
    size_t keys_before_count;
    uint64_t life;                   /* names this process in the spools' frames */
    struct reserve *reserve;
    struct budget budget;
    size_t baseline, chunk_bytes;
    size_t kept;                                   /* of the baseline: what sources know of their streams */
    size_t window_bytes;                           /* batches that the sinks may hold in flight, all windows full */
    bool flow_open, big_waits;
    struct stream *big_stream;                     /* has the budget to itself, between its passes too */
    size_t big_bytes;                              /* counted for its tree */
    struct sink_host sinks[SETTINGS_SINKS_MAX];
    uint32_t sink_count, sinks_stopped;
    struct source_host *hosts[SETTINGS_SOURCES_MAX];
    uint32_t host_count, hosts_stopped, hosts_settled;
    /* Rows of the sinks' ledgers. A source keeps its row for as long as any message of it may lie somewhere, though the
     * configuration no longer has it; comes its name again, so does its row. */
    struct row {
        char *source;
        bool live;
        struct { uint64_t troubles, bytes; struct work_counts counts; int64_t newest_ticks; } past;   /* of its last host */
    } rows[SETTINGS_SOURCES_MAX];
    uint32_t row_count;
    struct job jobs[PIPELINE_WORKERS_MAX];
    uint32_t job_count, jobs_running;
    struct streams queue;
    uint32_t chunks_out;
    uv_timer_t save_timer;
    struct saver saver;
    struct change *change;           /* NULL: none is under way */
    bool quiet;                      /* for it: no job starts, but of the big stream */
    bool stop_after;                 /* it */
    enum { PIPELINE_IDLE, PIPELINE_RUNNING, PIPELINE_STOPPING_SOURCES, PIPELINE_STOPPING_OUTLETS, PIPELINE_SAVING,
           PIPELINE_SETTLING, PIPELINE_STOPPED } state;
};

static inline uint64_t pipeline_now_ms(const struct pipeline *pipeline)       /* the loop's clock */
{
    return uv_now(pipeline->conf.loop);
}

static inline uint64_t pipeline_wall_ms(void)     /* since 1970 */
{
    return (uint64_t)io_now_ticks() / PIPELINE_TICKS_PER_MS;
}

/* The source's messages go to the sink. */
static inline bool host_goes_to(const struct source_host *host, const struct outlet *outlet)
{
    return outlet_settings(outlet)->source_mask[host->index / 64] >> (host->index % 64) & 1;
}

/* pipeline.c */
void pipeline_recall(struct pipeline *pipeline);  /* gives back the chunks of sources that are leaving */
void pipeline_work(struct pipeline *pipeline);    /* starts the jobs that may start; stopping, gives chunks back */
void pipeline_flow(struct pipeline *pipeline);    /* opens or closes the flow by the two marks … */
void pipeline_set_marks(struct pipeline *pipeline);    /* … which depend on pipeline->kept */

/* pipeline_life.c */
int host_open(struct source_host **ret, struct pipeline *pipeline, struct settings *settings, uint32_t index,
              struct pen_error *err);
void host_take(struct source_host *host, const struct settings *settings, uint32_t index);     /* other settings, source the same */
void host_plan(struct source_host *host);         /* what is made of its records, by the sinks there are */
void host_close(struct source_host *host);        /* stopped and settled, or never started; copes with NULL */
void pipeline_mark_rows(struct pipeline *pipeline);        /* those of its sources are theirs, whoever else had them and went */
int sink_open(struct sink_host *ret, struct pipeline *pipeline, struct settings *settings, uint32_t index, struct pen_error *err);
void sink_close(struct sink_host *sink);          /* stopped */
size_t sink_memory_max(const struct settings *settings);   /* for the libraries of one */
/* "memory" has room for these; err says how much it takes. */
int pipeline_check_memory(size_t memory, struct source_host *const *hosts, uint32_t host_count, const struct sink_host *sinks,
                          uint32_t sink_count, struct pen_error *err);
void pipeline_count_memory(struct pipeline *pipeline);     /* what sources and sinks have for good */
void pipeline_say_orphans(struct pipeline *pipeline);

/* pipeline_change.c */
void change_kick(struct pipeline *pipeline);      /* something moved: looks on a later turn whether the next step may begin */
void change_give_up(struct pipeline *pipeline);   /* as far as it can be */

void pipeline_once_done(struct pipeline *pipeline);    /* replay: stops when all is read and all of that is at its end */
void pipeline_stop_on(struct pipeline *pipeline); /* the next step of stopping, if the one before is done */

#endif
