"""How a run's weights are updated: optimizer, geometry, and the rate of each update."""

from __future__ import annotations

from dataclasses import dataclass

from spiral_core import nn, optim
from spiral_core.engine.config import RunConfig
from spiral_core.optim import riemannian

GROUPS = (optim.ParameterGroup(optim.NORMS_AND_BIASES.endings, hyperbolic=False, weight_decay=0.0),)
"""Scales, shifts and biases are no points of a ball, and pulling them to zero would switch a norm off."""

ADAM_BETAS = (0.9, 0.999)
"""Kingma and Ba 2015, section 2."""


@dataclass
class Rates:
    """The learning rate of each update: that of a schedule, as steering has scaled it.

    Whoever sets the rate of the next update sets it exactly, and the schedule goes on from there in proportion: half
    the rate now means half of every rate to come. Where the schedule has come down to zero there is no proportion; a
    rate that is set there holds until the schedule rises again.

    Parameters
    ----------
    schedule : Scheduler
        Asked for single rates; its own count is not used.
    """

    schedule: optim.Scheduler
    asked: float = 0.0
    """The rate that was set last; 0 before any was."""
    planned: float = 0.0
    """What the schedule had for that update."""

    def at(self, number: int) -> float:
        """Return the rate of update ``number`` >= 1."""
        rate = self.schedule.rate_at(number)
        if self.asked == 0.0:
            return rate
        if rate == self.planned:
            return self.asked
        return rate * (self.asked / self.planned) if self.planned > 0 else rate

    def steer(self, number: int, rate: float) -> None:
        """Set the rate of update ``number``, and scale those after it."""
        self.asked, self.planned = rate, self.schedule.rate_at(number)


def build_rates(config: RunConfig) -> Rates:
    """Return the rates of a run."""
    if config.schedule == "constant":
        return Rates(optim.ConstantScheduler(config.lr, config.warmup_steps))
    kind = optim.WarmupCosineScheduler if config.schedule == "warmup-cosine" else optim.WarmupCosineRestartScheduler
    return Rates(kind(config.lr, config.min_lr, config.warmup_steps, config.schedule_length))


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
