"""Optimizers, one per file, and the gradient norm."""

from __future__ import annotations

from spiral_core.optim.adam import Adam as Adam
from spiral_core.optim.optimizer import Optimizer as Optimizer
from spiral_core.optim.optimizer import gradient_norm as gradient_norm
from spiral_core.optim.sgd import SGD as SGD
