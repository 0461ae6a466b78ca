"""What a run may be asked for by name: the one list of data sets and models, with a word about each, and of rules.

Loads nothing, so that a command line can show it without waiting for the engine.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

DataName: TypeAlias = Literal["needle", "fashion", "digits", "motif"]
ModelName: TypeAlias = Literal["z_cam", "z_cnn", "z_mlp", "z_lstm"]
OptimizerName: TypeAlias = Literal["adam", "sgd"]
ModeName: TypeAlias = Literal["euclidean", "realgrad", "hypergrad", "riemannian"]
ScheduleName: TypeAlias = Literal["constant", "warmup-cosine", "restart"]
PrecisionName: TypeAlias = Literal["float32", "float16", "bfloat16"]

DATA: Final[dict[DataName, str]] = {
    "needle": "endless images with known objects",
    "fashion": "Fashion-MNIST, 28x28",
    "digits": "handwritten digits, 8x8",
    "motif": "endless 1-D signals with known motifs",
}
MODELS: Final[dict[ModelName, str]] = {
    "z_cam": "convolutions and an average over space",
    "z_cnn": "convolutions and pooling",
    "z_mlp": "fully connected",
    "z_lstm": "recurrent over columns or time",
}
OPTIMIZERS: Final[tuple[str, ...]] = get_args(OptimizerName)
MODES: Final[tuple[str, ...]] = get_args(ModeName)
SCHEDULES: Final[tuple[str, ...]] = get_args(ScheduleName)
PRECISIONS: Final[tuple[str, ...]] = get_args(PrecisionName)


def listed(choices: dict[DataName, str] | dict[ModelName, str]) -> str:
    """Return names and words as a line of help: ``needle (endless ...), fashion (...)``."""
    return ", ".join(f"{name} ({word})" for name, word in choices.items())
