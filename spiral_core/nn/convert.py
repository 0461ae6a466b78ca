"""Arrays from PyTorch: channels-first images, and state dicts of its layers. PyTorch itself is not needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from spiral_core.arrays import AnyArray, Float
from spiral_core.errors import ArgumentError, ShapeError, StateDictError
from spiral_core.nn.conv import Conv2d
from spiral_core.nn.linear import Linear
from spiral_core.nn.module import Module
from spiral_core.nn.recurrent import Lstm
from spiral_core.nn.sequential import Sequential

Turn: TypeAlias = Callable[[AnyArray], AnyArray]

IGNORED = "num_batches_tracked"
"""A counter of PyTorch's batch norms that says nothing about what was learnt."""


def to_nhwc(images: AnyArray) -> AnyArray:
    """Return channels-first images (N, C, H, W) as a contiguous copy (N, H, W, C).

    Raises
    ------
    ShapeError
        Not four axes.
    """
    return _moved(images, "(N, C, H, W)", (0, 2, 3, 1))


def to_nchw(images: AnyArray) -> AnyArray:
    """Return channels-last images (N, H, W, C) as a contiguous copy (N, C, H, W).

    Raises
    ------
    ShapeError
        Not four axes.
    """
    return _moved(images, "(N, H, W, C)", (0, 3, 1, 2))


def _moved(images: AnyArray, axes: str, order: tuple[int, ...]) -> AnyArray:
    if images.ndim != 4:
        raise ShapeError(f"images must be {axes}, got shape {images.shape}; add the missing axis")
    return images.transpose(order).copy()


def from_torch_state_dict(
    module: Module,
    arrays: Mapping[str, AnyArray],
    *,
    names: Mapping[str, str] | None = None,
    flattened: Mapping[str, tuple[int, int, int]] | None = None,
) -> None:
    """Load the arrays of a PyTorch state dict into a layer or a chain; all of them or nothing.

    Parameters
    ----------
    module : Module
        A `Linear`, `Conv2d`, `Lstm` or norm, or a `Sequential` of layers.
    arrays : dict of arrays
        ``{name: tensor.numpy() for name, tensor in torch_module.state_dict().items()}``. Of a single layer the names
        are PyTorch's own (``"weight"``); of a chain each has the layer's name and a dot before it. Values are
        converted to the module's dtype.
    names : dict, optional
        PyTorch's name of a layer, by ours, where they differ: ``{"conv1": "features.0"}``. Of a chain only.
    flattened : dict, optional
        (C, H, W) of the images that were flattened before a `Linear`, by our name of that layer. PyTorch flattens
        channels first and we channels last, so the rows of its weight have to be reordered.

    Raises
    ------
    StateDictError
        A name missing or unknown, a wrong shape, a value that is not finite, or two dtypes. Nothing was loaded.
    ArgumentError
        ``names`` or ``flattened`` speak of a layer that is not there.

    Notes
    -----
    =========  ==========================================  ===========================================
    layer      PyTorch                                     here
    =========  ==========================================  ===========================================
    Linear     weight (O, I)                               weight (I, O)
    Conv2d     weight (O, C, A, B)                         weight (A, B, C, O)
    norms      weight, bias, running_mean, running_var     gamma, beta, running_mean, running_var
    Lstm       weight_ih_l0 (4H, I), weight_hh_l0 (4H, H)  weight_ih (I, 4H), weight_hh (H, 4H)
    =========  ==========================================  ===========================================

    Gates of the Lstm have the same order in both. What only we have (curvature and gain of a Z-space norm) stays as it
    is; ``num_batches_tracked`` is left out.
    """
    chained = isinstance(module, Sequential)
    layers = module.layers if isinstance(module, Sequential) else [module]
    known = {layer.name for layer in layers}
    for argument, given in (("names", names or {}), ("flattened", flattened or {})):
        strange = [name for name in given if name not in known]
        if strange:
            raise ArgumentError(f"{argument}: there is no layer {strange[0]!r}; there are {', '.join(sorted(known))}")
    wanted: dict[str, tuple[str, Turn]] = {}
    for layer in layers:
        prefix = f"{(names or {}).get(layer.name, layer.name)}." if chained else ""
        for theirs, (ours, turn) in _entries(layer, (flattened or {}).get(layer.name)).items():
            wanted[prefix + theirs] = (ours, turn)
    missing = [name for name in wanted if name not in arrays]
    unknown = [name for name in arrays if name not in wanted and name.rpartition(".")[2] != IGNORED]
    if missing or unknown:
        raise StateDictError(
            f"{module.name}: PyTorch's arrays lack {missing or 'nothing'} and have unknown {unknown or 'nothing'}; "
            "a bias that PyTorch was told to leave out is an array of zeros here, and names= tells of other layer names"
        )
    state = module.state_dict()
    for theirs, (ours, turn) in wanted.items():
        state[ours] = _converted(theirs, arrays[theirs], state[ours], turn)
    module.load_state_dict(state)


def _converted(name: str, array: AnyArray, now: AnyArray, turn: Turn) -> Float:
    given = np.asarray(array)
    if not np.issubdtype(given.dtype, np.floating):
        raise StateDictError(f"{name}: must hold floating-point numbers, got {given.dtype}")
    try:
        turned = turn(given)
    except ValueError as error:
        raise StateDictError(f"{name}: has shape {given.shape}, which does not become {now.shape}: {error}") from error
    if turned.shape != now.shape:
        raise StateDictError(f"{name}: has shape {given.shape}, which becomes {turned.shape} and not {now.shape}")
    with np.errstate(over="ignore"):
        converted: Float = turned.astype(now.dtype)
    return converted


def _same(array: AnyArray) -> AnyArray:
    return array


def _transposed(array: AnyArray) -> AnyArray:
    return array.T


def _taps_first(array: AnyArray) -> AnyArray:
    return array.transpose(2, 3, 1, 0)


def _entries(layer: Module, image: tuple[int, int, int] | None) -> dict[str, tuple[str, Turn]]:
    """Return for each of PyTorch's names of a layer our name, and how to turn the array."""
    if image is not None and not isinstance(layer, Linear):
        raise ArgumentError(f"flattened: {layer.name} is a {type(layer).__name__}; only a Linear follows flat images")
    if isinstance(layer, Linear):
        return {"weight": (layer.weight.name, _rows(image)), "bias": (layer.bias.name, _same)}
    if isinstance(layer, Conv2d):
        return {"weight": (layer.weight.name, _taps_first), "bias": (layer.bias.name, _same)}
    if isinstance(layer, Lstm):
        pairs = zip(layer.parameters(), (_transposed, _transposed, _same, _same), strict=True)
        return {f"{p.name.rpartition('.')[2]}_l0": (p.name, turn) for p, turn in pairs}
    entries = {"gamma": "weight", "beta": "bias", "running_mean": "running_mean", "running_var": "running_var"}
    ours = {entry.name.rpartition(".")[2]: entry.name for entry in layer.state_entries()}
    if ours and "gamma" not in ours:
        raise ArgumentError(f"{layer.name}: a {type(layer).__name__} has no counterpart in PyTorch")
    return {theirs: (ours[short], _same) for short, theirs in entries.items() if short in ours}


def _rows(image: tuple[int, int, int] | None) -> Turn:
    """Return how to turn the weight of a Linear that follows flat images of (C, H, W), or other features."""
    if image is None:
        return _transposed
    channels, height, width = image

    def turn(array: AnyArray) -> AnyArray:
        by_pixel = array.reshape(array.shape[0], channels, height, width).transpose(2, 3, 1, 0)
        return by_pixel.reshape(-1, array.shape[0])

    return turn
