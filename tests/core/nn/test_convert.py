from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oracles import lstm_twin
from spiral_core import nn
from spiral_core.arrays import AnyArray
from spiral_core.errors import ArgumentError, ShapeError, StateDictError
from spiral_core.nn.convert import from_torch_state_dict, to_nchw, to_nhwc


def draw(shape: tuple[int, ...], seed: int = 0) -> AnyArray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_images_change_their_layout_and_come_back() -> None:
    first = draw((2, 3, 4, 5))
    last = to_nhwc(first)
    assert last.shape == (2, 4, 5, 3)
    assert last.flags.c_contiguous
    assert last[1, 2, 3, 0] == first[1, 0, 2, 3]
    np.testing.assert_array_equal(to_nchw(last), first)
    for turn in (to_nchw, to_nhwc):
        with pytest.raises(ShapeError, match="images must be"):
            turn(first[0])


def test_a_linear_layer_is_transposed() -> None:
    weight, bias, x = draw((2, 3)), draw((2,), 1), draw((4, 3), 2)
    layer = nn.Linear("fc", 3, 2)
    from_torch_state_dict(layer, {"weight": weight, "bias": bias})
    np.testing.assert_allclose(layer.forward(x), np.einsum("ni,oi->no", x, weight) + bias, rtol=1e-5)


def test_a_convolution_moves_its_taps_to_the_front() -> None:
    weight, bias, x = draw((2, 3, 2, 2)), draw((2,), 1), draw((1, 3, 2, 2), 2)
    layer = nn.Conv2d("conv", 3, 2, (2, 2), padding=(0, 0), dtype=np.float64)
    from_torch_state_dict(layer, {"weight": weight, "bias": bias})
    expected = np.einsum("ncab,ocab->no", x.astype(np.float64), weight) + bias
    np.testing.assert_allclose(layer.forward(to_nhwc(x).astype(np.float64))[:, 0, 0], expected, rtol=1e-12)


def test_a_norm_takes_weight_and_bias_as_gamma_and_beta_and_keeps_what_only_it_has() -> None:
    layer = nn.ZSpaceBatchNorm1d("norm", 3, -2.0, projector_gain=0.25)
    arrays = {"weight": draw((3,)), "bias": draw((3,), 1), "running_mean": draw((3,), 2), "running_var": np.ones(3) * 2}
    from_torch_state_dict(layer, {**arrays, "num_batches_tracked": np.array(7)})
    for ours, theirs in (
        (layer.gamma.value, "weight"),
        (layer.beta.value, "bias"),
        (layer.running_mean, "running_mean"),
        (layer.running_var, "running_var"),
    ):
        np.testing.assert_array_equal(ours, arrays[theirs])
    assert (layer.curvature, layer.projector_gain) == (-2.0, 0.25)


def test_a_memory_layer_is_transposed_and_keeps_the_order_of_its_gates() -> None:
    arrays = {
        "weight_ih_l0": draw((16, 3)), "weight_hh_l0": draw((16, 4), 1),
        "bias_ih_l0": draw((16,), 2), "bias_hh_l0": draw((16,), 3),
    }  # fmt: skip
    layer, x = nn.Lstm("lstm", 3, 4), draw((5, 3), 4)
    from_torch_state_dict(layer, arrays)
    wide = [array.astype(np.float64).T for array in arrays.values()]
    expected = lstm_twin.forward(x.astype(np.float64), lstm_twin.Weights(*wide), np.zeros(4), np.zeros(4)).y
    np.testing.assert_allclose(layer.forward(x), expected, atol=1e-6)


def chain() -> nn.Sequential:
    return nn.Sequential(
        "net", [nn.Conv2d("conv", 1, 2), nn.ReLU("relu"), nn.Flatten("flat"), nn.Linear("head", 2 * 3 * 4, 5)]
    )


def arrays_of_chain() -> dict[str, Any]:
    return {
        "features.0.weight": draw((2, 1, 3, 3)), "features.0.bias": draw((2,), 1),
        "head.weight": draw((5, 24), 2), "head.bias": draw((5,), 3),
    }  # fmt: skip


def test_a_chain_takes_other_names_and_the_order_of_flattened_images() -> None:
    net, arrays, x = chain(), arrays_of_chain(), draw((2, 3, 4, 1), 4)
    from_torch_state_dict(net, arrays, names={"conv": "features.0"}, flattened={"head": (2, 3, 4)})
    workspace = nn.Workspace()
    y = net.forward(x, workspace)
    flat = to_nchw(net.outputs(workspace)["relu"]).reshape(2, -1)
    np.testing.assert_allclose(y, flat @ arrays["head.weight"].T + arrays["head.bias"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"head.bias": None}, "lack .*head.bias.*zeros"),
        ({"head.weight_l1": draw((1,))}, "unknown .*head.weight_l1"),
        ({"head.weight": draw((24, 5))}, r"head.weight: has shape \(24, 5\)"),
        ({"head.bias": draw((4,))}, r"head.bias: has shape \(4,\).*not \(5,\)"),
        ({"features.0.weight": draw((2, 9))}, r"features.0.weight: has shape \(2, 9\)"),
        ({"head.bias": np.zeros(5, np.int64)}, "head.bias: .*floating"),
        ({"head.bias": np.full(5, np.nan)}, "head.bias: .*finite"),
        ({"head.bias": np.full(5, 1e300)}, "head.bias: .*finite"),
    ],
)
@pytest.mark.parametrize("flattened", [None, {"head": (2, 3, 4)}])
def test_arrays_that_do_not_fit_are_refused_by_their_own_name_and_nothing_is_loaded(
    change: dict[str, Any], named: str, flattened: dict[str, tuple[int, int, int]] | None
) -> None:
    net = chain()
    before = [array.tobytes() for array in net.state_dict().values()]
    arrays = {name: array for name, array in {**arrays_of_chain(), **change}.items() if array is not None}
    with pytest.raises(StateDictError, match=named):
        from_torch_state_dict(net, arrays, names={"conv": "features.0"}, flattened=flattened)
    assert [array.tobytes() for array in net.state_dict().values()] == before


def test_words_about_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(ArgumentError, match="names: there is no layer 'cov'"):
        from_torch_state_dict(chain(), arrays_of_chain(), names={"cov": "features.0"})
    with pytest.raises(ArgumentError, match="flattened: conv is a Conv2d"):
        from_torch_state_dict(chain(), arrays_of_chain(), flattened={"conv": (1, 3, 4)})
