"""Packets written by Python that the page's own codec must read: `tests/golden/wire`.

``python tests/frontend/golden_wire.py`` writes them; a test fails when they are stale. Each ``NAME.bin`` is a packet
and ``NAME.json`` says what is in it, as `spiral_core.wire.codec.plain` writes messages.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from spiral_core.wire import codec
from spiral_core.wire import messages as m
from spiral_core.wire import parts
from spiral_core.xai.resize import resize_bilinear

FOLDER = Path(__file__).parents[1] / "golden" / "wire"
HOUR = 1_700_000_000.25
"""A wall time with a fraction that binary floats hold exactly."""


def logged(seq: int, step: int) -> dict[str, Any]:
    return {"run": "r-1", "incarnation": 0, "seq": seq, "step": step, "time": HOUR + step}


def frame(seq: int, step: int, values: list[float]) -> m.Frame:
    index = parts.Array.of(np.arange(len(values)), "<u2")
    return m.Frame(**logged(seq, step), index=index, values=parts.Array.of(np.array(values), "<f8"))


def series() -> list[parts.SeriesSpec]:
    rows = [("train/loss", "loss", "linear"), ("optim/learning_rate", "learning_rate", "log")]
    return [
        parts.SeriesSpec(index=index, name=name, unit="", group=group, scale=scale, help=f"Help of {name}.")  # type: ignore[arg-type]
        for index, (name, group, scale) in enumerate(rows)
    ]


def knob(name: str, value: parts.Value | None, since: int = 1) -> parts.KnobSpec:
    return parts.KnobSpec(
        name=name,
        type="float",
        unit="",
        scale="linear",
        low=0.0,
        high=1.0,
        step=0.01,
        boundary="step",
        group="zspace",
        help="投影ゲイン: 0 is Euclidean.",
        value=value,
        since=since,
    )


def record(number: int, state: parts.CommandState, **changed: Any) -> m.CommandRecord:
    base: dict[str, Any] = {
        "run": "r-1",
        "number": number,
        "id": f"c{number}",
        "verb": "set",
        "sets": [parts.Setting(knob="zspace.gain", value=0.2)],
        "actor": "",
        "source": "ui",
        "time": HOUR,
        "incarnation": 0,
        "state": state,
        "by": None,
        "step": None,
        "changes": [],
        "reason": "",
        "rev": None,
    }
    return m.CommandRecord(**{**base, **changed})


def applied() -> m.CommandRecord:
    return record(1, "applied", step=3, rev=1, changes=[parts.Change(knob="zspace.gain", old=None, in_force=0.2)])


def guarded() -> list[m.CommandRecord]:
    """Give what guards did at step 9: an alarm, and a rollback that has cut the rate."""
    cut = parts.Change(knob="optim.lr", old=1000.0, in_force=0.015)
    own: dict[str, Any] = {"actor": "guard", "source": "guard", "rev": 2}
    return [
        record(-1, "applied", verb="rollback", sets=[], step=10, changes=[cut], reason="explosion: 9 > 1", **own),
        record(-2, "applied", verb="mark", sets=[], step=9, changes=[], reason="spike: 9 > 4", **own),
    ]


def guard(*, on: bool) -> parts.GuardSpec:
    return parts.GuardSpec(name="spike", text=f"spike: {'' if on else 'off '}when train.loss > 4 mark", on=on)


def heat_maps(step: int) -> m.HeatMaps:
    maps = np.linspace(-0.5, 1.0, 2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    return m.HeatMaps(
        **logged(9, step),
        method="gradcam",
        layer="relu3",
        maps=parts.Array.of(maps, "<f4"),
        raw_min=[-0.5, 0.25],
        raw_max=[0.125, 1.0],
        logit=[3.5, 2.0],
        probability=[0.75, 0.5],
        predicted=[0, 1],
        labels=[0, 0],
        pointing=[1.0, 0.0],
        energy_over_area=[6.25, math.nan],
    )


def probe(masks: bool) -> m.ProbeBatch:
    images = np.linspace(0, 1, 2 * 4 * 4, dtype=np.float32).reshape(2, 4, 4, 1)
    where = parts.Array.of(np.eye(4, dtype=np.uint8)[None].repeat(2, 0), "|u1") if masks else None
    return m.ProbeBatch(**logged(2, 0), images=parts.Array.of(images, "<f4"), labels=[0, 0], masks=where)


def strip() -> m.Strip:
    values = parts.Array.of(np.array([0.0, 0.5, np.nan, 0.875]), "<f4")
    return m.Strip(**logged(8, 3), name="zspace/zbn1/feature_radius", values=values)


def column(index: int, steps: list[int], values: list[float], *, reduced: bool = False) -> parts.Column:
    packed = [parts.Array.of(np.array(part, dtype=float), "<f8") for part in (steps, values)]
    return parts.Column(index=index, steps=packed[0], values=packed[1], reduced=reduced)


def summary(status: parts.RunStatus = "training") -> parts.RunSummary:
    return parts.RunSummary(
        id="r-1",
        name="needle 針",
        status=status,
        step=3,
        total_steps=0,
        model="z_cam",
        data="needle",
        created=HOUR,
        updated=HOUR + 3,
        detail="",
        connected=True,
    )


def snapshot() -> m.Snapshot:
    started = m.RunStarted(
        **logged(0, 0),
        name="needle 針",
        model="z_cam",
        data="needle",
        total_steps=0,
        config={"seed": 7, "optimizer": {"lr": 0.003, "betas": [0.9, 0.999]}, "note": None, "amp": False},
        class_names=["plus", "ring"],
        layers=[parts.ZLayer(name="zbn1", features=4)],
        environment={"numpy": "2"},
    )
    return m.Snapshot(
        run=summary(),
        epoch="e1",
        number=12,
        incarnation=0,
        seq=9,
        rev=1,
        started=started,
        status=m.StatusChanged(**logged(1, 0), status="training", done=0, total=0, detail=""),
        series=series(),
        columns=[column(0, [1, 2, 3], [2.5, math.nan, math.inf]), column(1, [1, 3], [1e-300, 0.003], reduced=True)],
        knobs=[knob("zspace.gain", None, 3), knob("zspace.zbn1.gain", 0.2, 3)],
        guards=[guard(on=True)],
        thinned=[m.Thinned(**logged(2, 3), first_step=1, frames=3, stretch=512)],
        commands=[applied(), record(2, "rejected", reason="out of bounds")],
        probe=probe(masks=True),
        heat_maps=heat_maps(3),
        strips=[strip()],
        checkpoints=[checkpoint(7, 2, "step-00000002.safetensors")],
    )


def checkpoint(seq: int, step: int, *files: str) -> m.CheckpointSaved:
    """Give word of a checkpoint; ``files`` are those that are there now, the new one last."""
    told = {"size": 324_808, "digest": "00", "reason": "every", "rev": 1}
    return m.CheckpointSaved(**logged(seq, step), **told, file=files[-1], files=list(files))


def packets() -> dict[str, list[m.Message]]:
    """Give every golden packet by name."""
    special = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 0.1]
    return {
        "greeting": [m.ViewWelcome(protocol=1, instance="i", server="0.1.0"), m.RunsListed(runs=[summary("lost")])],
        "heartbeat": [m.Ping(time=12.5), m.Pong(time=3.0)],
        "snapshot": [snapshot()],
        "bare-snapshot": [
            m.Snapshot(
                run=summary("starting"),
                epoch="e1",
                number=0,
                incarnation=0,
                seq=-1,
                rev=0,
                started=None,
                status=None,
                series=[],
                columns=[],
                knobs=[],
                guards=[],
                thinned=[],
                commands=[],
                probe=None,
                heat_maps=None,
                strips=[],
                checkpoints=[],
            )
        ],
        "deltas": [
            m.Tick(run="r-1", number=70_000),
            frame(10, 4, special[:2]),
            frame(11, 5, [1.5]),
            strip(),
            heat_maps(5),
            probe(masks=False),
            m.StatusChanged(**logged(12, 5), status="paused", done=0, total=0, detail=""),
            m.KnobsDeclared(**logged(13, 5), knobs=[knob("zspace.gain", 0.5)], rev=2),
            m.SeriesDeclared(**logged(14, 5), series=series()),
            m.RunChanged(run=summary("lost")),
            m.GuardsDeclared(**logged(15, 5), guards=[guard(on=False)]),
            checkpoint(16, 5, "step-00000002.safetensors", "step-00000005.safetensors"),
        ],
        "numbers": [frame(2**40, 2**33, special)],
        "commands": [
            record(3, "accepted", at_step=40, expected_rev=1),
            applied(),
            record(2, "rejected", reason="理由"),
            record(4, "superseded", by=5, rev=1),
            record(6, "expired", verb="step", sets=[], steps=10, reason="the run ended"),
            *guarded(),
        ],
        "steered": [
            m.Steered(id="c3", status=202, record=record(3, "accepted"), reason="", rev=None, values={}),
            m.Steered(id="c4", status=409, record=None, reason="古い", rev=2, values={"zspace.gain": 0.25}),
            m.Steered(
                id="c2", status=422, record=record(2, "rejected", reason="理由"), reason="理由", rev=None, values={}
            ),
        ],
        "resumed": [m.Resumed(run="r-1", since=12), m.Tick(run="r-1", number=14), frame(10, 4, special[:2])],
        "merged": [
            m.Tick(run="r-1", number=2),
            m.Merged(run="r-1", step=44, time=HOUR, frames=40, columns=[column(0, [4, 9, 44], [0.5, math.nan, 9.0])]),
        ],
    }


def upsampled() -> dict[str, Any]:
    """Give maps enlarged by the engine's own resize, which the page's must match."""
    cases = []
    for shape, target in (((3, 4), (7, 9)), ((2, 2), (4, 4)), ((1, 5), (3, 15)), ((14, 14), (28, 28))):
        generator = np.random.default_rng(5)
        small = generator.normal(size=shape).astype(np.float32)
        large = resize_bilinear(small, *target)
        cases.append({"small": small.tolist(), "large": large.tolist()})
    return {"cases": cases}


def files() -> dict[str, bytes]:
    """Give the bytes of every file of the folder."""
    found: dict[str, bytes] = {"upsampled.json": json.dumps(upsampled()).encode() + b"\n"}
    for name, said in packets().items():
        found[f"{name}.bin"] = codec.encode_packet(said)
        text = json.dumps([codec.plain(message) for message in said], ensure_ascii=False, indent=1)
        found[f"{name}.json"] = text.encode() + b"\n"
    return found


def main() -> None:
    """Write the folder."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, data in files().items():
        (FOLDER / name).write_bytes(data)


if __name__ == "__main__":
    main()
