/*
 * flow.pml - the two marks: who waits for whom when memory is short. daemon/pipeline/pipeline.c has it; names are its own.
 *
 * Modelled: STREAMS streams, each with one chunk out at a time (CHUNK units of the budget); one job on the pool, which
 * turns a chunk into one message for each of two sinks; what of a chunk waits for the flow to open; the sink `siem`, which
 * is well; the sink `away`, whose far end may be down for ever: its window stays full, the rest of its messages goes to
 * its spool, which has room, or (SPOOL_FULL) waits in memory for as long as it is away.
 *
 * Not modelled: what a message goes through on its way (outlet.pml has that), big records with the budget to themselves.
 *
 * Promised: one far end that is down does not stop the others, and every pause of the flow ends.
 */
#ifndef STREAMS
#define STREAMS 3
#endif
#ifndef CHUNKS
#define CHUNKS 5                     /* to be read, of all streams */
#endif
#define CHUNK  2
#define WINDOW 1
#define LOWER  4                     /* room for what is there always and all windows, full: pipeline_check_memory() */
#define UPPER  6

#define NONE   0                     /* a stream's chunk */
#define QUEUED 1                     /* out, waiting for a job */
#define AT_JOB 2

byte chunk[STREAMS];
byte left = CHUNKS;
bit flow_open = 1, job;
byte siem, away, window;             /* messages in memory: for the one, for the other, and those of it that fly */
byte delivered;                      /* by siem */
bit is_away, spool_full;

#define chunk_bytes (CHUNK * ((chunk[0] > 0) + (chunk[1] > 0) + (chunk[2] > 0)))
#define batch_bytes (siem + away + window)

inline pipeline_flow()
{
    if
    :: flow_open && chunk_bytes + batch_bytes >= UPPER -> flow_open = 0
#ifdef MUTANT_CHUNKS                 /* chunks that wait for the flow may keep it closed while any message waits? */
    :: !flow_open && (chunk_bytes + batch_bytes <= LOWER || batch_bytes == 0) -> flow_open = 1
#else
    :: !flow_open && (chunk_bytes + batch_bytes <= LOWER || batch_bytes <= 2 * WINDOW) -> flow_open = 1
#endif
    :: else
    fi
}

/* Starts what may start: the oldest is as good as any. */
inline pipeline_work()
{
    if
    :: flow_open && !job && chunk[0] == QUEUED -> chunk[0] = AT_JOB; job = 1
    :: flow_open && !job && chunk[0] != QUEUED && chunk[1] == QUEUED -> chunk[1] = AT_JOB; job = 1
    :: flow_open && !job && chunk[0] != QUEUED && chunk[1] != QUEUED && chunk[2] == QUEUED -> chunk[2] = AT_JOB; job = 1
    :: else
    fi
}

/* The end of an outlet's pump. */
inline on_outlet_moved()
{
    pipeline_flow();
    pipeline_work()
}

proctype stream(byte me)
{
end:
    do
    :: d_step { flow_open && left > 0 && chunk[me] == NONE ->                  /* stream_offer() */
                    left--; chunk[me] = QUEUED; pipeline_work(); pipeline_flow() }
    :: d_step { chunk[me] == AT_JOB ->                                         /* on_job_done() */
                    siem++; away++; chunk[me] = NONE; job = 0;
                    pipeline_flow(); pipeline_work() }
    od
}

proctype sink_siem()
{
end:
    do
    :: d_step { siem > 0 -> siem--; delivered++; on_outlet_moved() }
    od
}

proctype sink_away()
{
end:
    do
    :: d_step { away > 0 && window < WINDOW -> away--; window++; on_outlet_moved() }
    :: d_step { away > 0 && window == WINDOW && !spool_full -> away--; on_outlet_moved() }      /* synced */
    :: d_step { window > 0 && !is_away -> window--; on_outlet_moved() }
    od
}

init
{
    atomic {
        if :: is_away = 0 :: is_away = 1 :: spool_full = 1 fi;
        run stream(0); run stream(1); run stream(2); run sink_siem(); run sink_away()
    }
}

ltl progress { <> (delivered == CHUNKS && away == 0 && flow_open) }
