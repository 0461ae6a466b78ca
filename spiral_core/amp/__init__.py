"""Mixed precision: products on rounded numbers, and scaling of the loss."""

from __future__ import annotations

from spiral_core.amp.autocast import AutocastGuard as AutocastGuard
from spiral_core.amp.autocast import autocast as autocast
from spiral_core.amp.scaler import GradScaler as GradScaler
