"""Geometry of the Z-space ball: curvature, the projector, the conformal factor. Plain NumPy, no layers, no kernels."""

from __future__ import annotations

from spiral_core.zspace import poincare as poincare
from spiral_core.zspace.ball import (
    check_curvature as check_curvature,
)
from spiral_core.zspace.ball import (
    check_gain as check_gain,
)
from spiral_core.zspace.ball import (
    conformal_factor as conformal_factor,
)
from spiral_core.zspace.ball import (
    root_curvature as root_curvature,
)
from spiral_core.zspace.natural import (
    natural_radius as natural_radius,
)
from spiral_core.zspace.natural import (
    natural_saturation as natural_saturation,
)
from spiral_core.zspace.projector import (
    GAIN_FLOOR as GAIN_FLOOR,
)
from spiral_core.zspace.projector import (
    Projection as Projection,
)
from spiral_core.zspace.projector import (
    effective_gain as effective_gain,
)
from spiral_core.zspace.projector import (
    project as project,
)
