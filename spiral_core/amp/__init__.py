"""Mixed precision: scaling of the loss."""

from __future__ import annotations

from spiral_core.amp.scaler import GradScaler as GradScaler
