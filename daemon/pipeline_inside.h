/*
 * pipeline_inside.h - the pipeline from the inside: its hosts, jobs and budget, for the four files it is made of.
 *
 * pipeline.c has the whole picture: chunks, jobs, commits, the two marks. pipeline_source.c is what a source may ask;
 * pipeline_life.c opens, saves, stops and closes; pipeline_see.c tells what there is to see. All of it is the loop's; on
 * the pool, a job has its worker and its chunk to itself.
 */
#ifndef DAEMON_PIPELINE_INSIDE_H
#define DAEMON_PIPELINE_INSIDE_H

#include "daemon/io.h"
#include "daemon/pipeline.h"
#include "daemon/stream.h"
#include "daemon/work.h"

#define PIPELINE_WORKERS_MAX 64
#define PIPELINE_TICKS_PER_MS 10000  /* a tick is 100 ns */

struct source_host {
    struct pipeline *pipeline;
    const struct source_settings *settings;
    uint32_t index;
    void *self;
    struct work_plan plan;
    struct stream_list streams;
    uint64_t troubles;
    uint64_t bytes;                                /* of chunks done with */
    struct work_counts counts;
    int64_t newest_ticks;                          /* newest event time accepted; 0: none yet */
    uint64_t faults_unsaid, fault_said_ms;
    bool drained, stopped;
};

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
    const struct settings *settings;
    int lock_fd;
    uint64_t started_ms;                           /* since 1970 */
    struct http *http;
    struct cursors *cursors;
    struct keys *keys;               /* NULL: nothing is encrypted */
    struct reserve *reserve;
    struct budget budget;
    size_t baseline, chunk_bytes;
    size_t kept;                                   /* of the baseline: what sources know of their streams */
    size_t window_bytes;                           /* batches that the sinks may hold in flight, all windows full */
    bool flow_open, big_waits;
    struct stream *big_stream;                     /* has the budget to itself, between its passes too */
    size_t big_bytes;                              /* counted for its tree */
    struct outlet *outlets[SETTINGS_SINKS_MAX];
    uint32_t outlet_count, outlets_stopped;
    struct source_host hosts[SETTINGS_SOURCES_MAX];
    uint32_t host_count, hosts_stopped, hosts_settled;
    struct job jobs[PIPELINE_WORKERS_MAX];
    uint32_t job_count, jobs_running;
    struct streams queue;
    uint32_t chunks_out;
    uv_timer_t save_timer;
    struct saver saver;
    struct spool_place saved_places[SETTINGS_SINKS_MAX];
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

/* pipeline.c */
void pipeline_work(struct pipeline *pipeline);    /* starts the jobs that may start; stopping, gives chunks back */
void pipeline_flow(struct pipeline *pipeline);    /* opens or closes the flow by the two marks … */
void pipeline_set_marks(struct pipeline *pipeline);    /* … which depend on pipeline->kept */

/* pipeline_life.c */
void pipeline_once_done(struct pipeline *pipeline);    /* replay: stops when all is read and all of that is at its end */
void pipeline_stop_on(struct pipeline *pipeline); /* the next step of stopping, if the one before is done */

#endif
