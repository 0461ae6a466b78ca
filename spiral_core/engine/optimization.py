"""How a run's weights are updated: optimizer, geometry, and the rate of each update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spiral_core import nn, optim
from spiral_core.choices import ScheduleName
from spiral_core.engine.config import RunConfig
from spiral_core.optim import riemannian

GROUPS = (optim.ParameterGroup(optim.NORMS_AND_BIASES.endings, hyperbolic=False, weight_decay=0.0),)
"""Scales, shifts and biases are no points of a ball, and pulling them to zero would switch a norm off."""

ADAM_BETAS = (0.9, 0.999)
"""Kingma and Ba 2015, section 2."""


Meaning = Literal["base", "hold"]
"""What setting the rate means: a new base that the schedule goes on from, or a rate that is held."""


@dataclass
class Rates:
    """The learning rate of each update: that of a schedule, as steering has scaled it, or one that is held.

    Whoever sets the rate of the next update sets it exactly. With the meaning ``base`` the schedule goes on from there
    in proportion: half the rate now means half of every rate to come. Where the schedule has come down to zero there is
    no proportion; a rate that is set there stays until the schedule rises again. With ``hold`` the rate stays until it
    is released, and then the schedule goes on as if nothing had been held.

    Parameters
    ----------
    schedule : str             ``"constant"``, ``"warmup-cosine"`` or ``"restart"``
    base, minimum : float      the highest rate of the formula, and the one that a cosine falls to
    warmup, total : int        updates; ``total`` 0 where nothing says, which is for constant alone
    meaning : str              what setting the rate means
    held : float or None       the rate that is held
    factor : float             what steering has multiplied every rate of the formula by
    asked, planned : float     the rate that was set last, and what the formula had for that update; 0 before any
    """

    schedule: ScheduleName
    base: float
    minimum: float
    warmup: int
    total: int
    meaning: Meaning = "base"
    held: float | None = None
    factor: float = 1.0
    asked: float = 0.0
    planned: float = 0.0

    def formula(self, number: int) -> float:
        """Return what the schedule has for update ``number`` >= 1, before steering."""
        if self.schedule == "constant":
            return optim.ConstantScheduler(self.base, self.warmup).rate_at(number)
        kind = optim.WarmupCosineScheduler if self.schedule == "warmup-cosine" else optim.WarmupCosineRestartScheduler
        return kind(self.base, self.minimum, self.warmup, self.total).rate_at(number)

    def at(self, number: int) -> float:
        """Return the rate of update ``number`` >= 1."""
        if self.held is not None:
            return self.held
        rate = self.formula(number)
        # Exactly what was asked for, as long as the schedule stays where it was then.
        return self.asked if self.asked > 0 and rate == self.planned else rate * self.factor

    def steer(self, number: int, rate: float) -> None:
        """Set the rate of update ``number``, and with it those after it, as the meaning in force says."""
        if self.meaning == "hold":
            self.held = rate
            return
        self.held = None
        self.asked, self.planned = rate, self.formula(number)
        if self.planned > 0:
            self.factor = rate / self.planned

    def hold(self, number: int, held: bool) -> None:
        """Hold the rate of update ``number``, or release what is held."""
        self.held = self.at(number) if held else None

    def follow(
        self,
        *,
        schedule: ScheduleName | None = None,
        minimum: float | None = None,
        warmup: int | None = None,
        total: int | None = None,
    ) -> None:
        """Change the formula: from the next update on it counts as if it had always been this one.

        What steering has scaled stays scaled, and a rate that is held stays held.
        """
        if self.schedule == "constant" and self.planned == self.base:
            # The constant rate was set by hand: it is the base, to the last digit.
            self.base, self.factor = self.asked, 1.0
        self.asked = self.planned = 0.0
        self.schedule = self.schedule if schedule is None else schedule
        self.minimum = self.minimum if minimum is None else minimum
        self.warmup = self.warmup if warmup is None else warmup
        self.total = self.total if total is None else total


def build_rates(config: RunConfig) -> Rates:
    """Return the rates of a run."""
    return Rates(config.schedule, config.lr, config.min_lr, config.warmup_steps, config.schedule_length)


def build_optimizer(config: RunConfig, model: nn.Module) -> optim.ZSpaceOptimizer:
    """Return the optimizer of a run, in its mode; riemannian moves the weights, see `enter_mode`."""
    optimizer = optim.ZSpaceOptimizer(
        config.lr,
        momentum=config.momentum if config.optimizer == "sgd" else 0.0,
        adam=ADAM_BETAS if config.optimizer == "adam" else None,
        weight_decay=config.weight_decay,
        groups=GROUPS,
    )
    enter_mode(optimizer, model, config.mode, config.curvature)
    return optimizer


def enter_mode(optimizer: optim.ZSpaceOptimizer, model: nn.Module, name: str, curvature: float) -> None:
    r"""Change the geometry of the steps to come; the rate in force carries over, momentum starts from rest.

    Entering riemannian mode puts every weight that is a point into the ball: straight weights are taken as tangent
    vectors at the origin, and the exponential map there, :math:`w \to \tanh(s\|w\|)\,w / (s\|w\|)`, leads to points
    that all lie inside. Pulling only those that are outside onto the rim would freeze them: in float32 a gradient there
    counts 1e-7 of what it does at the origin.

    Notes
    -----
    Source: Ganea, Bécigneul and Hofmann 2018, section 2.4.
    """
    mode = optim.OptimizerMode(name, curvature if name in optim.OptimizerMode.HYPERBOLIC else None)
    if name == "riemannian" and optimizer.mode.name != name:
        riemannian.lift([p for p in model.parameters() if optim.group_of(p, GROUPS).hyperbolic], curvature)
    optimizer.set_mode(mode)
    optimizer.prepare_module(model)
