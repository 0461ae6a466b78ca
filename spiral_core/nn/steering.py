"""What the Z-space norms have in common: curvature and gain that can be steered, and what they say of their last pass.

The gain may also steer itself towards a radius: `ZSpaceNorm.adapt_projector_gain`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np

from spiral_core.arrays import F64, AnyArray
from spiral_core.errors import ArgumentError, StateError
from spiral_core.nn import observation
from spiral_core.nn.module import Module, StateEntry, check_number
from spiral_core.nn.observation import ZSpaceObservation, ZSpacePass, ZSpaceTelemetry
from spiral_core.nn.pass_means import PassMeans, means
from spiral_core.nn.workspace import Workspace
from spiral_core.zspace import check_curvature, check_gain, effective_gain

Signal = Literal["blended", "ball"]
"""Which radius auto-gain works on."""

SIGNALS: Final = ("blended", "ball")


@dataclass(frozen=True, eq=False)
class GainAdaptation(float):
    """The gain that auto-gain has set, as a plain number, and why it is that.

    Parameters
    ----------
    gain : float
        The gain now in force; the object itself is this number.
    radius : float
        The radius of the last pass, at the gain in force before this call.
    error : float
        Target minus ``radius``.
    reachable : (low, high)
        The radii that gains from 1 down to 0 would have given to the last pass.
    within_reach : bool
        Whether the target lies in that range, give or take the band. Where it does not, the gain goes to the nearer
        end and waits there.
    """

    gain: float
    radius: float
    error: float
    reachable: tuple[float, float]
    within_reach: bool

    def __new__(cls, gain: float, *_rest: object, **_named: object) -> Self:
        """Make the number; the fields are set by the initializer."""
        return super().__new__(cls, gain)


def settle_on(
    mean_normed: float, mean_radius: float, gain: float, target: float, smoothing: float, band: float
) -> GainAdaptation:
    r"""Move the gain towards the one that gives the blended radius asked for.

    Because n and p have the same sign, the mean blended radius of a pass is a straight line in the gain,

    .. math:: \overline{|p|}(g) = \overline{|n|} + g\,(\overline{r} - \overline{|n|}),

    which falls, as :math:`r \le |n|`. So the gain that hits the target is known exactly. It is clipped to [0, 1]
    *before* the gain moves towards it by the share ``smoothing``: there is no sum of errors that could wind up.

    Parameters
    ----------
    mean_normed, mean_radius : float   mean abs(n) and mean r of the last pass: the ends of the line
    gain : float                       in force
    target : float                     wanted mean abs(p)
    smoothing : float                  in (0, 1]
    band : float                       errors up to this size are left alone

    Returns
    -------
    GainAdaptation
        With the old gain where the error is inside the band, where the line is flat (all values are zero, or the ball
        is too large to bend them) and where the pass was not finite.
    """
    fall = mean_normed - mean_radius
    radius = mean_normed - effective_gain(gain) * fall
    error = target - radius
    within = mean_radius - band <= target <= mean_normed + band
    moved = gain
    if abs(error) > band and math.isfinite(fall) and fall > 0:
        aim = min(1.0, max(0.0, (mean_normed - target) / fall))
        moved = gain + smoothing * (aim - gain)
    return GainAdaptation(moved, radius, error, (mean_radius, mean_normed), within)


def integrate(mean_radius: float, gain: float, target: float, smoothing: float, band: float) -> GainAdaptation:
    """Add ``smoothing * (target - mean_radius)`` to the gain and clip it to [0, 1]: the rule of the reference system.

    No gain moves the ball radius, so this ends at gain 1 or runs in circles near 0; it is here for comparison only.
    """
    error = target - mean_radius
    moved = min(1.0, max(0.0, gain + smoothing * error)) if abs(error) > band else gain
    return GainAdaptation(moved, mean_radius, error, (mean_radius, mean_radius), abs(error) <= band)


def _refusal(value: AnyArray, *, gain: bool) -> str | None:
    try:
        (check_gain if gain else check_curvature)(float(value))
    except ArgumentError as error:
        return str(error)
    return None


class ZSpaceNorm(Module):
    """Part of every norm that projects whitened values into the ball."""

    features: int
    _curvature: float
    _gain: float

    # Steering.

    @property
    def projector_gain(self) -> float:
        """Gain g in force."""
        return self._gain

    def set_projector_gain(self, gain: float) -> None:
        """Set the gain of the passes to come.

        Raises
        ------
        ArgumentError
            Not a finite number in [0, 1]; the gain stays as it was.
        """
        self._gain = check_gain(gain)

    def with_projector_gain(self, gain: float) -> Self:
        """Set the gain and give the layer, for building models."""
        self.set_projector_gain(gain)
        return self

    @property
    def curvature(self) -> float:
        """Curvature kappa in force."""
        return self._curvature

    def set_curvature(self, curvature: float) -> None:
        """Set the curvature of the passes to come.

        Raises
        ------
        ArgumentError
            Not finite or not below zero; the curvature stays as it was.
        """
        self._curvature = check_curvature(curvature)

    def projector(self) -> tuple[float, float]:
        """Return curvature and gain in force."""
        return self._curvature, self._gain

    def adapt_projector_gain(
        self,
        target: float,
        smoothing: float = 0.1,
        band: float = 0.0,
        signal: Signal = "blended",
        *,
        workspace: Workspace | None = None,
    ) -> GainAdaptation:
        """Move the gain so that the passes to come have the mean radius asked for.

        Call it once after each forward pass.

        Parameters
        ----------
        target : float
            Wanted mean radius, in units of length; finite and at least 0.
        smoothing : float
            Share of the way to the right gain that one call goes, in (0, 1]. With ``signal="ball"`` the step per unit
            of error, which may exceed 1.
        band : float
            The gain stays while the error is no larger than this; finite and at least 0.
        signal : "blended" or "ball"
            The radius to act on. ``"blended"``, mean abs(p), is what the gain really moves: at curvature -1 and
            Gaussian data from 0.80 at gain 0 down to 0.56 at gain 1. ``"ball"``, mean r, is what the reference system
            acts on, though no gain can move it.
        workspace : Workspace, optional
            That of the pass to look at; the layer's own by default.

        Returns
        -------
        GainAdaptation
            The gain now in force; it also tells the error and the range within reach.

        Raises
        ------
        ArgumentError
            A value out of bounds; the gain stays as it was.
        StateError
            There was no pass.
        """
        named = f"{self.name}: "
        check_number(named + "target", target, 0.0)
        check_number(named + "band", band, 0.0)
        if signal not in SIGNALS:
            raise ArgumentError(f"{self.name}: signal must be one of {', '.join(SIGNALS)}, got {signal!r}")
        most = 1.0 if signal == "blended" else math.inf
        check_number(named + "smoothing", smoothing, 0.0, most, above=True)
        one = self._pass(workspace)
        if signal == "ball":
            done = integrate(float(observation.radius(one).mean()), self._gain, target, smoothing, band)
        else:
            normed, radius = observation.reach(one)
            done = settle_on(normed, radius, self._gain, target, smoothing, band)
        if math.isfinite(done):
            self._gain = done.gain
        return done

    # Telemetry.

    @abstractmethod
    def telemetry(self, workspace: Workspace | None = None) -> ZSpaceTelemetry:
        """Copy out everything about the last pass through ``workspace`` (the layer's own by default).

        Raises
        ------
        StateError
            There was none, or n was not kept and the input of the pass has been written to since.
        """

    def observe(self, workspace: Workspace | None = None) -> ZSpaceObservation:
        """Give the numbers of the last pass that curves are drawn from.

        Raises
        ------
        StateError
            There was none.
        """
        return observation.observe(self._pass(workspace))

    def pass_means(self, workspace: Workspace | None = None) -> PassMeans:
        """Give the means of the last pass, which cost nothing to speak of: the pass has summed them up anyway.

        Raises
        ------
        StateError
            There was none.
        """
        return means(self._pass(workspace))

    def last_ball_radius(self, workspace: Workspace | None = None) -> F64 | None:
        """Give the mean ball radius in the last pass, of each feature or each sample; None before the first."""
        try:
            return observation.radius(self._pass(workspace))
        except StateError:
            return None

    def _pass(self, workspace: Workspace | None) -> ZSpacePass:
        return (workspace if workspace is not None else self.workspace()).kept(self, ZSpacePass)

    # State.

    def state_entries(self) -> list[StateEntry]:
        """Return the entries of the norm underneath, then gain and curvature."""
        return [
            *super().state_entries(),
            StateEntry(
                f"{self.name}.projector_gain",
                lambda: np.array(self._gain),
                lambda value: self.set_projector_gain(float(value)),
                lambda value: _refusal(value, gain=True),
            ),
            StateEntry(
                f"{self.name}.curvature",
                lambda: np.array(self._curvature),
                lambda value: self.set_curvature(float(value)),
                lambda value: _refusal(value, gain=False),
            ),
        ]
