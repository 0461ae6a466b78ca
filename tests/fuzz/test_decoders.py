"""Bytes from outside give a value or the error that is documented, whoever reads them; nothing else, and not for long.

All that is random here follows from one number, which each test prints. To try others::

    SPIRAL_FUZZ_SEED=17 python -m pytest tests/fuzz
"""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from spiral_core.errors import DecodeError, RunLogError
from spiral_core.link.runlog import RunLogReader
from spiral_core.wire import codec, records
from spiral_core.wire.limits import MAX_MESSAGE_BYTES

from . import noise
from .decoders import Reader, held_to, readers

SEED = int(os.environ.get("SPIRAL_FUZZ_SEED", "1"))
RANDOM = st.randoms(use_true_random=True)
often = settings(
    max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LONG = {"message": 600_000, "packet": 100_000, "command": 60_000}
"""Inputs of the long count; `OTHERS` for each reader that is not named here."""
OTHERS = 16_000
NAMES = [
    *("message", "packet", "command", "block", "node", "run-log"),
    *("lines", "tokens", "access", "checkpoint", "config", "applied-log"),
]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A directory in memory where that can be had: what is fuzzed here is not the disk."""
    memory = "/dev/shm"
    with TemporaryDirectory(prefix="spiral-fuzz-", dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def every(folder: Path) -> dict[str, Reader]:
    return {reader.name: reader for reader in readers(folder)}


def test_every_reader_takes_what_was_written_for_it(every: dict[str, Reader]) -> None:
    assert list(every) == NAMES
    for reader in every.values():
        for data in reader.seeds:
            assert held_to(reader, data), (reader.name, data)


@seed(SEED)
@given(RANDOM, st.sampled_from(noise.ALL))
@often
def test_every_message_comes_back_as_it_was(random: Random, kind: type[noise.Message]) -> None:
    sent = noise.message(random, [kind])
    received = codec.decode(codec.encode(sent))
    assert type(received) is kind
    # Not the messages themselves: a NaN equals nothing.
    assert codec.encode(received) == codec.encode(sent)


@seed(SEED)
@given(RANDOM)
@often
def test_a_message_that_is_nearly_right_is_read_or_refused(every: dict[str, Reader], random: Random) -> None:
    held_to(every["message"], noise.nearly(random, noise.message(random)))


@pytest.mark.parametrize("name", NAMES)
def test_any_bytes_and_any_damage_give_a_value_or_the_documented_error(every: dict[str, Reader], name: str) -> None:
    reader = every[name]
    taken = []

    @seed(SEED)
    @given(RANDOM, st.sampled_from(reader.seeds), st.binary(max_size=200))
    @settings(often, max_examples=100)
    def any_bytes(random: Random, right: bytes, data: bytes) -> None:
        held_to(reader, data)
        held_to(reader, noise.garbage(random))
        taken.append(held_to(reader, noise.damaged(random, right)))

    with capture_logs():
        any_bytes()
    print(f"{name}: {sum(taken)} of {len(taken)} damaged inputs are read all the same, seed {SEED}")


def checkpoint(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


DEEP = b"[" * 100_000
ONCE_FATAL = {
    "tokens nested deeply": ("tokens", DEEP),
    "a token made at a time that is no float": (
        "tokens",
        b'{"tokens":[{"name":"a","role":"viewer","sha256":"","created":' + b"9" * 400 + b"}]}",
    ),
    "what a server writes down, nested deeply": ("access", DEEP),
    "what a server writes down, of another type": ("access", b'[{"url":1}]'),
    "a line of an applied log that is nothing but its seal": ("applied-log", b',"seal":"353d8d264a339b9e"}\n'),
    "a configuration nested deeply": ("config", b'{"data":' + DEEP),
    "a checkpoint's header nested deeply": ("checkpoint", checkpoint(DEEP)),
    "a checkpoint of an infinite step": (
        "checkpoint",
        checkpoint(json.dumps({"__metadata__": {"run": '{"values":{"step":1e999,"rev":0}}', "digest": ""}}).encode()),
    ),
}
"""What has once got past a reader's own error."""


@pytest.mark.parametrize("what", ONCE_FATAL)
def test_what_was_once_fatal_is_refused_or_passed_over(every: dict[str, Reader], what: str) -> None:
    name, data = ONCE_FATAL[what]
    assert held_to(every[name], data) is (name == "access")


HOSTILE = {
    "deep lists": b"\x91" * MAX_MESSAGE_BYTES,
    "deep maps": b"\x81\xa1a" * (MAX_MESSAGE_BYTES // 3),
    "a list without end": b"\xdd\xff\xff\xff\xff" + b"\xc0" * 100,
    "bytes without end": b"\xc6\xff\xff\xff\xff",
    "a map without end": b"\xdf\xff\xff\xff\xff\xa4type\xa5frame",
    "a name of eight megabytes": b"\x81\xdb"
    + struct.pack(">I", MAX_MESSAGE_BYTES - 6)
    + b"x" * (MAX_MESSAGE_BYTES - 6),
    "the same field a million times": b"\xde\xff\xff" + b"\xa4type\xa4ping" * 65535,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_that_is_sent_takes_long_or_much_memory_to_refuse(name: str) -> None:
    data = HOSTILE[name]
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(DecodeError):
        codec.decode(data)
    spent, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MAX_MESSAGE_BYTES
    assert spent < 2


@seed(SEED)
@given(RANDOM, st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=8))
@often
def test_a_torn_or_flipped_run_log_gives_the_records_before_the_damage_or_says_where_it_is(
    folder: Path, random: Random, written: list[bytes]
) -> None:
    whole = records.MAGIC + b"".join(records.record(data) for data in written)
    held = bytearray(whole)
    if random.random() < 0.5:
        del held[random.randrange(len(records.MAGIC), len(held)) :]
    else:
        held[random.randrange(len(records.MAGIC), len(held))] ^= 1 << random.randrange(8)
    path = folder / "torn.log"
    path.write_bytes(held)
    reader = RunLogReader(path)
    found: list[bytes] = []
    said = "damaged at byte 0"
    try:
        found.extend(record.data for record in reader.records())
    except RunLogError as error:
        said = str(error)
    finally:
        reader.close()
    assert re.search(r"damaged at byte \d+", said)
    assert found == written[: len(found)]
    assert len(found) < len(written)


def guided(name: str, runs: int, folder: Path) -> None:
    """Let the coverage-guided fuzzer read."""
    here = folder / f"guided-{name}"
    here.mkdir()
    words = [sys.executable, str(Path(__file__).with_name("guided.py")), name, str(runs), str(SEED), str(here)]
    began = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, timeout=1500)
    told = done.stderr + done.stdout
    assert done.returncode == 0, told[-6000:]
    seconds = time.monotonic() - began
    covered = re.findall(r"cov: (\d+) ft: (\d+)", told)[-1]
    found = re.search(r"Done (\d+) runs", told)
    assert found is not None, told[-6000:]
    count = int(found[1])
    assert count >= runs
    assert int(covered[0]) > 2, "nothing of ours was covered: is it still instrumented?"
    print(
        f"{name}: {count:,} inputs in {seconds:.0f} s, {count / seconds:,.0f} a second; {covered[0]} places and "
        f"{covered[1]} ways covered; seed {SEED}"
    )


def test_a_fuzzer_that_sees_what_it_covers_finds_nothing(folder: Path) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(guided, ("message", "any"), (10_000, 4_000), (folder, folder)))


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_a_fuzzer_that_sees_what_it_covers_finds_nothing_in_the_long_count(name: str, folder: Path) -> None:
    guided(name, LONG.get(name, OTHERS), folder)


def test_the_long_counts_make_up_nine_tenths_of_a_million() -> None:
    assert sum(LONG.get(name, OTHERS) for name in NAMES) >= 900_000
