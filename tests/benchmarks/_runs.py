"""Runs that nobody has trained: run logs written by the real writer, and a server in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogWriter
from spiral_core.wire import codec
from spiral_core.wire.messages import Frame, KnobsDeclared, RunStarted, SeriesDeclared, StatusChanged
from spiral_core.wire.parts import Array, SeriesSpec
from spiral_server.store.protocol import Entry


def declared(count: int) -> list[SeriesSpec]:
    """Declare some curves: those that every run has come first."""
    names = ["train/loss", "train/accuracy", "optim/gradient_norm", "optim/learning_rate"]
    names += [f"bench/s{k}" for k in range(len(names), count)]
    return [
        SeriesSpec(index=k, name=name, unit="", group=name.split("/")[1], scale="linear", help="")
        for k, name in enumerate(names[:count])
    ]


def write_run(folder: Path, values: np.ndarray) -> RunDir:
    """Write a run whose frames are the rows of ``values``."""
    here = RunDir(path=folder, id=folder.name)
    folder.mkdir(parents=True)
    here.config.write_text("{}")
    log = RunLogWriter(here.frames, run=here.id, incarnation=0, clock=time.time)
    count = values.shape[1]
    log.append(
        RunStarted,
        0,
        name=here.id,
        model="none",
        data="none",
        total_steps=len(values),
        config={},
        class_names=[],
        layers=[],
        environment={},
    )
    log.append(SeriesDeclared, 0, series=declared(count))
    log.append(KnobsDeclared, 0, knobs=[], rev=0)
    log.append(StatusChanged, 0, status="training", done=0, total=len(values), detail="")
    index = Array.of(np.arange(count), "<u2")
    for step, row in enumerate(values, start=1):
        log.append(Frame, step, index=index, values=Array.of(row, "<f8"))
    log.append(StatusChanged, len(values), status="finished", done=len(values), total=len(values), detail="")
    log.close()
    return here


def entries_of(run: str, values: np.ndarray) -> Iterator[Entry]:
    """Give what an engine would have said, encoded, with the rows of ``values`` as frames."""
    count = values.shape[1]
    head = {"run": run, "incarnation": 0, "time": 1.7e9}
    opening = [
        RunStarted(
            **head,
            seq=0,
            step=0,
            name=run,
            model="none",
            data="none",
            total_steps=len(values),
            config={},
            class_names=[],
            layers=[],
            environment={},
        ),
        SeriesDeclared(**head, seq=1, step=0, series=declared(count)),
        KnobsDeclared(**head, seq=2, step=0, knobs=[], rev=0),
    ]
    index = Array.of(np.arange(count), "<u2")
    for message in opening:
        yield Entry(message, codec.encode(message))
    for step, row in enumerate(values, start=1):
        frame = Frame(**head, seq=2 + step, step=step, index=index, values=Array.of(row, "<f8"))
        yield Entry(frame, codec.encode(frame))
    last = len(values)
    end = StatusChanged(**head, seq=3 + last, step=last, status="finished", done=last, total=last, detail="")
    yield Entry(end, codec.encode(end))


@dataclass
class Serving:
    """A server that runs."""

    process: subprocess.Popen[str]
    url: str
    token: str

    @property
    def cpu_seconds(self) -> float:
        """Give the processor time that it has taken so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(logdir: Path, *, core: int | None = None) -> Iterator[Serving]:
    """Run a server on a directory, on one core if asked."""
    words = [sys.executable, "-m", "spiral_server.cli", "serve", "--port", "0", "--logdir", str(logdir)]
    pin = None if core is None else (lambda: os.sched_setaffinity(0, {core}))
    with (logdir.parent / "server.stderr").open("w") as said:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, text=True, preexec_fn=pin)
    assert process.stdout is not None
    page = process.stdout.readline().strip()
    try:
        yield Serving(process, page.split("/?")[0], page.split("token=")[1])
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
