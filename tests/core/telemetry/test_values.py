"""Names and numbers of a step."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spiral_core import nn
from spiral_core.telemetry import catalog, values


def test_every_layer_is_told_under_its_declared_names() -> None:
    layer = nn.ZSpaceBatchNorm1d("bn", 4)
    layer.forward(np.random.default_rng(0).standard_normal((32, 4)).astype(np.float32))
    seen = layer.observe()
    told = values.layer_values({"bn": seen})
    declared = {
        spec.name for spec in catalog.declare(["bn"], mapped=False, masked=False) if spec.name.startswith("zspace/bn/")
    }
    assert set(told) == declared
    for name in values.LAYER_FIELDS:
        assert told[f"zspace/bn/{name}"] == getattr(seen, name)


@pytest.mark.parametrize(("gains", "mean"), [([0.2, 0.2, 0.2], 0.2), ([0.0, 1.0], 0.5), ([], math.nan)])
def test_the_mean_of_equal_gains_is_the_gain_itself(gains: list[float], mean: float) -> None:
    assert values.mean_gain(gains) == mean or (math.isnan(mean) and math.isnan(values.mean_gain(gains)))
