"""What a run can be asked for: the one declaration behind the command line, the HTTP interface and the page's form.

Only names, types and words stand here. Whether values go together, and what a data set makes of those that are left
out, is the engine's business: it loads the models for that, which no server does.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from spiral_core.choices import DATA, MODELS, MODES, OPTIMIZERS, PRECISIONS, SCHEDULES, listed
from spiral_core.wire.parts import Struct

Kind: TypeAlias = Literal["text", "number", "whole", "switch", "lines"]
"""``lines`` are texts, any number of them."""

_KINDS: dict[object, Kind] = {str: "text", float: "number", int: "whole", bool: "switch", list[str]: "lines"}
Counted: TypeAlias = Annotated[int, Meta(ge=0)]
Positive: TypeAlias = Annotated[int, Meta(ge=1)]
Threads: TypeAlias = Annotated[int, Meta(ge=1, le=1024)]
"""More than any machine of today can use: who asks for a million must not bring the server's machine down."""


class TrainingRequest(Struct, frozen=True, kw_only=True):
    """A run to be trained; what is left out is as the data set and the model have it."""

    data: Annotated[str, Meta(description=f"Data set: {listed(DATA)}.")] = "needle"
    model: Annotated[str | None, Meta(description=f"Model: {listed(MODELS)}; the data set's own by default.")] = None
    epochs: Annotated[Positive | None, Meta(description="Passes over the data.")] = None
    steps: Annotated[Counted | None, Meta(description="Updates; 0 means until stopped.")] = None
    seed: Annotated[Counted, Meta(description="Seed of everything random.")] = 0
    lr: Annotated[float | None, Meta(description="Learning rate; with a schedule the highest one.")] = None
    optimizer: Annotated[str | None, Meta(description="adam or sgd.")] = None
    mode: Annotated[str | None, Meta(description="Steps: euclidean, realgrad, hypergrad or riemannian.")] = None
    momentum: Annotated[float | None, Meta(description="Momentum of sgd.")] = None
    weight_decay: Annotated[float | None, Meta(description="L2 penalty; norms and biases do not decay.")] = None
    clip_norm: Annotated[float | None, Meta(description="Largest norm of all gradients together; 0: any.")] = None
    schedule: Annotated[str | None, Meta(description="Rates: constant, warmup-cosine or restart.")] = None
    warmup_steps: Annotated[int | None, Meta(description="Steps in which the rate rises in a line.")] = None
    min_lr: Annotated[float | None, Meta(description="Learning rate that a cosine falls to.")] = None
    schedule_steps: Annotated[int | None, Meta(description="Steps until a cosine is down; 0: all of the run.")] = None
    batch_size: Annotated[int | None, Meta(description="Images per update.")] = None
    gain: Annotated[float | None, Meta(description="Projector gain at the start, 0 to 1.")] = None
    auto_gain: Annotated[float | None, Meta(description="Mean radius to steer the gains to, say 0.7; 0: off.")] = None
    curvature: Annotated[float | None, Meta(description="Curvature, below 0.")] = None
    evaluate_every: Annotated[int | None, Meta(description="Steps between evaluations; 0: never.")] = None
    xai_every: Annotated[int | None, Meta(description="Steps between Grad-CAM probes; 0: never.")] = None
    precision: Annotated[str | None, Meta(description="Of products: float32, float16 or bfloat16.")] = None
    rate: Annotated[float | None, Meta(description="Most steps per second; 0: no limit.")] = None
    telemetry_budget: Annotated[float | None, Meta(description="Percent of the time for observing; 0: off.")] = None
    guards: Annotated[list[str] | None, Meta(description="A further guard rule; repeatable.")] = None
    no_guards: Annotated[bool, Meta(description="Without the guard rules of the start.")] = False
    name: Annotated[str, Meta(description="Name shown for the run.")] = ""
    threads: Annotated[Threads | None, Meta(description="Compute threads; all cores but one by default.")] = None
    dump_every: Annotated[Counted, Meta(description="Steps between dumps of weights and passes; 0: none.")] = 0
    checkpoint_every: Annotated[Counted, Meta(description="Steps between checkpoints; 0: only at the end.")] = 1000
    keep: Annotated[Positive, Meta(description="Checkpoints that stay.")] = 3
    keep_on_steer: Annotated[bool, Meta(description="Also take one at each steer, which stays for good.")] = False
    hash_every: Annotated[Counted, Meta(description="Steps between digests of the weights, for replays.")] = 100
    log_limit: Annotated[
        Counted, Meta(description="Megabytes of run log; beyond it old frames are merged. 0: no bound.")
    ] = 2000
    start_paused: Annotated[bool, Meta(description="Wait for resume or step.")] = False


class TrainingOption(Struct, frozen=True, kw_only=True):
    """One field of a `TrainingRequest`, as a command line or a form offers it."""

    name: str
    flag: str
    """As it is written on a command line."""
    kind: Kind
    default: bool | int | float | str | None
    """None leaves the choice to the data set and the model."""
    least: int | None
    most: int | None
    choices: list[str]
    """Empty where any value of the kind may be given."""
    help: str


_CHOICES: dict[str, list[str]] = {
    "data": list(DATA),
    "model": list(MODELS),
    "optimizer": list(OPTIMIZERS),
    "mode": list(MODES),
    "schedule": list(SCHEDULES),
    "precision": list(PRECISIONS),
}
_FLAGS = {"guards": "--guard"}


@cache
def training_options() -> tuple[TrainingOption, ...]:
    """List what a run can be asked for, in the order of the declaration."""
    hints = get_type_hints(TrainingRequest, include_extras=True)
    return tuple(_option(field, hints[field.name]) for field in msgspec.structs.fields(TrainingRequest))


def _option(field: msgspec.structs.FieldInfo, hint: Any) -> TrainingOption:  # noqa: ANN401 - a type as `typing` has it
    bare, *metas = get_args(hint)
    if get_origin(bare) in (types.UnionType, Union):
        bare = next(part for part in get_args(bare) if part is not type(None))
        if get_origin(bare) is Annotated:
            bare, *inner = get_args(bare)
            metas += inner
    return TrainingOption(
        name=field.name,
        flag=_FLAGS.get(field.name, "--" + field.name.replace("_", "-")),
        kind=_KINDS[bare],
        default=field.default,
        least=next((meta.ge for meta in metas if meta.ge is not None), None),
        most=next((meta.le for meta in metas if meta.le is not None), None),
        choices=_CHOICES.get(field.name, []),
        help=next(meta.description for meta in metas if meta.description is not None),
    )


def training_words(given: Mapping[str, Any]) -> list[str]:
    """Write what a run is asked for as arguments of ``spiral train``; other names are left out."""
    words: list[str] = []
    for option in training_options():
        value = given.get(option.name)
        if option.kind == "switch":
            words += [option.flag] if value else []
        elif value is not None:
            words += [f"{option.flag}={one}" for one in (value if option.kind == "lines" else [value])]
    return words
