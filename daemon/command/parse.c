/*
 * parse.c - `penstock parse`: the pure pipeline on files or standard input, for trying, testing and timing.
 *
 * Messages go to standard output, one line each, what went wrong to standard error as FILE:POSITION: why, where POSITION
 * counts the unpacked bytes. Memory is a buffer of twice the longest record, whatever the input's length.
 */
#include "daemon/command/commands.h"
#include "daemon/config/option.h"
#include "daemon/record/unpack.h"
#include "daemon/record/work.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES ((size_t)1 << 20)
#define WRITE_BYTES ((size_t)1 << 16)
#define OUTPUT_MAX ((size_t)1 << 20)       /* as the daemon has it by default: what was written is still in the cache */

struct parse {
    struct work_plan plan;
    struct worker *worker;
    const char *schema, *parser, *plugin_dir;
    uint64_t record_max;
    bool stats;
    struct buf in, out;              /* in: what of the file is not done with yet */
    struct work_counts counts;       /* of all files */
    uint64_t bytes_in, bytes_out;
    bool failed;                     /* some record, or some file */
    bool hung_up;                    /* nobody reads our output any more */
};

/* ---- Output ----------------------------------------------------------------------------------------------------- */

static void parse_flush(struct parse *parse)
{
    size_t done = 0;

    while (done < parse->out.size && !parse->hung_up) {
        ssize_t n = write(STDOUT_FILENO, parse->out.data + done, parse->out.size - done);

        if (n >= 0) {
            done += (size_t)n;
        } else if (errno != EINTR) {
            parse->hung_up = true;
            if (errno != EPIPE) {    /* a pipe that was closed has had enough: `penstock parse | head` */
                parse->failed = true;
                fprintf(stderr, "penstock: cannot write: %s\n", strerror(errno));
            }
        }
    }
    parse->bytes_out += done;
    parse->out.size = 0;
}

static void parse_write(struct parse *parse, const struct work_messages *messages)
{
    for (size_t i = 0; i < messages->count; i++) {
        buf_add(&parse->out, messages->bytes.data + messages->index[i].offset, messages->index[i].size);
        buf_char(&parse->out, '\n');
        if (parse->out.size >= WRITE_BYTES)
            parse_flush(parse);
    }
}

/* A file's name may hold anything, also what moves a terminal's cursor, in ASCII or as C1 in UTF-8. */
static void print_name(const char *name)
{
    for (const unsigned char *c = (const unsigned char *)name; *c != '\0'; c++) {
        if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
            fprintf(stderr, "\\xc2\\x%02x", *++c);
        else if (*c < 0x20 || *c == 0x7f || *c == '\\')
            fprintf(stderr, "\\x%02x", *c);
        else
            fputc(*c, stderr);
    }
}

static void __attribute__((format(printf, 3, 4))) parse_trouble(struct parse *parse, const char *name, const char *format, ...)
{
    va_list args;

    parse->failed = true;
    print_name(name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

/* ---- One file --------------------------------------------------------------------------------------------------- */

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void parse_count(struct parse *parse, const char *name, const struct work *work)
{
    struct work_counts *sum = &parse->counts;

    sum->records += work->counts.records;
    sum->events += work->counts.events;
    sum->unknown += work->counts.unknown;
    sum->malformed += work->counts.malformed;
    sum->partly += work->counts.partly;
    sum->oversize += work->counts.oversize;
    sum->cut += work->counts.cut;
    for (size_t i = 0; i < work->fault_count && i < WORK_FAULTS_MAX; i++)
        parse_trouble(parse, name, ":%llu: %s", (unsigned long long)work->faults[i].position, work->faults[i].why);
    if (work->fault_count > WORK_FAULTS_MAX)
        parse_trouble(parse, name, ":%llu: %zu more before this position",
                      (unsigned long long)(work->offset + work->consumed), work->fault_count - WORK_FAULTS_MAX);
}

/* Runs through what was read, and keeps the rest at the buffer's start. */
static void parse_run(struct parse *parse, const char *name, struct work *work)
{
    size_t done = 0;

    work->received_ms = now_ms();
    do {
        work->data = parse->in.data + done;
        work->size = parse->in.size - done;
        work_run(parse->worker, work);
        parse_write(parse, &work->messages[0]);
        parse_count(parse, name, work);
        done += work->consumed;
        work->offset += work->consumed;
        work->word = work->word_after;
        work->skip = work->skip_after;
        work->blamed = work->blamed_after;
    } while (work->end != WORK_ALL && !parse->hung_up);
    parse_flush(parse);
    parse->in.size -= done;
    if (done > 0)
        memmove(parse->in.data, parse->in.data + done, parse->in.size);
}

static void parse_unpacked(struct parse *parse, const char *name, struct unpack *unpack)
{
    struct work work = { .plan = &parse->plan, .big_allowed = true };
    struct pen_error err = { 0 };
    ssize_t n;

    parse->in.size = 0;
    do {
        buf_reserve(&parse->in, (parse->in.size < READ_BYTES ? READ_BYTES : parse->in.size) + JSON_PADDING);
        n = unpack_read(unpack, parse->in.data + parse->in.size, parse->in.capacity - parse->in.size - JSON_PADDING, &err);
        if (n > 0) {
            parse->in.size += (size_t)n;
            parse->bytes_in += (uint64_t)n;
        }
        work.final = n <= 0;
        parse_run(parse, name, &work);
    } while (n > 0 && !parse->hung_up);
    if (n < 0)
        parse_trouble(parse, name, ": %s", err.text);
    else if (n == 0 && !unpack_complete(unpack))
        parse_trouble(parse, name, ": the archive is cut off");
}

static void parse_file(struct parse *parse, const char *name)
{
    bool standard = strcmp(name, "-") == 0;
    int fd = standard ? STDIN_FILENO : open(name, O_RDONLY | O_CLOEXEC);
    struct pen_error err = { 0 };
    struct unpack *unpack = NULL;

    if (standard)
        name = "(standard input)";
    if (fd < 0)
        parse_trouble(parse, name, ": %s", strerror(errno));
    else if (unpack_new(&unpack, fd, &err) < 0)
        parse_trouble(parse, name, ": %s", err.text);
    else
        parse_unpacked(parse, name, unpack);
    unpack_free(unpack);
    if (fd > STDIN_FILENO)
        close(fd);
}

/* ---- The command ------------------------------------------------------------------------------------------------ */

static void usage(FILE *to)
{
    fputs("Usage: penstock parse [OPTION…] [FILE…]\n"
          "Reads log records from the files (gzip and zstd too), or from standard input where there is none or it is -, and\n"
          "writes each of their events as one line of JSON. What could not be read as it should goes to standard error.\n\n"
          "  -p, --parser NAME       the parser that may claim records; default: auto, all of them\n"
          "  -s, --schema NAME       how events are written: asim (the default)", to);
    for (size_t i = 1; schema_names[i] != NULL; i++)
        fprintf(to, ", %s", schema_names[i]);
    fputs("\n"
          "  -r, --record-max SIZE   longest record, 1K to 1G; default: 4M\n"
          "  -d, --plugin-dir DIR    folder of shared objects with more parsers\n"
          "      --stats             ends with a line of counts on standard error\n"
          "  -h, --help              prints this\n\n"
          "Exit status: 0 every record was read, 1 some were not (they were written as unknown), 2 wrong use.\n", to);
}

static const struct pen_option record_max_option = {
    "record-max", PEN_BYTES, 0, .fallback = "4M", .min = 1 << 10, .max = 1 << 30,
};

static int parse_options(struct parse *parse, int argc, char **argv)
{
    static const struct option options[] = {
        { "parser", required_argument, NULL, 'p' },
        { "schema", required_argument, NULL, 's' },
        { "record-max", required_argument, NULL, 'r' },
        { "plugin-dir", required_argument, NULL, 'd' },
        { "stats", no_argument, NULL, 't' },
        { "help", no_argument, NULL, 'h' },
        { 0 },
    };
    struct pen_error err = { 0 };
    struct arena arena = { 0 };      /* a size needs none */
    int option;

    while ((option = getopt_long(argc, argv, "p:s:r:d:h", options, NULL)) != -1) {
        switch (option) {
        case 'p':
            parse->parser = optarg;
            break;
        case 's':
            parse->schema = optarg;
            break;
        case 'r':
            if (option_set(&record_max_option, optarg, &parse->record_max, &arena, &err) < 0) {
                fprintf(stderr, "penstock parse: --record-max: %s\n", err.text);
                return 2;
            }
            break;
        case 'd':
            parse->plugin_dir = optarg;
            break;
        case 't':
            parse->stats = true;
            break;
        case 'h':
            usage(stdout);
            exit(0);
        default:
            fputs("Try \"penstock parse --help\".\n", stderr);
            return 2;
        }
    }
    return 0;
}

static int parse_open(struct parse *parse)
{
    struct pen_error err = { 0 };
    const struct schema *schema = schema_find(parse->schema);

    if (schema == NULL) {
        fputs("penstock parse: --schema: expected one of", stderr);
        for (size_t i = 0; schema_names[i] != NULL; i++)
            fprintf(stderr, "%s %s", i > 0 ? "," : "", schema_names[i]);
        fputc('\n', stderr);
        return 2;
    }
    parse->plan = (struct work_plan){
        .schemas = { schema }, .schema_count = 1, .source = PEN_SPAN("parse"), .record_max = parse->record_max,
        .big_record = SIZE_MAX, .output_max = OUTPUT_MAX,
    };
    if (work_plan_open(&parse->plan, parse->parser, parse->plugin_dir, &err) < 0) {
        fprintf(stderr, "penstock parse: %s\n", err.text);
        return 2;
    }
    parse->worker = worker_new();
    return 0;
}

static void parse_print_stats(const struct parse *parse)
{
    const struct work_counts *counts = &parse->counts;

    fprintf(stderr, "records=%llu events=%llu unknown=%llu malformed=%llu partly=%llu oversize=%llu cut=%llu bytes_in=%llu "
            "bytes_out=%llu\n",
            (unsigned long long)counts->records, (unsigned long long)counts->events, (unsigned long long)counts->unknown,
            (unsigned long long)counts->malformed, (unsigned long long)counts->partly, (unsigned long long)counts->oversize,
            (unsigned long long)counts->cut, (unsigned long long)parse->bytes_in, (unsigned long long)parse->bytes_out);
}

int command_parse(int argc, char **argv)
{
    struct parse parse = { .schema = "asim", .parser = "auto", .record_max = 4 << 20 };
    int status = parse_options(&parse, argc, argv);

    if (status == 0)
        status = parse_open(&parse);
    if (status != 0)
        return status;
    signal(SIGPIPE, SIG_IGN);        /* write() says it, and the counts are still printed */
    if (optind == argc)
        parse_file(&parse, "-");
    for (int i = optind; i < argc && !parse.hung_up; i++)
        parse_file(&parse, argv[i]);
    if (parse.stats)
        parse_print_stats(&parse);
    worker_free(parse.worker);
    work_plan_close(&parse.plan);
    buf_free(&parse.in);
    buf_free(&parse.out);
    return parse.failed ? 1 : 0;
}
