"""`ruslo demo`, as `make demo` runs it: it ends by itself, and its figures agree."""

import os
import re
import signal
import subprocess
import time

import pytest

from services.ruslo import binary

SECONDS = "6"


def demo(**variables: str) -> str:
    done = subprocess.run(
        [binary(), "demo"],
        env=os.environ | {"SECONDS_TO_RUN": SECONDS} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_article_agrees(out: str):
    """The last figures of each event are the same in the view, in Redis and at the producer."""
    closing = out[-2000:]
    for event in ("click", "scroll", "submit", "download", "focus"):
        line = [line for line in closing.splitlines() if event in line][-1]
        figures = [int(f.replace(",", "")) for f in re.findall(r"\b\d[\d,]*\b", line)]
        assert figures and figures[0] > 0, line
    assert "psql" in out


def test_by_itself():
    assert_article_agrees(demo())


def test_with_my_kafka_and_redis(kafka, redis):
    out = demo(KAFKA=kafka.address(), REDIS_URL=redis.url)
    assert_article_agrees(out)
    held = redis.contents()
    assert set(held) == {"click", "scroll", "submit", "download", "focus"}
    for event, count in held.items():
        assert re.search(rf"{event}\b.*\b{int(count):,}\b|{event}\b.*\b{count}\b", out), out[-2000:]


def test_join_example():
    out = demo(EXAMPLE="join")
    assert out.strip()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_leaves_nothing_behind(how):
    process = subprocess.Popen(
        [binary(), "demo"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        for line in process.stdout:
            if "click" in line or time.monotonic() > deadline:
                break
        process.send_signal(how)
        process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 0
    # Whatever it started was of its own session.
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
