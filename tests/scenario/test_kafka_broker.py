"""The test broker itself: it starts, lets the right users in over TLS, and keeps its data over a restart and a kill."""
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "lib"))
from kafka import Kafka, Unavailable, missing  # noqa: E402


@pytest.mark.parametrize("script, reason", [(None, "mvn is not installed"), ("echo '[ERROR] no route'; exit 1", "no route")])
def test_without_maven_central_the_reason_is_told(tmp_path, monkeypatch, script, reason):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("java", "kcat", "openssl"):
        (tools / name).symlink_to("/bin/true")
    if script:
        (tools / "mvn").write_text(f"#!/bin/sh\n{script}\n")
        (tools / "mvn").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(Unavailable, match=reason):
        Kafka(tmp_path / "broker")


@pytest.mark.parametrize("asked, outcome", [("", pytest.skip.Exception), ("all", pytest.fail.Exception)])
def test_missing_skips_unless_everything_is_asked_for(monkeypatch, asked, outcome):
    monkeypatch.setenv("PENSTOCK_TESTS", asked)
    with pytest.raises(outcome, match="no reason"):
        missing("no reason")


def kcat(bootstrap, topic, lines, options=None):
    command = ["kcat", "-b", bootstrap, "-P", "-t", topic, "-K", "|", "-m", "10", "-X", "message.timeout.ms=8000",
               "-X", "max.in.flight.requests.per.connection=1"]    # a retry, as on a topic just made, must not change the order
    for key, value in (options or {}).items():
        command += ["-X", f"{key}={value}"]
    return subprocess.run(command, input="".join(line + "\n" for line in lines), capture_output=True, text=True)


def test_what_is_written_is_read_back(broker):
    broker.create_topic("plain", partitions=3)
    assert kcat(broker.bootstrap, "plain", ["a|one", "b|two", "a|three"]).returncode == 0
    read = broker.read_all("plain")
    assert [value for _, _, key, value in read if key == b"a"] == [b"one", b"three"]
    assert [value for _, _, key, value in read if key == b"b"] == [b"two"]


def test_topic_is_made_once(broker):
    broker.create_topic("once")
    with pytest.raises(RuntimeError, match="already exists"):
        broker.create_topic("once")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_right_password_gets_in_over_tls(broker, mechanism):
    topic = "sasl-" + mechanism
    broker.create_topic(topic)
    done = kcat(broker.bootstrap_sasl, topic, ["k|v"], broker.sasl_options(mechanism))
    assert done.returncode == 0, done.stderr
    assert [value for *_, value in broker.read_all(topic)] == [b"v"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_wrong_password_stays_out(broker, mechanism):
    topic = "wrong-" + mechanism
    broker.create_topic(topic)
    kcat(broker.bootstrap_sasl, topic, ["k|v"], broker.sasl_options(mechanism, password="wrong"))
    assert broker.read_all(topic) == []


def test_certificate_of_another_ca_is_not_trusted(broker):
    broker.create_topic("alien")
    options = broker.sasl_options()
    del options["ssl.ca.location"]                   # the system's
    kcat(broker.bootstrap_sasl, "alien", ["k|v"], options)
    assert broker.read_all("alien") == []


@pytest.mark.parametrize("kill", [False, True])
def test_restart_keeps_data_and_ports(broker, kill):
    topic = f"kept-{kill}"
    broker.create_topic(topic)
    assert kcat(broker.bootstrap, topic, ["k|before"]).returncode == 0
    bootstrap = broker.bootstrap
    broker.restart(kill=kill)
    assert broker.bootstrap == bootstrap
    assert kcat(broker.bootstrap, topic, ["k|after"]).returncode == 0
    assert [value for *_, value in broker.read_all(topic)] == [b"before", b"after"]
