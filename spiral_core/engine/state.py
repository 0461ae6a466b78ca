"""The whole state of a run between two steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from spiral_core import amp, data, nn, optim
from spiral_core.choices import PrecisionName
from spiral_core.data import Batch, Dataset
from spiral_core.engine.config import RunConfig
from spiral_core.engine.guard_rules import parse_all
from spiral_core.engine.guard_state import GuardState
from spiral_core.engine.optimization import Rates, build_optimizer, build_rates
from spiral_core.engine.rollback import Snapshots

AUTO_GAIN_SMOOTHING = 0.1
"""At the start: a gain goes nine tenths of its way in 22 steps, too slowly to follow the noise of single batches."""

Phase = Literal["training", "paused", "finished", "stopped"]

Wanted = Literal["checkpoint", "evaluate"]
"""What is to be done once, at the boundary where it was asked for."""


@dataclass
class RunState:
    """Everything that the next step depends on, and what steering may change.

    ``step`` is the number of updates done; the next update is number ``step + 1``.
    """

    config: RunConfig
    dataset: Dataset
    model: nn.Sequential
    optimizer: optim.ZSpaceOptimizer
    rates: Rates
    probe: Batch
    """Held-out images that every Grad-CAM probe looks at."""
    xai_every: int
    rate: float
    clip_norm: float
    """Largest norm of all gradients together; 0 means no clipping."""
    auto_gain: float
    """Mean blended radius that the Z-space layers steer their gains to; 0 means off."""
    auto_gain_smoothing: float
    """Share of the way to the right gain that auto-gain goes at each step, in (0, 1]."""
    total_steps: int
    """Updates after which the run is over; 0 means never."""
    telemetry_budget: float
    """Percent of the time of a step that observing may take."""
    precision: PrecisionName
    """What matrix products of training are rounded to; evaluations and probes look at the weights in full precision."""
    xai_layer: str | None
    """The layer that Grad-CAM probes look at; None where the model has nothing to map."""
    scaler: amp.GradScaler = field(default_factory=amp.GradScaler)
    """Of the loss. In float32 it scales nothing, and keeps its scale and its counts until it is needed again."""
    frozen: frozenset[str] = frozenset()
    """Names of the layers whose parameters no update moves."""
    step: int = 0
    rev: int = 0
    """Changes applied so far."""
    phase: Phase = "training"
    pause_at: int | None = None
    """Updates after which the run pauses; None: none has been named."""
    wanted: set[Wanted] = field(default_factory=set)
    """Asked for and not yet done."""
    since: dict[str, int] = field(default_factory=dict)
    """For each knob that was ever set: the first step under the value in force."""
    guards: GuardState = field(default_factory=GuardState)
    """The guard rules in force, and what they remember."""
    snapshots: Snapshots = field(default_factory=Snapshots)
    """What a guard may go back to."""
    own_entries: int = 0
    """Entries of the applied log that the engine has numbered by itself: -1, -2 and so on."""
    batch: Batch | None = None
    """The last training batch, until the next update draws another one in its memory; copy what must last longer."""
    training: nn.Workspace = field(default_factory=lambda: nn.Workspace(training=True, fuse=True))
    watching: nn.Workspace = field(default_factory=lambda: nn.Workspace(training=False, accumulate=False))
    """Evaluation's and probes' own memory: nothing in it feeds back into training."""

    @cached_property
    def z_layers(self) -> list[nn.ZSpaceNorm]:
        """The model's Z-space layers, in order."""
        return [layer for layer in self.model.layers if isinstance(layer, nn.ZSpaceNorm)]

    @property
    def kernels(self) -> list[str]:
        """Names of the compiled kernels that an update runs, those for rounding included: it can be turned on."""
        rounding = amp.autocast().kernels
        return [
            *self.dataset.KERNELS,
            *self.model.kernels(),
            *rounding,
            *nn.LOSS_KERNELS,
            *self.optimizer.KERNELS,
        ]

    @property
    def first_kernels(self) -> list[str]:
        """Names of those that an update runs as the run is now; the others are for evaluation, probes and steers."""
        rounding = amp.autocast(enabled=self.scaled).kernels
        return [
            *self.dataset.KERNELS,
            *self.model.fused_kernels((self.dataset.batch_size, *self.dataset.image_shape)),
            *rounding,
            *nn.LOSS_KERNELS,
            *self.optimizer.kernels,
        ]

    @property
    def scaled(self) -> bool:
        """Whether products are rounded and the loss is scaled."""
        return self.precision != "float32"

    @property
    def over(self) -> bool:
        """Whether all updates have been done."""
        return 0 < self.total_steps <= self.step


def initial_state(config: RunConfig) -> RunState:
    """Build the state before the first step; the same configuration gives the same state, bit for bit."""
    dataset = data.open_dataset(config.data, seed=config.seed, batch_size=config.batch_size)
    height, width, channels = dataset.image_shape
    model = nn.models.build(
        config.model,
        in_channels=channels,
        image=(height, width),
        classes=len(dataset.class_names),
        curvature=config.curvature,
        gain=config.gain,
        generator=data.derived_generator(config.seed, data.Purpose.INIT, 0),
    )
    return RunState(
        config=config,
        dataset=dataset,
        model=model,
        optimizer=build_optimizer(config, model),
        rates=build_rates(config),
        probe=dataset.probe(),
        xai_every=config.xai_every,
        rate=config.rate,
        clip_norm=config.clip_norm,
        auto_gain=config.auto_gain,
        auto_gain_smoothing=AUTO_GAIN_SMOOTHING,
        total_steps=config.steps,
        telemetry_budget=config.telemetry_budget,
        guards=GuardState(parse_all(config.guards)),
        precision=config.precision,
        xai_layer=nn.models.cam_target(model),
    )
