"""What a run may be asked for by name: the one list of data sets and models, with a word about each.

Loads nothing, so that a command line can show it without waiting for the engine.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

DataName: TypeAlias = Literal["needle", "fashion", "digits", "motif"]
ModelName: TypeAlias = Literal["z_cam", "z_cnn", "z_mlp", "z_lstm"]

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


def listed(choices: dict[DataName, str] | dict[ModelName, str]) -> str:
    """Return names and words as a line of help: ``needle (endless ...), fashion (...)``."""
    return ", ".join(f"{name} ({word})" for name, word in choices.items())
