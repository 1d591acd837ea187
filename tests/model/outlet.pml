/*
 * outlet.pml - the protocol by which nothing is lost: window, spool, cursor and answers of one outlet, as daemon/outlet/outlet.c,
 * its outlet_answers.c and outlet_spool.c, spool.c and stream.c have it. Names are theirs.
 *
 * Modelled: one stream of RECORDS records, one message each, sealed into batches of one or two; the window; the states
 * OPEN, SPOOLING, PAUSED; the spool with its cap, its segments, `keep` and late answers; a far end that takes, delays,
 * rejects (one record may be poison) and whose answers may never come; halving and the dead letters; the two marks that
 * pause and resume the source; the saver's transaction of cursor and place; a disk that fails; a crash at any moment, as
 * often as it likes, which keeps any beginning (TORN: any part) of what was not synced.
 *
 * The loop is one thread: whatever it does in one turn, from a callback to the end of its pump, is one atomic step here.
 * What runs on the pool (append, read, burial, save) begins in one step and ends in a later one, with any of the others
 * between. Time is chance: a timer may fire whenever it is armed.
 *
 * Not modelled: several streams, sinks and kinds (they share the budget and the saver only; flow.pml has the budget),
 * parsing, bytes, compression, drop-oldest, damage of what was synced (lost by definition, and counted), a stop in order
 * (a crash at a good moment). A refusal is a retry here, and so is the doubt after many rejections: the code differs
 * in delay and alarm only. A record is safe as soon as its own message is; batch.c waits for the whole batch, so the code
 * saves less than what is checked here.
 *
 * Safety: assert()s, marked S1 … S4. Progress: the formula at the end.
 */
#ifndef RECORDS
#define RECORDS 3
#endif
#ifndef BATCH
#define BATCH 2                      /* messages */
#endif
#ifndef WINDOW
#define WINDOW 1                     /* parts in flight, at most */
#endif
#ifndef CAP
#define CAP 3                        /* frames the spool may hold */
#endif
#ifndef SEGMENT
#define SEGMENT 2                    /* frames that fill a segment */
#endif
#ifndef UPPER
#define UPPER 3                      /* the two marks, in messages; the lower one must leave room for the window */
#endif
#ifndef LOWER
#define LOWER (WINDOW * BATCH)
#endif
#ifndef PARTS
#define PARTS 7                      /* room for what is in memory at once; that it suffices is asserted */
#endif

#define OPEN     0                   /* outlet: the inbox goes straight to ready */
#define SPOOLING 1                   /* the inbox goes to the spool, ready is filled from there */
#define PAUSED   2                   /* as SPOOLING, but the spool takes nothing now */

#define INBOX     1                  /* where a part is */
#define APPENDING 2                  /* taken from the inbox by the append */
#define READY     3
#define FLYING    4
#define LANDED    5                  /* answered while an append reads it: `late` waits for the append */
#define DEAD      6                  /* rejected alone: to be buried */
#define BURYING   7

#define DELIVERED 1                  /* answers */
#define RETRY     2
#define REJECTED  3
#define EACH      4                  /* message by message: the poison is named, the rest delivered */

#define IDLE    0                    /* jobs on the pool */
#define RUNNING 1
#define SYNCED  2                    /* on disk, the loop has not heard of it */
#define FAILED  3

/* ---- What a crash leaves ---- */

byte arrived;                        /* set of records: taken by the far end */
bit buried;                          /* the poison lies in the dead letters */
byte saved_cursor;                   /* records below it are never read again */
byte saved_place;                    /* frames before it are never read back */
typedef frame_t {
    byte first, count;               /* records */
    byte unsettled;                  /* memory: messages without their end */
    bit taken;                       /* memory: read back, or kept when written */
    bit last;                        /* of its segment, which takes no more */
}
frame_t frames[CAP];                 /* the spool, oldest first */
byte known;                          /* frames that the loop knows to be synced */
byte written;                        /* … and those an append is writing */

/* ---- What it takes away ---- */

typedef part_t {
    byte list, first, count;
    byte frame;                      /* 1 + index; 0: only in memory */
    bit keep, unwritten, writing;
    byte late;
}
part_t parts[PARTS];                 /* all of the outlet's lists in one, in its order: part->order is the index */
byte part_count;
byte state;
byte position;                       /* next record to read */
byte open_first, open_count;         /* the open batch */
byte released;                       /* set of records whose run nobody holds, from the cursor on */
byte cursor;
byte held, spooled;                  /* the ledger */
bit flow_open, hold, disk_hold;
bit blocked, dead_hold;              /* burial: the letters cannot be written, and the next try is not due */
byte append, reading, burial, saving;
byte pending_cursor, pending_place;  /* collected, not committed */

/* ---- Fate ---- */

byte poison;                         /* the record no far end takes; RECORDS: there is none */
bit calm;                            /* from now on the far end is well, the disk too, and nothing crashes */

hidden byte i, j, k, a, b, n, x, yes; /* scratch of one step */

#define all(from, size)   (((1 << (size)) - 1) << (from))
#define has_poison(p)     (poison >= parts[p].first && poison < parts[p].first + parts[p].count)

/* ---- Parts ---- */

inline part_copy(to, from)
{
    parts[to].list = parts[from].list; parts[to].first = parts[from].first; parts[to].count = parts[from].count;
    parts[to].frame = parts[from].frame; parts[to].keep = parts[from].keep;
    parts[to].unwritten = parts[from].unwritten; parts[to].writing = parts[from].writing;
    parts[to].late = parts[from].late
}

inline part_clear(p)
{
    parts[p].list = 0; parts[p].first = 0; parts[p].count = 0; parts[p].frame = 0; parts[p].keep = 0;
    parts[p].unwritten = 0; parts[p].writing = 0; parts[p].late = 0
}

/* A gap at index p. */
inline part_insert(p)
{
    assert(part_count < PARTS);
    j = part_count;
    do
    :: j > p -> part_copy(j, j - 1); j--
    :: else -> break
    od;
    part_clear(p);
    part_count++
}

inline part_free(p)
{
    j = p;
    do
    :: j + 1 < part_count -> part_copy(j, j + 1); j++
    :: else -> break
    od;
    part_count--;
    part_clear(part_count)
}

inline count_list(into, which)
{
    into = 0; j = 0;
    do
    :: j < part_count -> if :: parts[j].list == which -> into++ :: else fi; j++
    :: else -> break
    od
}

/* ---- S1: no cursor past an unsafe record ---- */

/* Every record below the saved cursor has come to its end, or lies synced in the spool behind the saved place. */
inline check_safe()
{
    x = 0;
    do
    :: x < saved_cursor ->
        yes = (arrived >> x & 1) || (x == poison && buried);
        k = saved_place;
        do
        :: k < known || (append == SYNCED && k < written) ->
            if :: x >= frames[k].first && x < frames[k].first + frames[k].count -> yes = 1 :: else fi;
            k++
        :: else -> break
        od;
        assert(yes);
        x++
    :: else -> break
    od
}

/* ---- The spool ---- */

inline frame_copy(to, from)
{
    frames[to].first = frames[from].first; frames[to].count = frames[from].count;
    frames[to].unsettled = frames[from].unsettled; frames[to].taken = frames[from].taken;
    frames[to].last = frames[from].last
}

inline frame_clear(f)
{
    frames[f].first = 0; frames[f].count = 0; frames[f].unsettled = 0; frames[f].taken = 0; frames[f].last = 0
}

/* Frame f is no more; what refers to frames behind it follows. */
inline frame_remove(f)
{
    j = f;
    do
    :: j + 1 < written -> frame_copy(j, j + 1); j++
    :: else -> break
    od;
    known--; written--;
    frame_clear(written);
    if :: saved_place > f -> saved_place-- :: else fi;
    if :: pending_place > f -> pending_place-- :: else fi;
    j = 0;
    do
    :: j < part_count -> if :: parts[j].frame > f + 1 -> parts[j].frame-- :: else fi; j++
    :: else -> break
    od
}

/* segment_retire(), spool_seal_empty(): a sealed segment goes when all of it is settled; the open one when the spool is
 * empty and no append is out. */
inline spool_retire()
{
    a = 0; n = 0;
    do
    :: a < known ->
        b = a; yes = 1;
        do
        :: b < known ->
            n = n + frames[b].unsettled;
            if :: frames[b].unsettled > 0 -> yes = 0 :: else fi;
            if :: frames[b].last -> break :: else b++ fi
        :: else -> break
        od;
        if
        :: b < known && yes ->
            do
            :: b >= a && frames[a].last == 0 -> frame_remove(a); b--
            :: else -> break
            od;
            frame_remove(a)
        :: else -> a = b + 1
        fi
    :: else -> break
    od;
    if
    :: n == 0 && append == IDLE -> do :: known > 0 -> frame_remove(0) :: else -> break od
    :: else
    fi;
    check_safe()
}

inline spool_is_empty(into)
{
    into = 1; j = 0;
    do
    :: j < known -> if :: frames[j].unsettled > 0 -> into = 0 :: else fi; j++
    :: else -> break
    od
}

/* The first untaken frame; `known` where there is none. */
inline spool_untaken(into)
{
    into = 0;
    do
    :: into < known && frames[into].taken -> into++
    :: else -> break
    od
}

/* Where a new life has to begin: at the first frame that is not settled. */
inline spool_place(into)
{
    into = 0;
    do
#ifdef MUTANT_PLACE                  /* … or at the first that was not read back? */
    :: into < known && frames[into].taken -> into++
#else
    :: into < known && frames[into].taken && frames[into].unsettled == 0 -> into++
#endif
    :: else -> break
    od
}

/* ---- Safe, and the end of a message ---- */

/* batch_safe(): on disk and synced, or at its end. The cursor moves over the unbroken front. */
inline records_safe(from, size)
{
    released = released | all(from, size);
    do
    :: cursor < position && (released >> cursor & 1) -> released = released & ~(1 << cursor); cursor++
    :: else -> break
    od
}

inline outlet_part_end(p)
{
    if
    :: parts[p].frame > 0 ->
        assert(spooled >= parts[p].count && frames[parts[p].frame - 1].unsettled >= parts[p].count);
        spooled = spooled - parts[p].count;
        frames[parts[p].frame - 1].unsettled = frames[parts[p].frame - 1].unsettled - parts[p].count
    :: else ->
        assert(held >= parts[p].count);
        held = held - parts[p].count;
        records_safe(parts[p].first, parts[p].count)
    fi;
    part_free(p);
    spool_retire()
}

/* ---- Answers ---- */

/* Two halves in its place. */
inline part_halve(p)
{
    part_insert(p + 1);
    part_copy(p + 1, p);
    parts[p].count = 1;
    parts[p + 1].first++; parts[p + 1].count--
}

inline part_answered(p, answer)
{
    x = answer; parts[p].late = 0;
    if
    :: x == DELIVERED -> outlet_part_end(p)
    :: x == RETRY -> parts[p].list = READY; hold = 1
    :: x == REJECTED && parts[p].count == 1 -> parts[p].list = DEAD
    :: x == REJECTED && parts[p].count > 1 -> parts[p].list = READY; part_halve(p)
    :: x == EACH ->
        parts[p].list = DEAD;
        part_halve(p);
        if :: parts[p].first == poison -> outlet_part_end(p + 1) :: else -> outlet_part_end(p) fi
    fi
}

/* ---- The outlet ---- */

inline outlet_seal()
{
    part_insert(part_count);         /* counts it */
    parts[part_count - 1].list = INBOX;
    parts[part_count - 1].first = open_first;
    parts[part_count - 1].count = open_count;
    open_first = 0; open_count = 0
}

inline outlet_submit()
{
    count_list(n, FLYING);
    i = 0;
    do
    :: i < part_count && n < WINDOW && !hold && !blocked ->
        if :: parts[i].list == READY -> parts[i].list = FLYING; n++ :: else fi;
        i++
    :: else -> break
    od
}

/* OPEN to SPOOLING: what flies, or stands before something that flies, is written and kept; the rest goes back. */
inline outlet_spill()
{
    yes = 0; i = part_count;
    do
    :: i > 0 ->
        i--;
        if
        :: parts[i].list == FLYING || (parts[i].list == READY && yes) ->
            if :: parts[i].list == FLYING -> yes = 1 :: else fi;
            parts[i].keep = 1; parts[i].unwritten = 1
        :: parts[i].list == READY && !yes -> parts[i].list = INBOX
        :: else
        fi
    :: else -> break
    od;
    state = SPOOLING
}

/* SPOOLING or PAUSED to OPEN: nothing is on disk any more. */
inline outlet_unspill()
{
    i = 0;
    do
    :: i < part_count ->
        if
        :: parts[i].list == READY || parts[i].list == FLYING -> parts[i].keep = 0; parts[i].unwritten = 0
        :: else
        fi;
        i++
    :: else -> break
    od;
    state = OPEN
}

inline inbox_to_ready()
{
    i = 0;
    do
    :: i < part_count -> if :: parts[i].list == INBOX -> parts[i].list = READY :: else fi; i++
    :: else -> break
    od
}

/* Puts what fits into frames[known …], not synced yet. `yes`: what comes from the inbox may be kept. */
inline outlet_start_append()
{
    if
    :: state != OPEN && append == IDLE && !disk_hold ->
        count_list(n, READY); count_list(b, FLYING);
        n = n + b;                                         /* the window, with what will be kept */
        spool_untaken(a);
        yes = (a == known && reading == IDLE);
        b = 0;                                             /* frames of the open segment */
        do
        :: b < known && !frames[known - 1 - b].last -> b++
        :: else -> break
        od;
        k = 0;                                             /* candidates seen */
        i = 0;
        do
        :: i < part_count ->
            if
            :: parts[i].list == INBOX ||
               (parts[i].unwritten && (parts[i].list == READY || parts[i].list == FLYING)) ->
                k++;
                if
                :: written == CAP || (written > known && b >= SEGMENT) -> break
                :: else
                fi;
                if
                :: parts[i].list == INBOX ->
                    yes = yes && n < WINDOW;
                    parts[i].keep = yes;
                    if :: yes -> n++ :: else fi;
                    parts[i].list = APPENDING
                :: else
                fi;
                parts[i].writing = 1;
                frames[written].first = parts[i].first; frames[written].count = parts[i].count;
                written++; b++
            :: else
            fi;
            i++
        :: else -> break
        od;
        if
        :: written > known ->
            append = RUNNING
#ifdef MUTANT_SYNC                   /* safe when written, not when synced? */
            ; i = 0;
            do
            :: i < part_count ->
                if :: parts[i].writing -> records_safe(parts[i].first, parts[i].count) :: else fi;
                i++
            :: else -> break
            od
#endif
        :: written == known && k > 0 -> state = PAUSED     /* the cap */
        :: else
        fi
    :: else
    fi
}

inline outlet_start_read()
{
    if
#ifdef MUTANT_PAUSE                  /* a paused outlet waits for room before it reads back? */
    :: state == SPOOLING && reading == IDLE && !hold && !disk_hold && !blocked ->
#else
    :: state != OPEN && reading == IDLE && !hold && !disk_hold && !blocked ->
#endif
        count_list(n, READY); count_list(b, FLYING);
        spool_untaken(a);
        if :: n + b < WINDOW && a < known -> reading = RUNNING :: else fi
    :: else
    fi
}

inline outlet_start_burial()
{
    count_list(n, DEAD);
    if
    :: n > 0 && burial == IDLE && !dead_hold ->
        i = 0;
        do
        :: i < part_count -> if :: parts[i].list == DEAD -> parts[i].list = BURYING :: else fi; i++
        :: else -> break
        od;
        burial = RUNNING
#ifdef MUTANT_DEAD                   /* the dead letter is safe when it is begun? */
        ; i = 0;
        do
        :: i < part_count -> if :: parts[i].list == BURYING -> records_safe(parts[i].first, 1) :: else fi; i++
        :: else -> break
        od
#endif
    :: else
    fi
}

/* ---- The two marks; S2: the ledger is what there is ---- */

inline pipeline_flow()
{
    n = open_count; a = open_count; i = 0;
    do
    :: i < part_count ->
        n = n + parts[i].count;
        if :: parts[i].frame == 0 -> a = a + parts[i].count :: else fi;
        i++
    :: else -> break
    od;
    if
    :: flow_open && n >= UPPER -> flow_open = 0
    :: !flow_open && n <= LOWER -> flow_open = 1
    :: else
    fi;
    assert(held == a);
    b = 0; i = 0;
    do
    :: i < known -> b = b + frames[i].unsettled; i++
    :: else -> break
    od;
    assert(spooled == b)
}

/* `due`: the oldest part has waited for spool_after. */
inline outlet_pump_on(due)
{
    spool_is_empty(yes);
#ifdef MUTANT_OPEN                   /* open again when all is read back? */
    spool_untaken(a);
    yes = a == known;
#endif
    if
    :: state != OPEN && append == IDLE && reading == IDLE && burial == IDLE && yes -> outlet_unspill()
    :: else
    fi;
    if
    :: state == OPEN ->
        inbox_to_ready();
        outlet_submit();
        count_list(n, READY);
        if :: due && n > 0 && !disk_hold -> outlet_spill() :: else fi              /* road_spills() */
    :: else
    fi;
    outlet_start_append();
    outlet_start_read();
    outlet_submit();
    outlet_start_burial();
    pipeline_flow();
    i = 0; j = 0; k = 0; a = 0; b = 0; n = 0; x = 0; yes = 0
}

inline outlet_pump()
{
    outlet_pump_on(0)
}

/* ---- The source and its jobs: one record each ---- */

active proctype source()
{
end:
    do
    :: d_step {
        flow_open && position < RECORDS ->
            if :: open_count == 0 -> open_first = position :: else fi;
            open_count++; position++; held++;
            if :: open_count == BATCH -> outlet_seal() :: else fi;
            outlet_pump()
       }
    od
}

/* ---- Timers ---- */

#define is(p, where)  (p < part_count && parts[p].list == where)
#define among(where)  (is(0, where) || is(1, where) || is(2, where) || is(3, where) || is(4, where) || is(5, where) || \
                       is(6, where) || (PARTS > 7 && is(PARTS - 2, where)) || (PARTS > 8 && is(PARTS - 1, where)))

active proctype timer()
{
end:
    do
    :: d_step { open_count > 0 -> outlet_seal(); outlet_pump() }               /* flush */
    :: d_step { hold -> hold = 0; outlet_pump() }                              /* backoff */
    :: d_step { disk_hold -> disk_hold = 0; outlet_pump() }                    /* DISK_RETRY_MS */
    :: d_step { dead_hold -> dead_hold = 0; outlet_pump() }                    /* burial's RETRY_MS */
    :: d_step { state == OPEN && !disk_hold && among(READY) -> outlet_pump_on(1) }   /* spool_after */
    od
}

/* ---- The far end ---- */

/* S3: what was never there before arrives in the stream's order (with one in flight). */
inline far_end_takes(p)
{
    x = parts[p].first;
    do
    :: x < parts[p].first + parts[p].count ->
        if
        :: x != poison && !(arrived >> x & 1) ->
#if WINDOW == 1 && !defined(TORN)
            assert(((arrived | (1 << poison)) & all(0, x)) == all(0, x));
#endif
            arrived = arrived | 1 << x
        :: else
        fi;
        x++
    :: else -> break
    od
}

/* pen_batch_answer(): an answer while an append reads the part waits for the append. */
inline far_end_answers(p, answer)
{
    if
    :: parts[p].writing -> parts[p].list = LANDED; parts[p].late = answer
    :: else -> part_answered(p, answer)
    fi;
    outlet_pump()
}

active proctype far_end()
{
    byte p;
end:
    do
    :: atomic {
        among(FLYING) ->
        if                                                 /* the first in flight, or the last */
        :: d_step { p = 0; do :: parts[p].list != FLYING -> p++ :: else -> break od; skip }
#if WINDOW > 1
        :: d_step { p = part_count - 1; do :: parts[p].list != FLYING -> p-- :: else -> break od; skip }
#endif
        fi;
        if
        :: !has_poison(p) -> d_step { far_end_takes(p); far_end_answers(p, DELIVERED) }
        :: has_poison(p) -> d_step { far_end_answers(p, REJECTED) }
        :: has_poison(p) && parts[p].count > 1 -> d_step { far_end_takes(p); far_end_answers(p, EACH) }
        :: !calm && parts[p].count > 1 -> d_step { far_end_answers(p, REJECTED) }              /* too large */
        :: !calm -> d_step { far_end_answers(p, RETRY) }
        :: !calm && !has_poison(p) -> d_step { far_end_takes(p); x = 0 }                              /* and says nothing yet */
        fi;
        p = 0
       }
    od
}

/* ---- On the pool: append ---- */

inline outlet_appended()
{
    append = IDLE;
    i = 0;
    do                                                     /* spool_append_done() */
    :: i < part_count ->
        if
        :: parts[i].writing ->
            frames[known].unsettled = parts[i].count;
            held = held - parts[i].count;
            spooled = spooled + parts[i].count;
            records_safe(parts[i].first, parts[i].count);
            if
            :: parts[i].keep ->
                spool_untaken(a);
                assert(a == known);                        /* S4: kept parts come first, or only when nothing waits */
                frames[known].taken = 1;
                parts[i].frame = known + 1
            :: else
            fi;
            known++
        :: else
        fi;
        i++
    :: else -> break
    od;
    assert(known == written);
    b = 0;
    do
    :: b < known && !frames[known - 1 - b].last -> b++
    :: else -> break
    od;
    if :: b >= SEGMENT -> frames[known - 1].last = 1 :: else fi;
    if :: state == PAUSED -> state = SPOOLING :: else fi;
    i = 0;
    do
    :: i < part_count && parts[i].writing ->
        parts[i].writing = 0; parts[i].unwritten = 0;
        if
        :: parts[i].late > 0 -> part_answered(i, parts[i].late)
        :: parts[i].late == 0 && !parts[i].keep -> part_free(i)
        :: parts[i].late == 0 && parts[i].keep && parts[i].list == APPENDING -> parts[i].list = READY
        :: else
        fi
    :: i < part_count && !parts[i].writing -> i++
    :: else -> break
    od
}

/* append_undo(): the segment takes no more. What was to be written waits again. */
inline outlet_append_failed()
{
    append = IDLE;
    do
    :: written > known -> written--; frame_clear(written)
    :: else -> break
    od;
    if :: known > 0 -> frames[known - 1].last = 1 :: else fi;
    spool_retire();
    disk_hold = 1;
    state = PAUSED;
    i = 0;
    do
    :: i < part_count && parts[i].writing ->
        parts[i].writing = 0;
        if
        :: parts[i].late > 0 -> part_answered(i, parts[i].late)
        :: parts[i].list == APPENDING -> parts[i].list = INBOX; parts[i].keep = 0
        :: else
        fi
    :: i < part_count && !parts[i].writing -> i++
    :: else -> break
    od
}

active proctype append_job()
{
end:
    do
    :: d_step { append == RUNNING -> append = SYNCED }
    :: d_step { append == RUNNING && !calm -> append = FAILED }
    :: d_step { append == SYNCED -> outlet_appended(); outlet_pump() }
    :: d_step { append == FAILED -> outlet_append_failed(); outlet_pump() }
    od
}

/* ---- On the pool: reading back ---- */

inline outlet_read()
{
    reading = IDLE;
    spool_untaken(a);
    assert(a < known);
    i = 0;
    do                                                     /* behind what was on the road before, before the inbox */
    :: i < part_count && parts[i].list != INBOX && parts[i].list != APPENDING -> i++
    :: else -> break
    od;
    part_insert(i);
    parts[i].list = READY; parts[i].first = frames[a].first; parts[i].count = frames[a].count;
    parts[i].frame = a + 1; parts[i].keep = 1;
    frames[a].taken = 1
}

active proctype read_job()
{
end:
    do
    :: d_step { reading == RUNNING -> outlet_read(); outlet_pump() }
    od
}

/* ---- On the pool: dead letters ---- */

inline outlet_buried()
{
    i = 0;
    do
    :: i < part_count && parts[i].list == BURYING ->
        if :: burial == SYNCED -> outlet_part_end(i) :: else -> parts[i].list = DEAD; i++ fi
    :: i < part_count && parts[i].list != BURYING -> i++
    :: else -> break
    od;
    blocked = burial == FAILED;
    dead_hold = blocked;
    burial = IDLE
}

active proctype burial_job()
{
end:
    do
    :: d_step { burial == RUNNING -> burial = SYNCED; buried = 1 }
    :: d_step { burial == RUNNING && !calm -> burial = FAILED }
    :: d_step { burial == SYNCED || burial == FAILED -> outlet_buried(); outlet_pump() }
    od
}

/* ---- On the pool: the saver, one transaction at a time ---- */

active proctype saver()
{
end:
    do
    :: d_step {
        saving == IDLE ->
            spool_place(a);
            if
            :: cursor != saved_cursor || a != saved_place ->
                pending_cursor = cursor; pending_place = a; saving = RUNNING
            :: else
            fi
       }
    :: d_step {
        saving == RUNNING ->
            saved_cursor = pending_cursor; saved_place = pending_place;
            check_safe();
            saving = IDLE; pending_cursor = 0; pending_place = 0
       }
    od
}

/* ---- Fate ---- */

/* Frame f was not synced, and is not there afterwards. */
inline frame_torn(f)
{
    j = f;
    do
    :: j + 1 < written -> frame_copy(j, j + 1); j++
    :: else -> break
    od;
    written--;
    frame_clear(written)
}

/* A new life: what is before the place is settled, all the rest is to be read back, no segment is continued. */
inline restart()
{
    known = written;
    do
    :: part_count > 0 -> part_count--; part_clear(part_count)
    :: else -> break
    od;
    pending_cursor = 0; pending_place = 0;
    append = IDLE; reading = IDLE; burial = IDLE; saving = IDLE;
    do
    :: saved_place > 0 -> frame_remove(0)
    :: else -> break
    od;
    spooled = 0; i = 0;
    do
    :: i < known ->
        frames[i].unsettled = frames[i].count; frames[i].taken = 0;
        spooled = spooled + frames[i].count; i++
    :: else -> break
    od;
    if :: known > 0 -> frames[known - 1].last = 1 :: else fi;
    open_first = 0; open_count = 0; held = 0; released = 0;
    cursor = saved_cursor; position = saved_cursor;
    hold = 0; disk_hold = 0; blocked = 0; dead_hold = 0; flow_open = 1;
    state = (known > 0 -> SPOOLING : OPEN);
    check_safe();
    outlet_pump()
}

active proctype fate()
{
    byte f;

    atomic {
        do
        :: poison < RECORDS -> poison++
        :: break
        od;
        flow_open = 1
    }
end:
    do
    :: atomic {                                            /* a crash */
        !calm -> f = known;
        do
        :: append != SYNCED && f < written ->
            if
#ifdef TORN
            :: d_step { frame_torn(f) }
            :: f++
#else
            :: d_step { do :: written > f -> frame_torn(f) :: else -> break od; skip }
            :: f++
#endif
            fi
        :: else -> break
        od;
        f = 0;
        d_step { restart() }
       }
    :: d_step { !calm -> calm = 1 }
    od
}

/* ---- Progress ---- */

#define at_rest (((arrived | 1 << poison) & all(0, RECORDS)) == all(0, RECORDS) && (poison == RECORDS || buried) && \
                 saved_cursor == RECORDS && part_count == 0 && known == 0 && held == 0 && spooled == 0 && \
                 state == OPEN && flow_open)

/* Once calm has come for good, everything comes to its end: delivered or dead, the cursor saved behind it, the spool
 * empty, the outlet OPEN and the flow, too. So no pause is without its end, and no drain waits for what waits for it. */
ltl progress { [] (calm -> <> at_rest) }
