"""The Kafka sink alone (tests/lib/kafka/sink_driver.c) against a real broker: everything arrives, in each stream's
order, over TLS and SASL, across restarts and kills of the broker, whatever the broker's limits are."""
import json
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

STREAMS = 5


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    binary = tmp_path_factory.mktemp("driver") / "sink_driver"
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "rdkafka", "libuv"], capture_output=True, text=True,
                           check=True).stdout
    subprocess.run(["cc", "-std=gnu11", "-g", "-O1", "-D_GNU_SOURCE", "-fsanitize=address,undefined", "-I", ROOT, "-I",
                    ROOT / "parsers", "-o", binary, ROOT / "tests/lib/kafka/sink_driver.c", ROOT / "sinks/kafka.c",
                    ROOT / "sinks/kafka_pace.c", ROOT / "sinks/kafka_partition.c",
                    ROOT / "daemon/remote/kafka_client.c", ROOT / "daemon/remote/kafka_end.c", *shlex.split(flags)], check=True)
    return binary


class Run:
    def __init__(self, driver, broker, tmp_path, topic, lines, per_batch=10, **options):
        options = {"brokers": broker.bootstrap, "topic": topic, **options}
        (tmp_path / "in").write_text("".join(f"{stream}\t{text}\n" for stream, text in lines))
        self.err_path = tmp_path / "err"
        self.process = subprocess.Popen([driver, str(per_batch), *(f"{k}={v}" for k, v in options.items())],
                                        stdin=open(tmp_path / "in"), stdout=subprocess.PIPE,
                                        stderr=open(self.err_path, "w"), text=True)

    def wait_done(self, count):
        """Until so many messages are delivered."""
        for line in self.process.stdout:
            if int(line.split()[1]) >= count:
                return
        raise AssertionError(f"ended early: {self.err}")

    def finish(self):
        self.process.communicate(timeout=120)
        return self.process.returncode

    @property
    def err(self):
        return self.err_path.read_text()


def numbered(count):
    return [(f"files/{i % STREAMS}", json.dumps({"n": i})) for i in range(count)]


def assert_all_in_order(broker, topic, count):
    """Each stream lies in one partition; leaving out repeats, complete and in order. Returns the number of repeats."""
    read = broker.read_all(topic)
    for stream in range(STREAMS):
        key = f"files/{stream}".encode()
        mine = [(partition, json.loads(value)["n"]) for partition, _, k, value in read if k == key]
        assert len({partition for partition, _ in mine}) == 1
        assert list(dict.fromkeys(n for _, n in mine)) == list(range(stream, count, STREAMS))
    return len(read) - count


def test_order_by_stream_and_no_repeats(broker, driver, tmp_path):
    broker.create_topic("order", partitions=4)
    run = Run(driver, broker, tmp_path, "order", numbered(20000), per_batch=500)
    assert run.finish() == 0, run.err
    assert assert_all_in_order(broker, "order", 20000) == 0


@pytest.mark.parametrize("kill, timeout", [(False, "60s"), (True, "60s"), (True, "1s")])
def test_all_arrive_in_order_across_a_restart(broker, driver, tmp_path, kill, timeout):
    """With a long timeout librdkafka bridges it; with a short one the sink gives up and all is sent again."""
    topic = f"restart-{kill}-{timeout}"
    broker.create_topic(topic, partitions=4)
    run = Run(driver, broker, tmp_path, topic, numbered(20000), timeout=timeout)
    run.wait_done(2000)
    broker.restart(kill=kill)
    assert run.finish() == 0, run.err
    assert assert_all_in_order(broker, topic, 20000) >= 0
    assert ("no report" in run.err) == (timeout == "1s")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_login_over_tls(broker, driver, tmp_path, mechanism):
    topic = "login-" + mechanism
    broker.create_topic(topic)
    (tmp_path / "password").write_text(broker.password + "\n")
    run = Run(driver, broker, tmp_path, topic, numbered(100), brokers=broker.bootstrap_sasl, username=broker.user,
              password_file=tmp_path / "password", mechanism=mechanism, ca_file=broker.ca)
    assert run.finish() == 0, run.err
    assert assert_all_in_order(broker, topic, 100) == 0


def test_wrong_password_is_refused_soon_and_not_told(broker, driver, tmp_path):
    (tmp_path / "password").write_text("wr0ng-secret\n")
    run = Run(driver, broker, tmp_path, "any", numbered(10), brokers=broker.bootstrap_sasl, username=broker.user,
              password_file=tmp_path / "password", ca_file=broker.ca, timeout="60s")
    assert run.finish() == 3
    assert "uthentication" in run.err and "wr0ng-secret" not in run.err


def test_unverified_broker_is_refused(broker, driver, tmp_path):
    (tmp_path / "password").write_text(broker.password)
    run = Run(driver, broker, tmp_path, "any", numbered(10), brokers=broker.bootstrap_sasl, username=broker.user,
              password_file=tmp_path / "password", timeout="60s")
    assert run.finish() == 3
    assert "ertificate" in run.err or "SSL" in run.err


def test_missing_topic_is_refused(broker, driver, tmp_path):
    run = Run(driver, broker, tmp_path, "never-made", numbered(10),
              **{"kafka.topic.metadata.propagation.max.ms": "500"})
    assert run.finish() == 3
    assert "nknown topic" in run.err


def test_small_record_batches_are_found_out(broker, driver, tmp_path):
    """The topic takes 20 kB at once; only the message that is larger than that by itself may be rejected."""
    broker.create_topic("small", partitions=1, max_message_bytes=20000)
    lines = numbered(3000)
    lines[1500] = ("files/big", json.dumps({"n": -1, "pad": "x" * 40000}))
    run = Run(driver, broker, tmp_path, "small", lines, per_batch=1000)
    assert run.finish() == 1, run.err
    values = dict.fromkeys(json.loads(value)["n"] for *_, value in broker.read_all("small"))
    assert sorted(values) == [n for n in range(3000) if n != 1500]


def test_keyless_message_in_a_compacted_topic_is_rejected_by_name(broker, driver, tmp_path):
    broker.create_topic("compacted", cleanup_policy="compact")
    run = Run(driver, broker, tmp_path, "compacted", numbered(20), key="none")
    assert run.finish() == 1
    assert "validate record" in run.err or "nvalid" in run.err
