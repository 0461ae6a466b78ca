"""The optimizer that steps in a chosen geometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from spiral_core.arrays import AnyArray, Float
from spiral_core.errors import ArgumentError, NonFiniteError, StateDictError, StateError
from spiral_core.nn import Module, Parameter
from spiral_core.optim import riemannian
from spiral_core.optim.clipping import check_max_norm, clip_factor
from spiral_core.optim.group import NORMS_AND_BIASES, ParameterGroup, group_of
from spiral_core.optim.mode import OptimizerMode
from spiral_core.optim.optimizer import (
    Optimizer,
    check_decay,
    check_gradients,
    check_rate,
    checked_slots,
    gradient_is_finite,
    gradient_norm,
)
from spiral_core.optim.rule import KERNELS, Rule
from spiral_core.optim.together import Together
from spiral_core.zspace import poincare

_SCALARS = {"lr", "mode", "mode_lr", "curvature", "ratio"}


class ZSpaceOptimizer(Optimizer):
    r"""Descend in one of four modes, which can be changed while a model trains.

    ============ ================================================================================
    euclidean    :math:`w \leftarrow w - \eta\, d(g)`
    realgrad     the same, from a tape that gradients are gathered on
    hypergrad    the reference system's step, see `spiral_core.optim.hypergrad`
    riemannian   :math:`w \leftarrow \exp_w(-\eta\, d)`, see `spiral_core.optim.riemannian`
    ============ ================================================================================

    where d is the gradient itself, its momentum, or Adam's direction.

    Parameters
    ----------
    lr : float                       eta, finite and > 0; a mode may bring its own
    momentum : float                 mu, in [0, 1)
    adam : (float, float), optional  beta1 and beta2: Adam instead of momentum
    eps : float                      epsilon of Adam
    weight_decay : float             lambda, >= 0; added to the gradient (to the tape's sum in hypergrad)
    max_norm : float, optional       clip all gradients of a step together, before they are bent
    groups : sequence of ParameterGroup
        The first that takes a parameter in decides; by default gamma, beta and bias take straight steps in every mode.

    Raises
    ------
    ArgumentError
        A value out of bounds.

    Examples
    --------
    >>> import numpy as np
    >>> from spiral_core import nn, optim
    >>> layer = nn.Linear("fc", 1, 1)
    >>> layer.weight.value[:] = 0.5
    >>> optimizer = optim.ZSpaceOptimizer(1e-2)
    >>> optimizer.set_mode(optim.OptimizerMode.riemannian(-1.0, 0.1))
    >>> optimizer.prepare_module(layer)
    >>> layer.weight.grad[:] = 1.0
    >>> optimizer.step(layer)
    >>> round(float(layer.weight.value[0, 0]), 6)
    0.485806

    Notes
    -----
    Once modules are prepared, ``step()`` and ``zero_grad()`` without a module act on all of them, as in `Optimizer`.
    `lr` is the rate that the next update uses for *every* parameter; excluded groups take straight steps of that rate.
    As with `Optimizer`, a step leaves the gradients as they are: call `zero_grad` before the next backward pass.
    Parameters whose names are in ``frozen`` take no part in a step, in any mode: no update, no decay, no pull into the
    ball, no movement of momentum, means and tapes, and no share in the norm that ``max_norm`` bounds.
    """

    KERNELS = KERNELS

    def __init__(
        self,
        lr: float,
        *,
        momentum: float = 0.0,
        adam: tuple[float, float] | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
        groups: Sequence[ParameterGroup] = (NORMS_AND_BIASES,),
    ) -> None:
        # Parameters come with `prepare_module`, so the base's own start, which asks for some, does not fit.
        self.parameters = []
        self._lr = check_rate(lr)
        self.weight_decay = check_decay(weight_decay)
        self.max_norm = None if max_norm is None else check_max_norm(max_norm)
        self.groups = tuple(groups)
        self.frozen: frozenset[str] = frozenset()
        self._rule = Rule(momentum, adam, eps)
        self._mode = OptimizerMode.euclidean()
        self._ratio = 1.0
        self._slots: dict[str, dict[str, AnyArray]] = {}
        self._rooms: dict[str, Float] = {}
        self._together: Together | None = None

    @property
    def kernels(self) -> tuple[str, ...]:
        """Names of the kernels that a step in the mode in force runs."""
        return self._rule.kernels(self._mode.name)

    # Rates.

    @property
    def mode(self) -> OptimizerMode:
        """The mode in force."""
        return self._mode

    @property
    def lr(self) -> float:
        """Learning rate that the next step uses: the mode's, or the optimizer's where the mode has none."""
        return self._lr if self._mode.lr is None else self._mode.lr

    @lr.setter
    def lr(self, value: float) -> None:
        rate = check_rate(value)
        if self._mode.lr is None:
            self._lr = rate
            return
        self._mode = self._mode.with_rate(rate)
        self._ratio = rate / self._lr if self._lr > 0 else self._ratio

    @property
    def fallback_learning_rate(self) -> float:
        """The optimizer's own rate, which a schedule sets, and which modes without a rate use."""
        return self._lr

    def set_rates(self, lr: float) -> None:
        """Set the fallback rate, and the mode's rate in the ratio that it was given to the fallback.

        Both are set from ``lr``, never multiplied onto what they were, so nothing drifts; 0 is allowed.
        """
        rate = check_rate(lr, zero=True)
        mode = self._mode if self._mode.lr is None else self._mode.with_rate(rate * self._ratio)
        self._lr, self._mode = rate, mode

    @property
    def momentum(self) -> float:
        """Momentum mu of the steps to come, in [0, 1)."""
        return self._rule.momentum

    @momentum.setter
    def momentum(self, value: float) -> None:
        """Set it.

        Raises
        ------
        ArgumentError
            Out of bounds, or the optimizer is Adam, whose momentum is beta1; nothing was changed.
        """
        rule = Rule(value, self._rule.adam, self._rule.eps)
        if self._rule.momentum == 0:
            # Without momentum a velocity is not carried along to the new points, so it means nothing there.
            for slots in self._slots.values():
                if "velocity" in slots:
                    slots["velocity"].fill(0)
        self._rule = rule

    # Modes and modules.

    def set_mode(self, mode: OptimizerMode) -> None:
        """Change the mode: tapes, momentum and means of the old one are dropped.

        A mode without a rate of its own carries on with the rate in force. Except in euclidean mode, modules must be
        prepared again.
        """
        if mode.lr is None:
            self._lr = self.lr
        self._ratio = 1.0 if mode.lr is None or self._lr == 0 else mode.lr / self._lr
        self._mode = mode
        self._slots = {}
        self._together = None

    def prepare_module(self, module: Module, *, project: bool = False) -> None:
        """Take in the parameters of a module and give them the tapes and means of the mode, empty.

        Parameters
        ----------
        module : Module
        project : bool    riemannian: pull points outside the ball onto its margin, instead of refusing them

        Raises
        ------
        ArgumentError
            Another parameter has the same name, or, in riemannian mode, points lie outside the ball; nothing changed.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for parameter in module.parameters():
            if known.setdefault(parameter.name, parameter) is not parameter:
                raise ArgumentError(f"two parameters are called {parameter.name!r}; give each its own name")
        curved = [parameter for parameter in module.parameters() if self._on_ball(parameter)]
        if not project:
            self._check_inside(curved, ArgumentError)
        for parameter in curved if project else ():
            points = riemannian.as_points(parameter.value)
            points[...] = poincare.project_inside(points, self._mode.kappa)
        self.parameters = list(known.values())
        for parameter in module.parameters():
            self._slots[parameter.name] = self._fresh(parameter, self._mode)

    def _check_inside(self, parameters: Sequence[Parameter], error: type[ArgumentError] | type[StateError]) -> None:
        if parameters:
            riemannian.check_inside(parameters, self._mode.kappa, error)

    def _bends(self, parameter: Parameter, mode: OptimizerMode) -> bool:
        return mode.hyperbolic and group_of(parameter, self.groups).hyperbolic

    def _on_ball(self, parameter: Parameter) -> bool:
        return self._mode.name == "riemannian" and self._bends(parameter, self._mode)

    def _fresh(self, parameter: Parameter, mode: OptimizerMode) -> dict[str, AnyArray]:
        bends = self._bends(parameter, mode)
        slots = self._rule.slots(parameter.value, points=bends and mode.name == "riemannian")
        if mode.name == "realgrad" or (mode.name == "hypergrad" and bends):
            slots["tape"] = np.zeros_like(parameter.value)
        return slots

    def _chosen(self, module: Module | None) -> list[Parameter]:
        """Return the parameters to act on, all of them prepared."""
        if module is not None and self._mode.name == "euclidean":
            if any(parameter.name not in self._slots for parameter in module.parameters()):
                self.prepare_module(module)
        elif self._mode.name == "euclidean":
            for parameter in self.parameters:
                if parameter.name not in self._slots:
                    self._slots[parameter.name] = self._fresh(parameter, self._mode)
        chosen = self.parameters if module is None else module.parameters()
        strangers = () if module is None else {id(p) for p in chosen} - {id(p) for p in self.parameters}
        stray = [p.name for p in chosen if p.name not in self._slots or id(p) in strangers]
        if stray or not chosen:
            raise StateError(
                f"not prepared for mode {self._mode.name}: {stray or 'anything'}; call prepare_module first"
            )
        return chosen

    def _thawed(self, module: Module | None) -> list[Parameter]:
        return [parameter for parameter in self._chosen(module) if parameter.name not in self.frozen]

    # Steps.

    def zero_grad(self, module: Module | None = None) -> None:
        """Set the gradients to zero and clear the tapes."""
        for parameter in self.parameters if module is None else module.parameters():
            parameter.grad.fill(0)
            slots = self._slots.get(parameter.name)
            if slots is not None and "tape" in slots:
                slots["tape"].fill(0)

    def accumulate(self, module: Module | None = None) -> None:
        """Move the gradients onto the tapes, and set them to zero: call it after each of several backward passes.

        In hypergrad mode each pass is then compressed for itself, as in the reference system. Where a parameter has no
        tape, its gradient simply stays and gathers.

        Raises
        ------
        NonFiniteError
            Hypergrad, and a gradient is not finite; nothing was moved.
        """
        chosen = self._thawed(module)
        factor = self._clip_factor(chosen)
        for parameter in chosen:
            if "tape" in self._slots[parameter.name]:
                self._gathered(parameter, factor)
                parameter.grad.fill(0)

    def _clip_factor(self, chosen: Sequence[Parameter]) -> float:
        """Return what the gradients are multiplied by, after refusing those that cannot be bent."""
        for parameter in chosen if self._mode.hyperbolic else ():
            if self._bends(parameter, self._mode) and not gradient_is_finite(parameter):
                raise NonFiniteError(f"{parameter.name}: the gradient is not finite; nothing was changed")
        return 1.0 if self.max_norm is None else clip_factor(gradient_norm(chosen), self.max_norm)

    def _gathered(self, parameter: Parameter, factor: float) -> Float:
        """Add the (clipped) gradient to the tape and return that, or the gradient where there is none."""
        grad = parameter.grad
        if factor != 1.0:
            grad = np.multiply(grad, grad.dtype.type(factor), out=self._scratch(parameter))
        tape = self._slots[parameter.name].get("tape")
        if tape is None:
            return grad
        self._rule.gather(tape, grad, self._mode.curvature)
        return tape

    def _scratch(self, parameter: Parameter) -> Float:
        """Return an array like the parameter with old or no content, always the same one."""
        room = self._rooms.get(parameter.name)
        if room is None or room.shape != parameter.value.shape or room.dtype != parameter.value.dtype:
            room = self._rooms[parameter.name] = np.empty_like(parameter.value)
        return room

    def step(self, module: Module | None = None) -> None:
        """Update the parameters of a module, or of every prepared one, and clear the tapes.

        Raises
        ------
        NonFiniteError
            A hyperbolic step, and a gradient is not finite (straight steps let it show in the weights).
        ShapeError
            A gradient has not the shape of its value.
        StateError
            The module was not prepared for the mode, or a point has left the ball. In each case nothing was changed.
        """
        chosen = self._thawed(module)
        self._check_inside([parameter for parameter in chosen if self._on_ball(parameter)], StateError)
        factor = self._clip_factor(chosen)
        if factor == 1.0 and (together := self._all_straight(chosen)) is not None:
            together.step(self.lr, self._rule.momentum)
            return
        check_gradients(chosen)
        for parameter in chosen:
            grad, decay = self._gathered(parameter, factor), self._decay(parameter)
            slots = self._slots[parameter.name]
            if not self._bends(parameter, self._mode):
                self._rule.straight(parameter.value, grad, slots, self.lr, decay)
            elif self._mode.name == "hypergrad":
                room = self._scratch(parameter)
                self._rule.hypergrad(parameter.value, grad, slots, self._mode.kappa, self.lr, decay, room)
            else:
                self._rule.riemannian(parameter.value, grad, slots, self._mode.kappa, self.lr, decay)
            if "tape" in slots:
                slots["tape"].fill(0)

    def _decay(self, parameter: Parameter) -> float:
        own = group_of(parameter, self.groups).weight_decay
        return self.weight_decay if own is None else own

    def _all_straight(self, chosen: Sequence[Parameter]) -> Together | None:
        """Return what steps all parameters in one call, where the mode and the rule allow that."""
        if self._mode.name != "euclidean" or self._rule.adam is not None:
            return None
        terms = self.weight_decay, tuple(self.groups)
        if self._together is None or not self._together.fits(chosen, self._slots, terms):
            velocities = [self._slots[parameter.name]["velocity"] for parameter in chosen]
            self._together = Together.of(chosen, velocities, list(map(self._decay, chosen)), terms)
        return self._together

    # State.

    def slots(self) -> dict[str, AnyArray]:
        """Return tapes, velocities and means, as ``tape.fc.weight``."""
        return {f"{kind}.{name}": array for name, slots in self._slots.items() for kind, array in slots.items()}

    def state_dict(self) -> dict[str, AnyArray]:
        """Return copies of the arrays, the rates and the mode.

        Raises
        ------
        StateError
            The mode was changed, and modules were not prepared for it.
        """
        if self.parameters:
            self._chosen(None)
        return {
            **{name: array.copy() for name, array in self.slots().items()},
            "lr": np.array(self._lr),
            "ratio": np.array(self._ratio),
            **self._mode.numbers(),
        }

    def load_state_dict(self, state: Mapping[str, AnyArray]) -> None:
        """Load what `state_dict` gave, the mode too; all of it or nothing. Prepare the modules beforehand.

        Raises
        ------
        StateDictError
            A name missing or unknown, or a value that does not fit. Nothing was loaded.
        """
        missing = sorted(_SCALARS - set(state))
        if missing:
            raise StateDictError(f"state dict lacks {missing}")
        try:
            rate = check_rate(float(state["lr"]), zero=True)
            ratio = check_rate(float(state["ratio"]), zero=True)
            mode = OptimizerMode.from_numbers(state)
        except (ArgumentError, TypeError, ValueError) as error:
            raise StateDictError(f"lr, ratio, mode, mode_lr or curvature: {error}") from error
        fresh = {parameter.name: self._fresh(parameter, mode) for parameter in self.parameters}
        flat = {f"{kind}.{name}": array for name, slots in fresh.items() for kind, array in slots.items()}
        values = checked_slots(flat, state, _SCALARS, self._refuse)
        for name, array in flat.items():
            array[...] = values[name]
        self._lr, self._ratio, self._mode, self._slots = rate, ratio, mode, fresh

    def _refuse(self, name: str, value: AnyArray) -> str | None:
        return "cannot be negative" if name.startswith(("second.", "steps.")) and (value < 0).any() else None
