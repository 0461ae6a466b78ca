"""A configuration that cannot be run is refused before anything starts."""

from __future__ import annotations

from typing import get_args

import pytest

from spiral_core import choices, nn
from spiral_core.data import DATASETS
from spiral_core.engine.config import for_data, from_fields, steps_per_epoch
from spiral_core.errors import ConfigError


def test_each_data_set_has_a_configuration_of_its_own() -> None:
    assert for_data("needle").model == "z_cam"
    assert for_data("needle").steps == 0
    assert for_data("fashion").model == "z_cnn"
    assert for_data("digits").model == "z_mlp"
    assert for_data("motif").model == "z_lstm"
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
        ("mode", "spherical"),
        ("schedule", "linear"),
        ("clip_norm", -1.0),
        ("clip_norm", float("inf")),
        ("warmup_steps", -1),
        ("min_lr", -0.1),
        ("min_lr", 0.5),
        ("schedule_steps", -1),
        ("auto_gain", 1.5),
        ("auto_gain", float("nan")),
        ("telemetry_budget", 101.0),
        ("optimizer", "lion"),
        ("precision", "float8"),
    ],
)
def test_a_value_out_of_its_bounds_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        for_data("needle", **{field: value})


def test_unknown_data_and_fields_are_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="needle, fashion, digits, motif"):
        for_data("imagenet")
    with pytest.raises(ConfigError, match="learning_rate"):
        for_data("needle", learning_rate=1.0)
    with pytest.raises(ConfigError, match="missing"):
        from_fields({"data": "needle"})


def test_a_cosine_needs_an_end_and_numbers_of_a_cosine_need_one() -> None:
    with pytest.raises(ConfigError, match="give schedule_steps, or steps above 0"):
        for_data("needle", schedule="warmup-cosine")
    for fields in ({"steps": 50}, {"schedule_steps": 50}):
        assert for_data("needle", schedule="restart", **fields).schedule_length == 50
        with pytest.raises(ConfigError, match=r"warmup_steps = 51 .* at most 50"):
            for_data("needle", schedule="warmup-cosine", warmup_steps=51, **fields)
    with pytest.raises(ConfigError, match=r"min_lr.*choose schedule warmup-cosine"):
        for_data("needle", min_lr=1e-5)
    with pytest.raises(ConfigError, match=r"schedule_steps.*leave it out"):
        for_data("needle", schedule_steps=10)
    assert for_data("needle", warmup_steps=10).schedule == "constant"


def test_an_epoch_of_the_embedded_images_drops_the_last_partial_batch() -> None:
    assert steps_per_epoch(for_data("fashion")) == 2000 // 64
    assert steps_per_epoch(for_data("fashion", batch_size=100)) == 20


def test_every_data_set_and_every_model_that_can_be_named_has_its_defaults() -> None:
    assert set(choices.DATA) == set(get_args(choices.DataName)) == set(DATASETS)
    assert set(choices.MODELS) == set(get_args(choices.ModelName)) == set(nn.models.MODELS)
    assert {for_data(data).model for data in choices.DATA} == set(choices.MODELS)


def test_a_model_brings_its_own_defaults_and_what_is_asked_for_goes_first() -> None:
    chosen = for_data("fashion", model="z_mlp")
    assert (chosen.optimizer, chosen.xai_every, chosen.steps) == ("adam", 0, for_data("fashion").steps)
    assert for_data("digits", model="z_cnn").xai_every == 10
    assert for_data("fashion", model="z_lstm", lr=0.5).lr == 0.5


@pytest.mark.parametrize("model", ["z_cnn", "z_cam"])
def test_a_model_that_cannot_take_the_images_is_refused_with_those_that_can(model: str) -> None:
    with pytest.raises(ConfigError, match=f"{model} cannot be trained on motif.*models that fit: z_mlp, z_lstm"):
        for_data("motif", model=model)


def test_probes_of_a_model_without_feature_maps_are_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match="leave it at 0, or choose one of z_cam, z_cnn, z_lstm"):
        for_data("digits", xai_every=10)


@pytest.mark.parametrize(
    ("asked", "schedule", "warmup"),
    [
        ({}, "warmup-cosine", 31),
        ({"steps": 620}, "warmup-cosine", 31),
        ({"steps": 40}, "warmup-cosine", 4),
        ({"steps": 3}, "warmup-cosine", 0),
        ({"steps": 0}, "constant", 31),
        ({"steps": 0, "schedule_steps": 100}, "warmup-cosine", 10),
        ({"steps": 40, "warmup_steps": 7}, "warmup-cosine", 7),
        ({"schedule": "constant"}, "constant", 31),
    ],
)
def test_the_default_schedule_fits_the_length_that_was_asked_for(
    asked: dict[str, object], schedule: str, warmup: int
) -> None:
    config = for_data("fashion", **asked)
    assert (config.schedule, config.warmup_steps) == (schedule, warmup)


@pytest.mark.parametrize(
    ("data", "optimizer", "lr"),
    [
        ("fashion", "sgd", 0.03),
        ("fashion", "adam", 3e-3),
        ("needle", "adam", 3e-3),
        ("digits", "sgd", 0.03),
        ("motif", "sgd", 1e-2),
    ],
)
def test_an_optimizer_brings_a_rate_that_it_trains_well_with(data: str, optimizer: str, lr: float) -> None:
    assert for_data(data, optimizer=optimizer).lr == lr
    assert for_data(data, optimizer=optimizer, lr=0.5).lr == 0.5
