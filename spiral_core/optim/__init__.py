"""Optimizers, one per file, the geometries that they step in, schedules of rates, and the gradient norm."""

from __future__ import annotations

from spiral_core.optim.adam import Adam as Adam
from spiral_core.optim.clipping import clip_gradient_norm as clip_gradient_norm
from spiral_core.optim.group import NORMS_AND_BIASES as NORMS_AND_BIASES
from spiral_core.optim.group import ParameterGroup as ParameterGroup
from spiral_core.optim.group import group_of as group_of
from spiral_core.optim.mode import OptimizerMode as OptimizerMode
from spiral_core.optim.optimizer import Optimizer as Optimizer
from spiral_core.optim.optimizer import gradient_norm as gradient_norm
from spiral_core.optim.schedule import ConstantScheduler as ConstantScheduler
from spiral_core.optim.schedule import Scheduler as Scheduler
from spiral_core.optim.schedule import WarmupCosineRestartScheduler as WarmupCosineRestartScheduler
from spiral_core.optim.schedule import WarmupCosineScheduler as WarmupCosineScheduler
from spiral_core.optim.sgd import SGD as SGD
from spiral_core.optim.zspace import ZSpaceOptimizer as ZSpaceOptimizer
