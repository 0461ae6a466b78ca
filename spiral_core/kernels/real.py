"""Scalar functions that kernels call in their inner loops."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from spiral_core.kernels.accelerate import choose_by_dtype

TANH_ERROR_FLOAT32 = 5e-7
"""Bound on the relative error of `tanh` in float32, and so also on its absolute error (about 4 units in the last
place). Tested over a dense grid."""

# tanh(x) / x = P(x^2) / Q(x^2): least squares on Chebyshev nodes of [0, 9], reweighted towards equal relative error
# until that was 2.1e-8 everywhere. Lowest power first.
TANH_TOP: Final = (1.0, 0.13381024, 0.0034955866, 2.0609057e-05, 1.3354629e-08)
TANH_BOTTOM: Final = (1.0, 0.4671434, 0.025876977, 0.0003285632, 7.7765446e-07)
TANH_END: Final = 9.4
"""Where the argument is held. Beyond 9.02 the true value rounds to 1; here the fit is 3e-7 above 1, so that it is cut
to exactly 1 whatever the compiler makes of its sums. Between the two it may be one rounding below."""

_FIT_END, _ONE = np.float32(TANH_END), np.float32(1)
_, _P1, _P2, _P3, _P4 = (np.float32(value) for value in TANH_TOP)
_, _Q1, _Q2, _Q3, _Q4 = (np.float32(value) for value in TANH_BOTTOM)


def tanh(x: Any) -> Any:  # noqa: ANN401 - a scalar of either float type, and the same type comes back
    """Return tanh of one number, in the float type of the number.

    Notes
    -----
    float64 uses the C library. float32 uses a rational form of relative error below `TANH_ERROR_FLOAT32`, because
    the C library is called one number at a time and stops the compiler from working on whole vectors. Both are
    at most 1 in size and exactly 1 from 9.4 on in float32, keep the sign, and return NaN for NaN.
    """
    return _tanh_float32(x) if isinstance(x, np.float32) else _tanh_float64(x)


def _tanh_float32(x: Any) -> Any:  # noqa: ANN401
    # Comparisons that are false for NaN leave the NaN in place.
    a = _FIT_END if x > _FIT_END else x
    a = -_FIT_END if a < -_FIT_END else a
    u = a * a
    p = _ONE + u * (_P1 + u * (_P2 + u * (_P3 + u * _P4)))
    q = _ONE + u * (_Q1 + u * (_Q2 + u * (_Q3 + u * _Q4)))
    t = a * p / q
    t = _ONE if t > _ONE else t
    return -_ONE if t < -_ONE else t


def _tanh_float64(x: Any) -> Any:  # noqa: ANN401
    return math.tanh(x)


choose_by_dtype(tanh, float32=_tanh_float32, float64=_tanh_float64)
