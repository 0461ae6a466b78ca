"""A real engine that is steered by a plan through its own inbox, as a courier would; tests begin, kill and resume it.

Run as a script by `spawn`. The plan holds (step, verb, sets): each command is sent after that update, so that it
belongs to the next one. A resumed engine is sent all of it again, as by a server that has not heard the answers.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spiral_core.engine.config import RunConfig
from spiral_core.engine.state import RunState
from spiral_core.engine.step import Evaluation, UpdateReport
from spiral_core.link import resume, runner
from spiral_core.link.inbox import Inbox
from spiral_core.wire import codec
from spiral_core.wire.messages import Command
from spiral_core.wire.parts import Setting

Plan = Sequence[tuple[int, str, dict[str, Any]]]

EVERY_KIND: Plan = (
    (3, "set", {"optim.lr": 0.02}),
    (7, "set", {"zspace.gain": 0.6}),
    (11, "set", {"zspace.curvature": -2.0}),
    (15, "pause", {}),
    (15, "resume", {}),
    (19, "set", {"optim.mode": "realgrad"}),
    (24, "set", {"optim.clip_norm": 0.7, "optim.weight_decay": 1e-3}),
    (27, "set", {"amp.precision": "float16"}),
    (31, "set", {"zspace.zbn2.gain": 0.1}),
    (34, "set", {"data.batch_size": 12}),
    (38, "set", {"zspace.auto_gain": 0.7}),
    (42, "set", {"amp.precision": "float32"}),
    (44, "set", {"optim.mode": "riemannian"}),
    (44, "set", {"optim.lr": 0.5}),
    (52, "set", {"optim.momentum": 0.5}),
    (55, "set", {"freeze.conv1": True}),
    (58, "set", {"zspace.auto_gain": 0.0, "zspace.gain": 0.3}),
    (63, "set", {"xai.every": 20}),
    (66, "pause", {}),
    (66, "set", {"optim.lr": 0.3}),
    (66, "resume", {}),
    (71, "set", {"optim.mode": "hypergrad"}),
    (74, "set", {"data.batch_size": 24, "amp.precision": "bfloat16"}),
    (77, "set", {"telemetry.budget": 50.0}),
    (83, "set", {"optim.mode": "euclidean", "optim.lr": 0.01}),
    (86, "set", {"freeze.conv1": False}),
    (90, "set", {"zspace.curvature": -0.5}),
    (95, "set", {"optim.clip_norm": 0.0}),
)
"""Every kind of steering, over a hundred steps of ``z_cnn``."""


def send(pipe: int, number: int, verb: Any, sets: dict[str, Any]) -> None:
    """Put a command into the pipe of an inbox, as a courier does."""
    settings = [Setting(knob=knob, value=value) for knob, value in sets.items()]
    told = Command(run="r", number=number, id=f"c{number}", verb=verb, sets=settings, actor="me", source="ui", time=0.0)
    data = codec.encode(told)
    os.write(pipe, struct.pack("<I", len(data)) + data)


def follow(plan: Plan, start: resume.Start, options: runner.Options, *, say: bool = False) -> runner.Result:
    """Train while a plan is sent into the inbox."""
    pipes: list[int] = []

    class Open(Inbox):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            # The engine closes its own end once its courier has one.
            pipes.append(os.dup(self.write_end))

    def listen(state: RunState, _report: UpdateReport, _evaluation: Evaluation | None) -> None:
        for number, (step, verb, sets) in enumerate(plan, start=1):
            if step == state.step:
                send(pipes[0], number, verb, sets)
        if say:
            print(state.step, flush=True)

    plain, runner.Inbox = runner.Inbox, Open  # type: ignore[misc]
    try:
        return runner.train_from(start, options, listen)
    finally:
        runner.Inbox = plain  # type: ignore[misc]
        os.close(pipes[0])


def steered(logdir: Path, config: RunConfig, plan: Plan, run: str | None = None, **options: Any) -> runner.Result:
    """Begin or resume a run in this process and follow a plan until its end."""
    start = resume.begin(logdir, config, "") if run is None else resume.reopen(logdir, run)
    return follow(plan, start, runner.Options(logdir=logdir, **options))


def spawn(logdir: Path, config: RunConfig, plan: Plan, *words: str) -> subprocess.Popen[str]:
    """Start an engine of its own; it prints the number of each update."""
    told = logdir / "told.json"
    told.write_bytes(codec.to_json({"config": config, "plan": plan}))
    return subprocess.Popen(
        [sys.executable, __file__, str(logdir), str(told), *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


def main(logdir: str, told: str, *words: str) -> None:
    held = json.loads(Path(told).read_text())
    config = resume.from_fields(held["config"])
    run, *rest = words or ("",)
    start = resume.reopen(Path(logdir), run) if run else resume.begin(Path(logdir), config, "")
    server, token = rest or (None, "")
    options = runner.Options(logdir=Path(logdir), checkpoint_every=20, hash_every=10, server=server, token=token)
    follow(held["plan"], start, options, say=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
