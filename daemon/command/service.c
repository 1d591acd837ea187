/* service.c - see service.h. */
#include "daemon/command/service.h"

#include "daemon/base/log.h"
#include "daemon/pipeline/pipeline.h"
#include "daemon/pipeline/reload.h"
#include "daemon/rule/rule_watch.h"
#include "daemon/status/pages.h"
#include "daemon/status/status.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

/* Threads of the pool that are not workers: file reads, spool, cursors, name lookups. */
#define POOL_OTHERS 4
/* A budget of memory below this gets the heap that keeps little: see service_prepare(). */
#define HEAP_LEAN_BELOW ((uint64_t)64 << 20)

static const int signal_numbers[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1 };
#define SIGNALS (sizeof(signal_numbers) / sizeof(*signal_numbers))

struct service {
    uv_loop_t loop;
    struct pipeline *pipeline;
    struct reload *reload;           /* NULL: the configuration is not read again */
    struct rule_watch *watch;
    struct pages *pages;
    const struct service_job *job;
    uv_signal_t signals[SIGNALS];
    uv_timer_t beat;                               /* watchdog and status line */
    uint64_t watchdog_ms;                          /* 0: systemd does not watch */
    bool stopping;                                 /* a signal said so */
    bool stopped;
};

void service_report(void *arg, const char *file, unsigned line, const char *sentence)
{
    (void)arg;
    if (line > 0)
        fprintf(stderr, "%s:%u: %s\n", file, line, sentence);
    else
        fprintf(stderr, "%s: %s\n", file, sentence);
}

static void service_log_counters(const struct service *service)
{
    struct status status;

    pipeline_see(service->pipeline, &status);
    status_log(&status);
    status_free(&status);
}

/* SIG_BLOCK or SIG_UNBLOCK for what we handle. Threads that start in between never see these signals: they are the loop's. */
static void signals_mask(int how)
{
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < SIGNALS; i++)
        sigaddset(&set, signal_numbers[i]);
    pthread_sigmask(how, &set, NULL);
}

void service_hold_signals(void)
{
    signals_mask(SIG_BLOCK);
}

static const char *signal_word(int number)
{
    return number == SIGTERM ? "TERM" : number == SIGINT ? "INT" : "HUP";
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct service *service = handle->data;

    if (number == SIGUSR1) {
        service_log_counters(service);
        return;
    }
    if (number == SIGHUP && service->reload != NULL) {
        reload_ask(service->reload);
        return;
    }
    if (service->stopping) {
        log_line(LOG_WARN, "stopping at once; what is not delivered or spooled will be read again", NULL);
        _exit(1);
    }
    service->stopping = true;
    log_line(LOG_NOTE, "stopping", "signal", signal_word(number), NULL);
    if (service->job != NULL)
        service->job->stopping(service->job->arg);
    if (service->reload != NULL)
        reload_stop(service->reload);
    sd_notify(0, "STOPPING=1\nSTATUS=stopping: delivering or spooling what is in flight");
    pipeline_stop(service->pipeline);
}

/* systemd waits for the READY that belongs to this RELOADING; MONOTONIC_USEC tells which that is. */
static void on_reload_begun(void *arg)
{
    struct timespec now;

    (void)arg;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu\nSTATUS=reading the configuration again",
               (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000);
}

static void service_say_status(struct service *service, const char *more);

static void on_reload_ended(void *arg, struct settings *settings, const struct settings *before)
{
    struct service *service = arg;

    if (before != NULL) {
        log_set_level((enum log_level)settings_log_level(settings));
        pages_take(service->pages, settings);
        if (rule_watch_is_over(service->watch)) {
            rule_watch_close(service->watch);
            service->watch = rule_watch_start(settings, before, &service->loop);
        }
    }
    if (!service->stopping)
        service_say_status(service, "\nREADY=1");
}

/* The loop turns, or this timer would not fire; what is left to ask is whether the pool does. A job that takes longer than
 * the watchdog's whole time is a disk or a parser that hangs. One message for all: each waits until systemd has room for it. */
static void on_beat(uv_timer_t *timer)
{
    struct service *service = timer->data;
    uint64_t since = pipeline_busy_since(service->pipeline);
    bool alive = service->watchdog_ms > 0 && (since == 0 || uv_now(&service->loop) - since < service->watchdog_ms);

    service_say_status(service, alive ? "\nWATCHDOG=1" : "");
}

static void service_say_status(struct service *service, const char *more)
{
    struct status status;
    char sentence[256];

    pipeline_see(service->pipeline, &status);
    if (service->reload != NULL)
        reload_see(service->reload, &status);
    status_sentence(&status, sentence, sizeof(sentence));
    sd_notifyf(0, "STATUS=%s%s%s", sentence, status.config_good ? "" : "; the last reload failed, the configuration from before goes on",
               more);
    status_free(&status);
}

static void service_stopped(void *arg)
{
    struct service *service = arg;

    service->stopped = true;
    for (size_t i = 0; i < SIGNALS; i++)
        uv_close((uv_handle_t *)&service->signals[i], NULL);
    uv_close((uv_handle_t *)&service->beat, NULL);
    uv_stop(&service->loop);
}

static void service_arm(struct service *service)
{
    uint64_t watchdog_us = 0;

    for (size_t i = 0; i < SIGNALS; i++) {
        uv_signal_init(&service->loop, &service->signals[i]);
        service->signals[i].data = service;
        uv_signal_start(&service->signals[i], on_signal, signal_numbers[i]);
    }
    signals_mask(SIG_UNBLOCK);
    if (sd_watchdog_enabled(0, &watchdog_us) > 0)
        service->watchdog_ms = watchdog_us / 1000;
    uv_timer_init(&service->loop, &service->beat);
    service->beat.data = service;
    uv_timer_start(&service->beat, on_beat, 0, service->watchdog_ms > 0 && service->watchdog_ms < 20000
                   ? service->watchdog_ms / 4 : 5000);
}

/* Sizes of the pool and the heap's habits must be set before the first use of either. */
static void service_prepare(const struct settings *settings)
{
    int64_t workers = settings->daemon.workers > 0 ? settings->daemon.workers : sysconf(_SC_NPROCESSORS_ONLN);
    char threads[16];
    bool lean;

    snprintf(threads, sizeof(threads), "%d", (int)workers + POOL_OTHERS);
    setenv("UV_THREADPOOL_SIZE", threads, 1);
    /* Chunks, batches and librdkafka's requests are taken and freed hundreds of times a second: they stay with the heap, or
     * the kernel would clear every page of each of them anew (a quarter of all CPU of flow logs to Kafka). What is larger
     * goes back at once, and all threads share one heap. A heap that keeps much has holes, though, 20 MiB of them once with
     * a budget of 32: who asks for a small one gets the lean heap (test_promise.py and test_memory.py hold both). */
    lean = settings->daemon.memory < HEAP_LEAN_BELOW;
    mallopt(M_MMAP_THRESHOLD, lean ? 512 << 10 : 2 << 20);
    mallopt(M_TRIM_THRESHOLD, lean ? 1 << 20 : 4 << 20);
    mallopt(M_ARENA_MAX, 1);
}

int service_run(const struct service_conf *conf)
{
    const struct service_job *job = conf->job;
    struct service service = { .job = job };
    struct pipeline_conf pipeline_conf = {
        .settings = conf->settings, .loop = &service.loop, .state_dir = conf->state_dir, .once = job != NULL,
        .on_stopped = service_stopped, .arg = &service,
    };
    struct pen_error err = { 0 };
    bool all_delivered;

    log_set_level((enum log_level)settings_log_level(conf->settings));
    service_prepare(conf->settings);
    uv_loop_init(&service.loop);
    if (job != NULL) {
        pipeline_conf.window = job->window;
        pipeline_conf.beside = job->beside;
        pipeline_conf.pace = job->prepare(job->arg, &service.loop);
    }
    if (pipeline_new(&service.pipeline, &pipeline_conf, &err) < 0) {
        log_line(LOG_ERROR, "cannot start", "error", err.text, NULL);
        if (job != NULL)
            job->end(job->arg, NULL);
        uv_run(&service.loop, UV_RUN_DEFAULT);
        uv_loop_close(&service.loop);
        return err.code == UV_EINVAL ? 2 : 1;      /* a setting, found late: trying again does not help */
    }
    log_to_journal();
    service_arm(&service);
    service.watch = rule_watch_start(conf->settings, NULL, &service.loop);
    if (conf->path != NULL) {
        service.reload = reload_new(&(struct reload_conf){
            .path = conf->path, .settings = conf->settings, .pipeline = service.pipeline,
            .on_begun = on_reload_begun, .on_ended = on_reload_ended, .arg = &service,
        });
        service.pages = pages_open(conf->settings, &service.loop, conf->state_dir, service.pipeline, service.reload);
    }
    if (job != NULL)
        job->begin(job->arg, service.pipeline);
    pipeline_start(service.pipeline);
    sd_notify(0, "READY=1");
    while (!service.stopped)
        uv_run(&service.loop, UV_RUN_DEFAULT);

    if (job == NULL || !job->quiet)
        service_log_counters(&service);
    if (job != NULL)
        job->end(job->arg, service.pipeline);
    all_delivered = pipeline_all_delivered(service.pipeline);
    pages_close(service.pages);
    pipeline_close(service.pipeline);
    reload_free(service.reload);
    rule_watch_close(service.watch);
    uv_run(&service.loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&service.loop) != 0)
        log_line(LOG_WARN, "something inside was left open at the stop: a defect worth a report, nothing is lost", NULL);
    log_line(LOG_NOTE, "stopped", NULL);
    /* A replay that was told to stop may not have read all there is, though what it read was delivered. */
    return job != NULL && (service.stopping || !all_delivered) ? 1 : 0;
}
