"""A real Apache Kafka broker for tests: one node in KRaft mode on loopback, gone with its `with` block.

    with Kafka(folder) as kafka:
        kafka.create_topic("azure.security", partitions=4)
        ... kafka.bootstrap (plain), kafka.bootstrap_sasl (TLS and SASL; kafka.ca, kafka.user, kafka.password) ...
        for partition, offset, key, value in kafka.read_all("azure.security"): ...

The broker comes from Maven Central (tests/lib/kafka/pom.xml) into $PENSTOCK_CACHE, by default ~/.cache/penstock, once.
Where it cannot be had, Kafka() raises Unavailable; `at_hand()` turns that into a skip, or into a failure where
PENSTOCK_TESTS=all asks for everything. Needs openjdk-17-jre-headless, maven, kcat and openssl.
"""
import contextlib
import ctypes
import fcntl
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from string import Template

import pytest

from ports import Port

HERE = Path(__file__).parent / "kafka"
VERSION = re.search(r"<kafka.version>(.+)</kafka.version>", (HERE / "pom.xml").read_text()).group(1)
START_S = 240
FETCH_S = 600


class Unavailable(Exception):
    """The broker cannot be had on this machine; the text says why."""


def missing(reason):
    """Skips the running test, or fails it where PENSTOCK_TESTS=all."""
    if os.environ.get("PENSTOCK_TESTS") == "all":
        pytest.fail(f"PENSTOCK_TESTS=all, but {reason}")
    pytest.skip(str(reason))


@contextlib.contextmanager
def at_hand():
    """What is started within cannot be had everywhere: then it is missing."""
    try:
        yield
    except Unavailable as reason:
        missing(reason)


def jars():
    """The folder with the broker's jars, fetched on first use."""
    for tool in ("java", "mvn", "kcat", "openssl"):
        if not shutil.which(tool):
            raise Unavailable(f"{tool} is not installed")
    root = Path(os.environ.get("PENSTOCK_CACHE") or Path.home() / ".cache" / "penstock")
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"kafka-{VERSION}"
    with open(root / ".lock", "w") as lock:          # two test runs may start together
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            part = root / f"kafka-{VERSION}.part"    # a fetch that was cut short never looks whole
            shutil.rmtree(part, ignore_errors=True)
            _fetch(part)
            part.rename(folder)
    return folder


def _fetch(folder):
    command = ["mvn", "-B", "-q", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies",
               f"-DoutputDirectory={folder}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"Maven Central gave no Apache Kafka within {FETCH_S} s") from None
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
        raise Unavailable("Maven Central gave no Apache Kafka: " + (lines[0] if lines else "mvn failed"))


class Kafka:
    user = "penstock"                                # known to PLAIN and to SCRAM

    def __init__(self, folder, properties=None, node=1, voters=None):
        """`folder` takes logs, data and certificates; `properties` are added to the broker's; `voters`, the controllers' ports
        by node, make it one of a Cluster."""
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.classpath = f"{jars()}/*"
        self.password = secrets.token_hex(12)
        self.ca = self.folder / "ca.pem"
        self.properties = properties or {}
        self.node, self.voters = node, voters
        self.held = [Port() for _ in range(5)]
        self.process = None

    def __enter__(self):
        self._make_certificates()
        self._configure()
        self._format()
        self.start()
        return self

    def __exit__(self, *unused):
        self.stop()
        self.release()

    # ---- life ------------------------------------------------------------------------------------------------

    def start(self):
        self.launch()
        self.await_answer()

    def launch(self):
        with open(self.folder / "broker.log", "ab") as log:
            self.process = subprocess.Popen(self._java("kafka.Kafka", self.folder / "broker.properties"),
                                            stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def await_answer(self):
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop(kill=True)
                raise RuntimeError(f"the broker did not start:\n{self.log()[-3000:]}")

    def stop(self, kill=False):
        """Stops the broker, by SIGTERM or, as a power cut would, by SIGKILL."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def release(self):
        for port in self.held:
            port.release()

    def restart(self, kill=False):
        """Down and up again: same ports, same data."""
        self.stop(kill)
        self.start()

    def freeze(self):
        """It stops in its tracks: lines stay open, nothing is answered, until thaw()."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def log(self):
        return (self.folder / "broker.log").read_text(errors="replace")

    def _answers(self):
        done = subprocess.run(["kcat", "-b", self.bootstrap, "-L", "-m", "1"], capture_output=True)
        if done.returncode != 0:
            time.sleep(0.1)
        return done.returncode == 0

    def _java(self, *command):
        return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", self.classpath, *map(str, command)]

    # ---- setting up ------------------------------------------------------------------------------------------

    def _configure(self):
        plain, sasl, controller, self.front, self.behind = (port.number for port in self.held)
        voters = self.voters or {self.node: controller}
        self.bootstrap = f"127.0.0.1:{plain}"
        self.bootstrap_proxied = f"127.0.0.1:{self.front}"
        self.bootstrap_sasl = f"localhost:{sasl}"
        text = Template((HERE / "broker.properties").read_text()).substitute(
            plain=plain, sasl=sasl, controller=voters[self.node], front=self.front, behind=self.behind, node=self.node,
            voters=",".join(f"{node}@127.0.0.1:{port}" for node, port in voters.items()), folder=self.folder,
            user=self.user, password=self.password)
        text += "".join(f"{key}={value}\n" for key, value in self.properties.items())
        path = self.folder / "broker.properties"
        path.touch(mode=0o600)
        path.write_text(text)

    def _format(self):
        command = self._java("kafka.tools.StorageTool", "format", "-t", "cGVuc3RvY2stdGVzdHMtMQ", "-c",
                             self.folder / "broker.properties")
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            command += ["--add-scram", f"{mechanism}=[name={self.user},password={self.password}]"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"the log folder was not formatted:\n{done.stdout}{done.stderr}")

    def _make_certificates(self):
        """A CA for this one broker, thrown away with its folder; kcat and librdkafka verify against ca.pem."""
        def openssl(*command):
            subprocess.run(["openssl", *map(str, command)], cwd=self.folder, check=True, capture_output=True)

        key = ("-newkey", "rsa:2048", "-nodes", "-days", "2")
        openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Penstock test CA")
        openssl("req", *key[:3], "-keyout", "broker.key", "-out", "broker.csr", "-subj", "/CN=localhost")
        (self.folder / "broker.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("x509", "-req", "-in", "broker.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", "broker.ext", "-out", "broker.crt")
        (self.folder / "broker.pem").write_text((self.folder / "broker.key").read_text() +
                                                (self.folder / "broker.crt").read_text() + self.ca.read_text())

    # ---- topics and messages ---------------------------------------------------------------------------------

    def sasl_options(self, mechanism="PLAIN", password=None):
        """librdkafka's properties for the TLS and SASL listener."""
        return {"security.protocol": "SASL_SSL", "ssl.ca.location": str(self.ca), "sasl.mechanism": mechanism,
                "sasl.username": self.user, "sasl.password": self.password if password is None else password}

    def create_topic(self, topic, partitions=1, **settings):
        """`settings` are the topic's own, with _ for a dot: max_message_bytes=1000."""
        _Admin(self.bootstrap).create_topic(topic, partitions, {k.replace("_", "."): v for k, v in settings.items()},
                                            len(self.voters or "1"))

    def delete_topic(self, topic):
        _Admin(self.bootstrap).delete_topic(topic)

    def change_topic(self, topic, **settings):
        """Settings as with create_topic(), of a topic that is there."""
        added = ",".join(f"{key.replace('_', '.')}={value}" for key, value in settings.items())
        self._tool("kafka.admin.ConfigCommand", "--entity-type", "topics", "--entity-name", topic, "--alter",
                   "--add-config", added)

    def grant(self, topic, revoke=False):
        """The user may write to the topic, or no longer may; counts where the broker has an authorizer (AUTHORIZER)."""
        self._tool("kafka.admin.AclCommand", *(["--remove", "--force"] if revoke else ["--add"]), "--allow-principal",
                   f"User:{self.user}", "--operation", "Write", "--operation", "Describe", "--topic", topic)

    def let_read(self, topic, group):
        """The user may read the topic and use the group; counts where the broker has an authorizer (AUTHORIZER)."""
        _Admin(self.bootstrap).allow(f"User:{self.user}", [(TOPIC, topic, READ), (TOPIC, topic, DESCRIBE), (GROUP, group, READ)])

    def delete_records(self, topic, before, partition=0):
        """As the retention does: what lies before an offset is gone."""
        _Admin(self.bootstrap).delete_records(topic, partition, before)

    def forget_group(self, group):
        """Its offsets are gone, as after a week without a member."""
        _Admin(self.bootstrap).delete_group(group)

    def committed(self, group, topic, partitions=1):
        """The group's offset of each partition; None where there is none."""
        return _Admin(self.bootstrap, group).committed(topic, partitions)

    def produce_in_transaction(self, topic, values, commit=True):
        """Into partition 0, all or, where the transaction is aborted, none; either leaves a marker that takes an offset."""
        _Producer(self.bootstrap).produce(topic, values, commit)

    def _tool(self, name, *words):
        done = subprocess.run(self._java(name, "--bootstrap-server", self.bootstrap, *words), capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{name}: {done.stdout}{done.stderr}")

    def read_all(self, topic):
        """Every message in the topic, as (partition, offset, key or None, value), partitions in order."""
        out = subprocess.run(["kcat", "-b", self.bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q",
                              "-f", "%p %o %K %S\n%k%s\n"], capture_output=True, check=True).stdout
        messages, at = [], 0
        while at < len(out):
            head = out.index(b"\n", at)
            partition, offset, key_size, size = map(int, out[at:head].split())
            middle = head + 1 + max(key_size, 0)
            end = middle + max(size, 0)
            messages.append((partition, offset, out[head + 1:middle] if key_size >= 0 else None, out[middle:end]))
            at = end + 1
        return sorted(messages, key=lambda message: message[:2])


class Cluster:
    """Several brokers, each a controller too; topics have a replica on every one.

        with Cluster(folder, 3) as cluster:
            cluster.create_topic("t")
            cluster.leader("t").stop(kill=True)
    """

    def __init__(self, folder, size=3, properties=None):
        self.held = [Port() for _ in range(size)]
        voters = dict(enumerate((port.number for port in self.held), 1))
        properties = {"min.insync.replicas": 2, **(properties or {})}
        self.brokers = [Kafka(Path(folder) / str(node), properties, node, voters) for node in voters]

    def __enter__(self):
        for broker in self.brokers:
            broker._make_certificates()
            broker._configure()
            broker._format()
        for broker in self.brokers:                  # none answers before most of them are there
            broker.launch()
        for broker in self.brokers:
            broker.await_answer()
        return self

    def __exit__(self, *unused):
        for broker in self.brokers:
            broker.stop(kill=True)
            broker.release()
        for port in self.held:
            port.release()

    @property
    def bootstrap(self):
        return ",".join(broker.bootstrap for broker in self.brokers)

    def alive(self):
        return next(broker for broker in self.brokers if broker.process is not None)

    def leader(self, topic):
        """The broker that leads the topic's partition 0; None while none does."""
        listed = subprocess.run(["kcat", "-b", self.bootstrap, "-L", "-m", "5", "-t", topic], capture_output=True, text=True)
        found = re.search(r"partition 0, leader (\d+)", listed.stdout)
        return self.brokers[int(found[1]) - 1] if found else None

    def in_sync(self, topic):
        """How many replicas of partition 0 have all of it."""
        listed = subprocess.run(["kcat", "-b", self.bootstrap, "-L", "-m", "5", "-t", topic], capture_output=True, text=True)
        found = re.search(r"partition 0, leader \d+, replicas: \S+, isrs: ([\d,]+)", listed.stdout)
        return len(found[1].split(",")) if found else 0

    def create_topic(self, topic, partitions=1, **settings):
        self.alive().create_topic(topic, partitions, **settings)

    def read_all(self, topic):
        return self.alive().read_all(topic)


# As `properties`: who is not on the plain port needs rights.
AUTHORIZER = {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
              "super.users": "User:ANONYMOUS"}


# librdkafka's numbers of resources and operations
TOPIC, GROUP, READ, DESCRIBE = 2, 3, 3, 8


class _Part(ctypes.Structure):
    """rd_kafka_topic_partition_t"""
    _fields_ = [("topic", ctypes.c_char_p), ("partition", ctypes.c_int32), ("offset", ctypes.c_int64),
                ("metadata", ctypes.c_void_p), ("metadata_size", ctypes.c_size_t), ("opaque", ctypes.c_void_p),
                ("err", ctypes.c_int), ("private", ctypes.c_void_p)]


class _Parts(ctypes.Structure):
    """rd_kafka_topic_partition_list_t"""
    _fields_ = [("count", ctypes.c_int), ("size", ctypes.c_int), ("parts", ctypes.POINTER(_Part))]


class _Admin:
    """Topics made and deleted, offsets looked up and forgotten through librdkafka, which is here anyway: the broker's own
    tools take a JVM for each."""

    def __init__(self, bootstrap, group=None):
        self.lib = lib = ctypes.CDLL("librdkafka.so.1")
        for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_NewTopic_new", "rd_kafka_DeleteTopic_new",
                     "rd_kafka_DeleteRecords_new", "rd_kafka_DeleteGroup_new", "rd_kafka_AclBinding_new",
                     "rd_kafka_queue_new", "rd_kafka_queue_poll",
                     "rd_kafka_event_CreateTopics_result", "rd_kafka_CreateTopics_result_topics",
                     "rd_kafka_event_DeleteTopics_result", "rd_kafka_DeleteTopics_result_topics",
                     "rd_kafka_event_DeleteGroups_result", "rd_kafka_DeleteGroups_result_groups",
                     "rd_kafka_group_result_error"):
            getattr(lib, name).restype = ctypes.c_void_p
        for name in ("rd_kafka_event_error_string", "rd_kafka_topic_result_error_string", "rd_kafka_err2str",
                     "rd_kafka_error_string"):
            getattr(lib, name).restype = ctypes.c_char_p
        lib.rd_kafka_topic_partition_list_new.restype = ctypes.POINTER(_Parts)
        lib.rd_kafka_topic_partition_list_add.restype = ctypes.POINTER(_Part)
        conf = ctypes.c_void_p(lib.rd_kafka_conf_new())
        lib.rd_kafka_conf_set(conf, b"bootstrap.servers", bootstrap.encode(), None, 0)
        if group is not None:
            lib.rd_kafka_conf_set(conf, b"group.id", group.encode(), None, 0)
        self.client = ctypes.c_void_p(lib.rd_kafka_new(int(group is not None), conf, None, 0))

    def create_topic(self, topic, partitions, settings, replicas):
        new = ctypes.c_void_p(self.lib.rd_kafka_NewTopic_new(topic.encode(), partitions, replicas, None, 0))
        for key, value in settings.items():
            self.lib.rd_kafka_NewTopic_set_config(new, key.encode(), str(value).encode())
        self._ask("CreateTopics", new, topic)
        self.lib.rd_kafka_NewTopic_destroy(new)
        self.lib.rd_kafka_destroy(self.client)

    def delete_topic(self, topic):
        old = ctypes.c_void_p(self.lib.rd_kafka_DeleteTopic_new(topic.encode()))
        self._ask("DeleteTopics", old, topic)
        self.lib.rd_kafka_DeleteTopic_destroy(old)
        self.lib.rd_kafka_destroy(self.client)

    def delete_records(self, topic, partition, before):
        parts = self.lib.rd_kafka_topic_partition_list_new(1)
        self.lib.rd_kafka_topic_partition_list_add(parts, topic.encode(), partition).contents.offset = before
        old = ctypes.c_void_p(self.lib.rd_kafka_DeleteRecords_new(parts))
        self._ask("DeleteRecords", old, topic)
        self.lib.rd_kafka_DeleteRecords_destroy(old)
        self.lib.rd_kafka_topic_partition_list_destroy(parts)
        self.lib.rd_kafka_destroy(self.client)

    def delete_group(self, group):
        old = ctypes.c_void_p(self.lib.rd_kafka_DeleteGroup_new(group.encode()))
        self._ask("DeleteGroups", old, group)
        self.lib.rd_kafka_DeleteGroup_destroy(old)
        self.lib.rd_kafka_destroy(self.client)

    def allow(self, who, rights):
        literal, allowed = 3, 3
        for resource, name, operation in rights:
            new = ctypes.c_void_p(self.lib.rd_kafka_AclBinding_new(resource, name.encode(), literal, who.encode(), b"*", operation,
                                                                   allowed, None, 0))
            self._ask("CreateAcls", new, name)
            self.lib.rd_kafka_AclBinding_destroy(new)
        self.lib.rd_kafka_destroy(self.client)

    def committed(self, topic, partitions):
        parts = self.lib.rd_kafka_topic_partition_list_new(partitions)
        for partition in range(partitions):
            self.lib.rd_kafka_topic_partition_list_add(parts, topic.encode(), partition)
        error = self.lib.rd_kafka_committed(self.client, parts, 30000)
        found = {part.partition: part.offset if part.offset >= 0 else None for part in parts.contents.parts[:partitions]}
        self.lib.rd_kafka_topic_partition_list_destroy(parts)
        self.lib.rd_kafka_destroy(self.client)
        if error:
            raise RuntimeError(f"offsets of {topic}: {self.lib.rd_kafka_err2str(error).decode()}")
        return found

    def _ask(self, name, what, topic):
        lib = self.lib
        queue = ctypes.c_void_p(lib.rd_kafka_queue_new(self.client))
        getattr(lib, "rd_kafka_" + name)(self.client, (ctypes.c_void_p * 1)(what), ctypes.c_size_t(1), None, queue)
        event = ctypes.c_void_p(lib.rd_kafka_queue_poll(queue, 30000))
        trouble = self._trouble(name, event) if event else "no answer within 30 s"
        lib.rd_kafka_event_destroy(event)
        lib.rd_kafka_queue_destroy(queue)
        if trouble:
            raise RuntimeError(f"{topic}: {trouble}")

    def _trouble(self, name, event):
        lib, count = self.lib, ctypes.c_size_t()
        if lib.rd_kafka_event_error(event):
            return lib.rd_kafka_event_error_string(event).decode()
        if name in ("DeleteRecords", "CreateAcls"):
            return None
        result = ctypes.c_void_p(getattr(lib, f"rd_kafka_event_{name}_result")(event))
        many = "groups" if name == "DeleteGroups" else "topics"
        found = getattr(lib, f"rd_kafka_{name}_result_{many}")(result, ctypes.byref(count))
        first = ctypes.c_void_p(ctypes.cast(found, ctypes.POINTER(ctypes.c_void_p))[0])
        if name == "DeleteGroups":
            error = lib.rd_kafka_group_result_error(first)
            return lib.rd_kafka_error_string(ctypes.c_void_p(error)).decode() if error else None
        text = lib.rd_kafka_topic_result_error_string(first)
        return text.decode() if text else None


class _Producer:
    """A transactional one, which kcat has not."""

    def __init__(self, bootstrap):
        self.lib = lib = ctypes.CDLL("librdkafka.so.1")
        for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_topic_new", "rd_kafka_init_transactions",
                     "rd_kafka_begin_transaction", "rd_kafka_commit_transaction", "rd_kafka_abort_transaction"):
            getattr(lib, name).restype = ctypes.c_void_p
        lib.rd_kafka_error_string.restype = ctypes.c_char_p
        conf = ctypes.c_void_p(lib.rd_kafka_conf_new())
        for key, value in ((b"bootstrap.servers", bootstrap.encode()), (b"transactional.id", secrets.token_hex(8).encode())):
            lib.rd_kafka_conf_set(conf, key, value, None, 0)
        self.client = ctypes.c_void_p(lib.rd_kafka_new(0, conf, None, 0))

    def produce(self, topic, values, commit):
        self._do("init_transactions", 30000)
        self._do("begin_transaction")
        handle = ctypes.c_void_p(self.lib.rd_kafka_topic_new(self.client, topic.encode(), None))
        for value in values:
            copy = 2
            if self.lib.rd_kafka_produce(handle, 0, copy, value, ctypes.c_size_t(len(value)), None, ctypes.c_size_t(0), None):
                raise RuntimeError(f"{topic}: not produced")
        self.lib.rd_kafka_flush(self.client, 30000)
        self._do("commit_transaction" if commit else "abort_transaction", 30000)
        self.lib.rd_kafka_topic_destroy(handle)
        self.lib.rd_kafka_destroy(self.client)

    def _do(self, what, *words):
        error = getattr(self.lib, "rd_kafka_" + what)(self.client, *words)
        if error:
            raise RuntimeError(f"{what}: {self.lib.rd_kafka_error_string(ctypes.c_void_p(error)).decode()}")
