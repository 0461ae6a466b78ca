"""The training loop: what belongs to which update."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spiral_core import kernels
from spiral_core.data import Batch
from spiral_core.engine.config import for_data
from spiral_core.engine.state import RunState, initial_state
from spiral_core.link.applied import AppliedLog
from spiral_core.link.inbox import Inbox
from spiral_core.link.recorder import Recorder
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogReader, RunLogWriter
from spiral_core.link.runner import Options, _Loop
from spiral_core.link.spawn import Line
from spiral_core.wire import codec
from spiral_core.wire.messages import Ack, Command, Frame, SeriesDeclared
from spiral_core.wire.parts import Setting


def steer(inbox: Inbox, gain: float) -> None:
    told = Command(
        run="r",
        number=1,
        id="a",
        verb="set",
        sets=[Setting(knob="zspace.gain", value=gain)],
        actor="",
        source="ui",
        time=0.0,
    )
    data = codec.encode(told)
    os.write(inbox.write_end, struct.pack("<I", len(data)) + data)


def trained(state: RunState, inbox: Inbox, rundir: RunDir, *, dump_every: int) -> list[object]:
    """Run the real loop without a server; give the messages of its log."""
    log = RunLogWriter(rundir.frames, run="r", incarnation=0, clock=time.time)
    applied = AppliedLog(rundir.applied)
    line = Line(rundir, incarnation=0, server=None, token="", inbox=inbox)
    options = Options(logdir=rundir.path, dump_every=dump_every)
    _Loop(state, options, inbox, line, Recorder(log, state), applied, rundir.dumps, None).run("a run")
    log.close()
    applied.close()
    return [codec.decode(record.data) for record in RunLogReader(rundir.frames).records()]


def test_what_is_steered_during_an_evaluation_belongs_to_the_next_update(tmp_path: Path) -> None:
    """The dump of the steered update is that of the update which used the new value, and so is its frame."""
    state = initial_state(for_data("needle", batch_size=8, steps=3, evaluate_every=1, xai_every=0))
    inbox = Inbox()
    held_out = state.dataset.test_batches

    def steered_once() -> Iterator[Batch]:
        if state.step == 1:
            steer(inbox, 0.25)
        return held_out()

    state.dataset.test_batches = steered_once  # type: ignore[method-assign]
    rundir = RunDir(path=tmp_path, id="r")
    said = trained(state, inbox, rundir, dump_every=1000)

    (ack,) = [message for message in said if isinstance(message, Ack)]
    assert (ack.state, ack.step) == ("applied", 2)
    assert [path.name for path in rundir.dumps.iterdir()] == ["step-00000002.npz"]
    with np.load(rundir.dumps / "step-00000002.npz") as held:
        assert float(held["gain/zbn1"]) == 0.25
        assert float(held["weights/zbn1.projector_gain"]) == 0.25
    assert [message.step for message in said if isinstance(message, Frame)] == [1, 2, 3]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_on_narrow_numbers_warms_their_kernel_and_shows_its_scale_and_only_such_a_run(
    tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed: list[str] = []
    warm = kernels.warm

    def listen(names: Sequence[str], *rest: Any) -> None:
        warmed.extend(names)
        warm(names, *rest)

    monkeypatch.setattr(kernels, "warm", listen)
    state = initial_state(for_data("needle", batch_size=8, steps=2, evaluate_every=0, xai_every=0, precision=precision))
    said = trained(state, Inbox(), RunDir(path=tmp_path, id="r"), dump_every=0)

    narrow = precision != "float32"
    assert ("narrow" in warmed) == narrow
    (declared,) = [message.series for message in said if isinstance(message, SeriesDeclared)]
    index = {spec.name: spec.index for spec in declared if spec.name.startswith("amp/")}
    assert sorted(index) == (["amp/scale", "amp/skipped"] if narrow else [])
    for frame in (message for message in said if isinstance(message, Frame)):
        indices, packed = (np.frombuffer(array.data, array.dtype) for array in (frame.index, frame.values))
        values = dict(zip(indices.tolist(), packed.tolist(), strict=True))
        assert [values[index[name]] for name in sorted(index)] == ([65536.0, 0.0] if narrow else [])
