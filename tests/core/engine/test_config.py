"""A configuration that cannot be run is refused before anything starts."""

from __future__ import annotations

import pytest

from spiral_core.engine.config import for_data, from_fields, steps_per_epoch
from spiral_core.errors import ConfigError


def test_each_data_set_has_a_configuration_of_its_own() -> None:
    assert for_data("needle").model == "z_cam"
    assert for_data("needle").steps == 0
    assert for_data("fashion").model == "z_cnn"
    assert for_data("fashion", lr=0.5, seed=3).lr == 0.5
    assert for_data("fashion").precision == "float32"
    assert for_data("fashion", lr=None).lr == for_data("fashion").lr


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lr", 0.0),
        ("lr", float("nan")),
        ("momentum", 1.0),
        ("weight_decay", -1.0),
        ("batch_size", 0),
        ("steps", -1),
        ("seed", -1),
        ("curvature", 0.0),
        ("gain", 1.01),
        ("evaluate_every", -1),
        ("xai_every", -1),
        ("rate", float("inf")),
        ("model", "resnet"),
        ("optimizer", "lion"),
        ("precision", "float8"),
    ],
)
def test_a_value_out_of_its_bounds_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        for_data("needle", **{field: value})


def test_unknown_data_and_fields_are_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="fashion, needle"):
        for_data("imagenet")
    with pytest.raises(ConfigError, match="learning_rate"):
        for_data("needle", learning_rate=1.0)
    with pytest.raises(ConfigError, match="missing"):
        from_fields({"data": "needle"})


def test_an_epoch_of_the_embedded_images_drops_the_last_partial_batch() -> None:
    assert steps_per_epoch(for_data("fashion")) == 2000 // 64
    assert steps_per_epoch(for_data("fashion", batch_size=100)) == 20
