from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oracles import lstm_twin
from oracles.golden import Golden
from spiral_core import kernels, nn
from spiral_core.arrays import Float
from spiral_core.errors import DtypeError, NonFiniteError, ShapeError, StateError
from spiral_core.kernels.matrix import DEPTH
from spiral_core.kernels.recurrent import SEQUENCES
from spiral_core.kernels.vector import LANES

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}


def draw(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> Float:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def unsettled(inputs: int, hidden: int, dtype: Any = np.float32, **options: Any) -> nn.Lstm:
    """Build a layer with biases that all differ."""
    layer = nn.Lstm("it", inputs, hidden, generator=np.random.default_rng(7), dtype=dtype, **options)
    for seed, bias in enumerate((layer.bias_ih, layer.bias_hh)):
        bias.value[:] = draw((4 * hidden,), dtype, seed)
    return layer


def weights_of(layer: nn.Lstm) -> lstm_twin.Weights:
    return lstm_twin.Weights(*(p.value.astype(np.float64) for p in layer.parameters()))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.integers(1, 6),
    st.integers(1, 2 * SEQUENCES + 1),
    st.integers(1, 5) | st.integers(30, 34),
    st.integers(1, 6) | st.integers(15, 34),
    st.sampled_from([np.float32, np.float64]),
)
@example(DEPTH // 8 + 1, SEQUENCES, 8, LANES, np.float32)
@example(2, SEQUENCES + 1, 17, LANES + 1, np.float64)
def test_forward_and_every_gradient_are_their_slow_twin(
    steps: int, rows: int, inputs: int, hidden: int, dtype: type[np.floating]
) -> None:
    layer, workspace = unsettled(inputs, hidden, dtype), nn.Workspace()
    x, grad = draw((steps, rows, inputs), dtype, 3), draw((steps, rows, hidden), dtype, 4)
    h, c = draw((rows, hidden), dtype, 5), draw((rows, hidden), dtype, 6)
    layer.set_state(h, c, workspace)
    y = layer.forward(x, workspace).copy()
    state = layer.state(workspace)
    assert state is not None
    grad_x = layer.backward(x, grad, workspace)
    grad_h, grad_c = layer.initial_state_grad(workspace)
    weights = weights_of(layer)
    totals = [np.zeros_like(array) for array in weights]
    tolerance = TOLERANCE[dtype] * steps * rows
    for n in range(rows):
        passed = lstm_twin.forward(x[:, n].astype(np.float64), weights, h[n], c[n])
        expected = lstm_twin.backward(passed, weights, grad[:, n].astype(np.float64))
        for total, name in zip(totals, weights._fields, strict=True):
            total += expected[name]
        pairs = [(y[:, n], passed.y), (state[0][n], passed.h), (state[1][n], passed.c), (grad_x[:, n], expected["x"])]
        pairs += [(grad_h[n], expected["h"]), (grad_c[n], expected["c"])]
        for ours, twin in pairs:
            np.testing.assert_allclose(ours, twin, rtol=0, atol=tolerance)
    for parameter, total in zip(layer.parameters(), totals, strict=True):
        np.testing.assert_allclose(parameter.grad, total, rtol=0, atol=tolerance, err_msg=parameter.name)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("rows", [1, SEQUENCES, 3 * SEQUENCES + 1, DEPTH // 6 + SEQUENCES])
def test_a_pass_is_bit_identical_on_one_two_and_three_threads(rows: int) -> None:
    x, grad = draw((6, rows, 5)), draw((6, rows, 9), seed=1)
    results = []
    for count in (1, 2, 3):
        kernels.set_num_threads(count)
        layer, workspace = unsettled(5, 9), nn.Workspace()
        bits = []
        for _ in range(2):
            bits.append(layer.forward(x, workspace).tobytes())
            bits.append(layer.backward(x, grad, workspace).tobytes())
        bits += [p.grad.tobytes() for p in layer.parameters()]
        bits += [array.tobytes() for array in layer.initial_state_grad(workspace)]
        results.append(bits)
    assert results[0] == results[1] == results[2]


def test_one_sequence_without_an_axis_is_a_batch_of_one() -> None:
    layer, other = unsettled(3, 4), unsettled(3, 4)
    x, grad = draw((5, 3)), draw((5, 4), seed=1)
    np.testing.assert_array_equal(layer.forward(x), other.forward(x[:, None])[:, 0])
    np.testing.assert_array_equal(layer.backward(x, grad), other.backward(x[:, None], grad[:, None])[:, 0])
    for one, two in zip(layer.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(one.grad, two.grad)


def test_the_state_is_carried_over_so_that_two_halves_are_the_whole() -> None:
    x = draw((8, 3, 2))
    whole = unsettled(2, 4).forward(x)
    layer = unsettled(2, 4)
    np.testing.assert_allclose(np.concatenate([layer.forward(x[:5]), layer.forward(x[5:])]), whole, atol=1e-6)
    # Backward does not move it, and a reset takes it away.
    layer.reset_state()
    np.testing.assert_array_equal(layer.forward(x), whole)
    layer.backward(x, np.ones_like(whole))
    state = layer.state()
    assert state is not None
    np.testing.assert_array_equal(state[0], whole[-1])


def test_a_layer_without_memory_between_calls_starts_from_zeros() -> None:
    layer = unsettled(2, 4, stateful=False)
    x = draw((5, 3, 2))
    np.testing.assert_array_equal(layer.forward(x), layer.forward(x))
    assert layer.forward(x[:, :1]).shape == (5, 1, 4)
    assert layer.state() is None
    with pytest.raises(StateError, match=r"^it: .*stateful"):
        layer.set_state(draw((4,)), draw((4,)))


def test_each_workspace_has_a_state_of_its_own() -> None:
    layer, probe = unsettled(2, 4), nn.Workspace(training=False, accumulate=False)
    x = draw((5, 3, 2))
    first = layer.forward(x)
    before = layer.state()
    np.testing.assert_array_equal(layer.forward(x[:, :2], probe), first[:, :2])
    layer.backward(x[:, :2], first[:, :2], probe)
    after = layer.state()
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before, after)
    assert not any(p.grad.any() for p in layer.parameters())


def test_a_forward_pass_serves_one_backward_pass() -> None:
    layer, workspace = unsettled(2, 4), nn.Workspace()
    x, grad = draw((5, 3, 2)), draw((5, 3, 4), seed=1)
    layer.forward(x, workspace)
    layer.backward(x, grad, workspace)
    before = [p.grad.tobytes() for p in layer.parameters()]
    with pytest.raises(StateError, match=r"^it: .*one backward.*run forward"):
        layer.backward(x, grad, workspace)
    assert [p.grad.tobytes() for p in layer.parameters()] == before
    layer.forward(x, workspace)
    layer.backward(x, grad, workspace)


@pytest.mark.parametrize("steps", [4, 6])
def test_another_number_of_time_steps_is_refused_and_the_pass_can_still_be_used(steps: int) -> None:
    layer, workspace = unsettled(2, 4), nn.Workspace()
    x, grad = draw((5, 3, 2)), draw((5, 3, 4), seed=1)
    layer.forward(x, workspace)
    with pytest.raises(StateError, match=r"^it: forward saw shape \(5, 3, 2\)"):
        layer.backward(draw((steps, 3, 2)), draw((steps, 3, 4)), workspace)
    with pytest.raises(ShapeError, match=r"^it: grad"):
        layer.backward(x, grad[:steps, :2], workspace)
    assert not any(p.grad.any() for p in layer.parameters())
    layer.backward(x, grad, workspace)


def test_a_batch_of_another_size_than_the_states_is_refused_and_changes_nothing() -> None:
    layer, workspace = unsettled(2, 4), nn.Workspace()
    x = draw((5, 3, 2))
    y = layer.forward(x, workspace)
    before = layer.state(workspace)
    with pytest.raises(ShapeError, match=r"^it: input has 2 sequences.*3.*reset_state"):
        layer.forward(x[:, :2], workspace)
    after = layer.state(workspace)
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before, after)
    layer.backward(x, y, workspace)
    layer.reset_state(workspace)
    assert layer.forward(x[:, :2], workspace).shape == (5, 2, 4)


@pytest.mark.parametrize(
    ("h", "c", "error", "named"),
    [
        (np.zeros(3, np.float32), np.zeros(4, np.float32), ShapeError, "h must have shape"),
        (np.zeros(4, np.float32), np.zeros((2, 4), np.float32), ShapeError, "h and c"),
        (np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32), ShapeError, "h must"),
        (np.zeros(4), np.zeros(4, np.float32), DtypeError, "h must be an array of float32"),
        (np.zeros(4, np.float32), [0.0] * 4, DtypeError, "c must be an array"),
        (np.zeros(4, np.float32), np.array([0, np.inf, 0, 0], np.float32), NonFiniteError, "c has"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_by_name_and_the_old_one_stays(
    h: Any, c: Any, error: type[Exception], named: str
) -> None:
    layer = unsettled(2, 4)
    layer.set_state(np.ones(4, np.float32), np.full((1, 4), 2, np.float32))
    with pytest.raises(error, match=f"^it: {named}"):
        layer.set_state(h, c)
    state = layer.state()
    assert state is not None
    assert (state[0] == 1).all()
    assert (state[1] == 2).all()


def test_there_is_no_gradient_of_a_state_before_a_backward_pass() -> None:
    with pytest.raises(StateError, match=r"^it: .*backward"):
        unsettled(2, 4).initial_state_grad()


def test_a_nan_reaches_its_own_sequence_from_its_time_on_and_no_other() -> None:
    x = draw((5, 3, 2))
    x[2, 1, 0] = np.nan
    layer = unsettled(2, 4)
    seen = np.isnan(layer.forward(x)).all(axis=2)
    expected = np.zeros((5, 3), bool)
    expected[2:, 1] = True
    np.testing.assert_array_equal(seen, expected)
    assert np.isnan(layer.backward(x, np.ones((5, 3, 4), np.float32))[:, 1]).any()


def test_large_inputs_saturate_the_gates_and_stay_finite() -> None:
    y = unsettled(2, 4).forward(draw((5, 3, 2)) * np.float32(1e30))
    assert np.abs(y).max() <= 1


def test_the_first_weights_are_orthogonal_per_gate_and_the_cell_remembers() -> None:
    layer = nn.Lstm("it", 300, 20, dtype=np.float64)
    for gate in range(4):
        block = layer.weight_hh.value[:, 20 * gate : 20 * (gate + 1)]
        np.testing.assert_allclose(block @ block.T, np.eye(20), atol=1e-12)
    assert layer.weight_ih.value.std() == pytest.approx((2 / 320) ** 0.5, rel=0.03)
    np.testing.assert_array_equal(layer.bias_ih.value, np.repeat([0, 1, 0, 0], 20))
    assert not layer.bias_hh.value.any()


def test_every_golden_array_of_the_layer_is_reproduced(record_property: Callable[[str, object], None]) -> None:
    golden = Golden(__file__)

    def same(name: str, ours: Float) -> None:
        golden.same(f"lstm.{name}", ours, tolerance=1e-12)

    ramps = nn.Lstm("it", 3, 4, init="ramp", dtype=np.float64)
    same("Wi_default", ramps.weight_ih.value)
    same("Wh_default", ramps.weight_hh.value)
    assert not ramps.bias_ih.value.any()
    layer = nn.Lstm("it", 3, 4, dtype=np.float64)
    for parameter, name in zip(layer.parameters(), ("Wi", "Wh", "bi", "bh"), strict=True):
        parameter.value[...] = golden[f"lstm.{name}"]
    layer.set_state(golden["lstm.h0"], golden["lstm.c0"])
    x = golden["lstm.x"]
    same("y", layer.forward(x))
    state = layer.state()
    assert state is not None
    same("hT", state[0])
    same("cT", state[1])
    grad_x = layer.backward(x, golden["lstm.go"])
    sums = {f"g{name}": p.grad for p, name in zip(layer.parameters(), ("Wi", "Wh", "bi", "bh"), strict=True)}
    for name, ours in {"gx": grad_x, **sums}.items():
        same(f"sum.{name}", ours)
        # The variant of another generation: parameters divided by the number of time steps, the input not.
        same(f"mean.{name}", ours if name == "gx" else ours / len(x))
    for name, ours in zip(("gh0", "gc0"), layer.initial_state_grad(), strict=True):
        same(f"sum.{name}", ours)
    same("y_second_call_state_carried", layer.forward(x))
    golden.settle(record_property)
