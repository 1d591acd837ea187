"""What else can do the job: rsyslog, syslog-ng and kcat from Debian's packages, as someone who knows them would set them up.

The daemons are unpacked, not installed: installed, they would start and read the machine's own logs. All of them produce with
acks=all and idempotence, as Penstock does, and are stopped when the broker has every message.

What they do with a record is less than what Penstock does with it: *text* passes the line through, *JSON* reads it and writes it
again, *tuples* makes a message of each flow tuple, as Penstock does, with the tuple's own fields and none of the rest. None of them
reads a PT1H.json, which is one line of any length, or gives an event an id; flow records come to them one a line.
"""
import dataclasses
import os
import re
import shutil
import subprocess

from azurite import cache, run
from kafka import Unavailable

# What an unpacked program finds beside it, below the folder of its package and those that it needs.
LIBRARIES = 'usr/lib/x86_64-linux-gnu'
PACKAGES = {'rsyslog': ('rsyslog', 'rsyslog-kafka'), 'syslog-ng': ('syslog-ng-core', 'syslog-ng-mod-rdkafka')}


def folder_of(name):
    """The folder with the program and all libraries that this machine has not; raises Unavailable."""
    def fill(folder):
        asked = subprocess.run(['apt-get', '--simulate', '--no-install-recommends', 'install', *PACKAGES[name]],
                               capture_output=True, text=True, check=False)
        wanted = re.findall(r'^Inst (\S+)', asked.stdout, re.M)
        if not wanted:
            raise Unavailable(f'{name}: {(asked.stderr or "it is installed here, and would not be").strip()[-300:]}')
        run('apt-get', '-o', 'APT::Sandbox::User=root', 'download', *wanted, cwd=folder)
        for package in sorted(folder.glob('*.deb')):
            run('dpkg-deb', '--extract', package, folder / 'root')
    return cache(f'bench-{name}', fill) / 'root'


def libraries(root):
    if root is None:
        return {}
    return {'LD_LIBRARY_PATH': f'{root / LIBRARIES}:{root / "lib/x86_64-linux-gnu"}:{root / "usr/lib/syslog-ng"}'}


@dataclasses.dataclass
class Peer:
    """One way to use a program. `command` makes its files in a folder and says how it is started."""
    name: str
    program: str
    kind: str                        # text, JSON, tuples: what becomes of a record
    command: object

    def start(self, folder, path, bootstrap, topic, codec):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        words, root = self.command(folder, path, bootstrap, topic, codec)
        with open(folder / 'log', 'wb') as log:
            return subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                                    env={'PATH': os.environ['PATH'], **libraries(root)})


# ---- rsyslog: the queue between file and Kafka lives in memory, and goes to disk beyond its high watermark

RSYSLOG = '''
global(workDirectory="{folder}" maxMessageSize="1m" debug.onShutdown="off")
module(load="imfile" mode="inotify")
module(load="omkafka")
{modules}
{template}
input(type="imfile" file="{path}" tag="azure" ruleset="kafka" addMetadata="off" escapeLF="off" freshStartTail="off"
      persistStateInterval="20000")
ruleset(name="kafka" queue.type="LinkedList" queue.filename="kafka" queue.spoolDirectory="{folder}" queue.size="50000"
        queue.highWatermark="40000" queue.lowWatermark="10000" queue.dequeueBatchSize="4096" queue.maxDiskSpace="8g"
        queue.maxFileSize="64m" queue.saveOnShutdown="on" queue.timeoutEnqueue="60000") {{
{action}
}}
'''
OMKAFKA = '''action(type="omkafka" broker=["{bootstrap}"] topic="{topic}" template="out" resubmitOnFailure="on" keepFailedMessages="on"
       failedMsgFile="{folder}/failed" confParam=["acks=all", "enable.idempotence=true", "compression.codec={codec}",
       "linger.ms=50", "queue.buffering.max.messages=200000"])'''
RSYSLOG_TEXT = {'modules': '', 'template': 'template(name="out" type="list") { property(name="msg") }', 'action': OMKAFKA}
RSYSLOG_JSON = {'modules': 'module(load="mmjsonparse")',
                'template': 'template(name="out" type="list") { property(name="$!all-json") }',
                'action': 'action(type="mmjsonparse" cookie="" useRawMsg="off")\n' + OMKAFKA}
# A tuple: time, two addresses, two ports, protocol, direction, decision, state, packets and bytes either way.
TUPLE_FIELDS = ('time', 'src', 'dst', 'sport', 'dport', 'protocol', 'direction', 'decision', 'state', 'packets_out', 'bytes_out',
                'packets_in', 'bytes_in')
RSYSLOG_TUPLES = {
    'modules': 'module(load="mmjsonparse")',
    'template': 'template(name="out" type="list") { property(name="$!out") }',
    'action': 'action(type="mmjsonparse" cookie="" useRawMsg="off")\n'
              'foreach ($.rule in $!properties!flows) do {\n  foreach ($.flow in $.rule!flows) do {\n'
              '    foreach ($.tuple in $.flow!flowTuples) do {\n      set $!out!resource = $!resourceId;\n'
              '      set $!out!rule = $.rule!rule;\n      set $!out!mac = $.flow!mac;\n'
              + ''.join(f'      set $!out!{name} = field($.tuple, 44, {n});\n' for n, name in enumerate(TUPLE_FIELDS, 1))
              + OMKAFKA + '\n      unset $!out;\n    }\n  }\n}'}


def rsyslog(parts):
    def command(folder, path, bootstrap, topic, codec):
        root = folder_of('rsyslog')
        given = {'folder': folder, 'path': path, 'bootstrap': bootstrap, 'topic': topic, 'codec': codec}
        action = parts['action'].replace(OMKAFKA, OMKAFKA.format(**given))
        (folder / 'rsyslog.conf').write_text(RSYSLOG.format(**given, **{**parts, 'action': action}))
        return [root / 'usr/sbin/rsyslogd', '-n', '-f', folder / 'rsyslog.conf', '-i', folder / 'pid',
                '-M', root / LIBRARIES / 'rsyslog'], root
    return command


# ---- syslog-ng: flow control between file and destination; the disk buffer is the reliable one, which writes every message

SYSLOG_NG = '''@version: 3.38
@module affile
@module kafka
@module json-plugin
options {{ stats-freq(0); log-msg-size(2097152); use-dns(no); log-fifo-size(200000); keep-hostname(yes); threaded(yes); }};
source files {{ file("{path}" flags(no-parse) follow-freq(1) log-fetch-limit(10000) log-iw-size(100000)); }};
{parser}
destination kafka {{
    kafka-c(bootstrap-servers("{bootstrap}") topic("{topic}") message("{message}") workers(1)
            config(acks("all") enable.idempotence("true") compression.codec("{codec}") linger.ms("50")
                   queue.buffering.max.messages("200000"))
            {buffer});
}};
log {{ source(files); {parse} destination(kafka); flags(flow-control); }};
'''
DISK = 'disk-buffer(reliable(yes) disk-buf-size(8589934592) mem-buf-size(67108864) dir("{folder}"))'


def syslog_ng(json, disk):
    def command(folder, path, bootstrap, topic, codec):
        root = folder_of('syslog-ng')
        (folder / 'syslog-ng.conf').write_text(SYSLOG_NG.format(
            path=path, bootstrap=bootstrap, topic=topic, codec=codec,
            message='$(format-json --key json.* --shift-levels 1)' if json else '${MESSAGE}',
            parser='parser json { json-parser(prefix("json.")); };' if json else '', parse='parser(json);' if json else '',
            buffer=DISK.format(folder=folder) if disk else ''))
        return [root / 'usr/sbin/syslog-ng', '--foreground', '--no-caps', '--cfgfile', folder / 'syslog-ng.conf', '--persist-file',
                folder / 'persist', '--pidfile', folder / 'pid', '--control', folder / 'control', '--module-path',
                root / 'usr/lib/syslog-ng/3.38'], root
    return command


# ---- kcat: no daemon, but the floor. What reading lines and librdkafka cost, with no place remembered and no disk

def kcat(folder, path, bootstrap, topic, codec):
    if shutil.which('kcat') is None:
        raise Unavailable('kcat is not installed')
    return ['kcat', '-b', bootstrap, '-P', '-t', topic, '-l', path, '-X', 'acks=all', '-X', 'enable.idempotence=true',
            '-X', 'queue.buffering.max.messages=200000', '-X', 'linger.ms=50', '-z', codec], None


def kcat_keyed(folder, path, bootstrap, topic, codec):
    words, root = kcat(folder, path, bootstrap, topic, codec)
    return [*words, '-K', '\t'], root


# Of a file of key, tab, message: what it costs to send what Penstock sends, with nothing read, parsed, named or remembered.
KCAT_KEYED = Peer('kcat', 'kcat', 'text', kcat_keyed)

PEERS = [
    Peer('kcat', 'kcat', 'text', kcat),
    Peer('rsyslog', 'rsyslog', 'text', rsyslog(RSYSLOG_TEXT)),
    Peer('rsyslog', 'rsyslog', 'JSON', rsyslog(RSYSLOG_JSON)),
    Peer('rsyslog', 'rsyslog', 'tuples', rsyslog(RSYSLOG_TUPLES)),
    Peer('syslog-ng, memory', 'syslog-ng', 'text', syslog_ng(False, False)),
    Peer('syslog-ng, disk', 'syslog-ng', 'text', syslog_ng(False, True)),
    Peer('syslog-ng, memory', 'syslog-ng', 'JSON', syslog_ng(True, False)),
]
