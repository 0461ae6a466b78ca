r"""The Poincaré ball of curvature :math:`\kappa < 0`: points with :math:`\|x\| < 1/s`, :math:`s = \sqrt{-\kappa}`.

Points and tangent vectors are the *columns* of arrays of shape (K, P): P points of K coordinates. Every function works
in the float type of its arrays.

Sources: Ungar 2008, *A Gyrovector Space Approach to Hyperbolic Geometry* (addition, gyration); Ganea, Bécigneul and
Hofmann 2018, *Hyperbolic Neural Networks*, section 2 (exponential map, distance, transport); Nickel and Kiela 2017
(Riemannian gradient).
"""

from __future__ import annotations

import numpy as np

from spiral_core.arrays import AnyArray, Float
from spiral_core.zspace.ball import check_curvature, root_curvature


def boundary_margin(dtype: np.dtype[np.floating]) -> float:
    r"""Return :math:`\delta = \sqrt{\epsilon}`: points are kept at relative radius :math:`s\|x\| \le 1 - \delta`.

    The conformal factor divides by :math:`1 - s^2\|x\|^2`, which is at least about :math:`2\delta` there, while its
    rounding error is a few :math:`\epsilon`; so the factor keeps half of the digits of the float type. The farthest
    point is :math:`\ln(2/\delta)/s` from the origin: 8.7/s in float32, 18.7/s in float64.
    """
    return float(np.sqrt(np.finfo(dtype).eps))


def norms(x: Float) -> Float:
    """Return the Euclidean norm of each column, (1, P); scaled, so that no square under- or overflows."""
    largest = np.abs(x).max(axis=0, keepdims=True)
    scale = np.where((largest > 0) & np.isfinite(largest), largest, 1).astype(x.dtype)
    length: Float = scale * np.sqrt(np.sum((x / scale) ** 2, axis=0, keepdims=True))
    return length


def conformal(x: Float, curvature: float) -> Float:
    r"""Return :math:`\lambda_x = 2 / (1 - s^2\|x\|^2)` of each column, (1, P)."""
    relative = root_curvature(curvature) * norms(x)
    # (1 - r)(1 + r) keeps digits that 1 - r^2 loses near the boundary.
    factor: Float = 2 / ((1 - relative) * (1 + relative))
    return factor


def _denominator(x: Float, y: Float, curvature: float) -> Float:
    """Return D = 1 + 2c xy + c^2 xx yy as (1 - c xx)(1 - c yy) + c |x + y|^2, a sum of terms that are not negative.

    The first form cancels to zero near the boundary, where y is nearly -x.
    """
    c = -check_curvature(curvature)
    gap = 4 / (conformal(x, curvature) * conformal(y, curvature))
    whole: Float = gap + c * np.sum((x + y) ** 2, axis=0, keepdims=True)
    return whole


def add(x: Float, y: Float, curvature: float) -> Float:
    r"""Add by Möbius.

    .. math:: x \oplus y = \frac{(1 + 2c\,x{\cdot}y + c\|y\|^2)\,x + (1 - c\|x\|^2)\,y}
              {1 + 2c\,x{\cdot}y + c^2\|x\|^2\|y\|^2}, \qquad c = -\kappa

    Parameters
    ----------
    x, y : (K, P)        points of the ball
    curvature : float    kappa < 0
    """
    c = -check_curvature(curvature)
    xy = np.sum(x * y, axis=0, keepdims=True)
    xx = np.sum(x * x, axis=0, keepdims=True)
    yy = np.sum(y * y, axis=0, keepdims=True)
    above = (1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y
    total: Float = above / _denominator(x, y, curvature)
    return total


def gyrate(x: Float, y: Float, w: Float, curvature: float) -> Float:
    r"""Turn w by the gyration of x and y, the rotation that repairs associativity.

    .. math:: \mathrm{gyr}[x, y]\,w = w + 2\,\frac{A x + B y}{D}, \quad
              A = -c^2 (x{\cdot}w)\|y\|^2 + c\,(y{\cdot}w) + 2c^2 (x{\cdot}y)(y{\cdot}w), \quad
              B = -c^2 (y{\cdot}w)\|x\|^2 - c\,(x{\cdot}w), \quad D = 1 + 2c\,x{\cdot}y + c^2\|x\|^2\|y\|^2

    The closed form is linear in w, so w may be any tangent vector (Ungar 2008, equation 1.27).
    """
    c = -check_curvature(curvature)
    xy, xw, yw = (np.sum(a * b, axis=0, keepdims=True) for a, b in ((x, y), (x, w), (y, w)))
    xx, yy = (np.sum(a * a, axis=0, keepdims=True) for a in (x, y))
    along_x = -c * c * xw * yy + c * yw + 2 * c * c * xy * yw
    along_y = -c * c * yw * xx - c * xw
    turned: Float = w + 2 * (along_x * x + along_y * y) / _denominator(x, y, curvature)
    return turned


def transport(x: Float, y: Float, v: Float, curvature: float) -> Float:
    r"""Carry the tangent vector v from x to y along the geodesic: :math:`\mathrm{gyr}[y, -x]\,v\,\lambda_x/\lambda_y`.

    The Riemannian length stays as it is.
    """
    carried: Float = gyrate(y, -x, v, curvature) * (conformal(x, curvature) / conformal(y, curvature))
    return carried


def project_inside(x: Float, curvature: float) -> Float:
    r"""Pull columns beyond relative radius :math:`1 - \delta` back onto it; others come back bit for bit."""
    limit = (1 - boundary_margin(x.dtype)) / root_curvature(curvature)
    length = norms(x)
    over = length > limit
    scale = np.where(over, limit / np.where(over, length, 1), 1).astype(x.dtype)
    inside: Float = np.where(over, x * scale, x)
    return inside


def outside(x: Float, curvature: float) -> AnyArray:
    r"""Tell for each column, (P,), whether it lies beyond :math:`1 - \delta/2`.

    Half the margin, so that no rounding makes a projected point count as outside. A NaN is not outside.
    """
    limit = 1 - boundary_margin(x.dtype) / 2
    beyond: AnyArray = (root_curvature(curvature) * norms(x) > limit)[0]
    return beyond


def exponential(x: Float, v: Float, curvature: float) -> Float:
    r"""Follow the geodesic that leaves x with velocity v for one unit of time.

    .. math:: \exp_x(v) = x \oplus \tanh\!\Bigl(\frac{s\,\lambda_x\,\|v\|}{2}\Bigr) \frac{v}{s\,\|v\|}

    The result is kept inside by `project_inside`; columns with v = 0 stay bit for bit.
    """
    s = root_curvature(curvature)
    length = norms(v)
    still = length == 0
    direction = v / np.where(still, 1, length).astype(v.dtype)
    reach = np.tanh(s * conformal(x, curvature) * length / 2) / s
    moved = project_inside(add(x, project_inside(direction * reach, curvature), curvature), curvature)
    result: Float = np.where(still, x, moved)
    return result


def distance(x: Float, y: Float, curvature: float) -> Float:
    r"""Return the distance of each column of x from that of y, (P,).

    .. math:: d(x, y) = \frac{2}{s}\,\mathrm{arsinh}\sqrt{\frac{c\,\|x - y\|^2}{(1 - c\|x\|^2)(1 - c\|y\|^2)}}

    The form with the hyperbolic sine keeps its digits both for near points and near the boundary.
    """
    s = root_curvature(curvature)
    half = s * norms(x - y) * np.sqrt(conformal(x, curvature) * conformal(y, curvature)) / 2
    length: Float = (2 / s * np.arcsinh(half))[0]
    return length


def riemannian_gradient(x: Float, grad: Float, curvature: float) -> Float:
    r"""Return :math:`\lambda_x^{-2}\, g`: the gradient in the metric of the ball."""
    scaled: Float = grad / conformal(x, curvature) ** 2
    return scaled
