"""Steps in curved geometries: along geodesics of the Poincaré ball, and those of the reference system.

Points are columns, as in `spiral_core.zspace.poincare`, which holds the definitions; what one point needs besides its
own coordinates is a few numbers, so nothing is allocated. Those numbers are float64 whatever the arrays are.
"""

from __future__ import annotations

import math

import numpy as np

from spiral_core.arrays import Float
from spiral_core.kernels.accelerate import kernel


@kernel("float64({f}[:,::1], int64)")
def column_length(v: Float, j: int) -> float:
    """Return the Euclidean length of one column, scaled, so that no square under- or overflows.

    Parameters
    ----------
    v : (K, P)
    j : int       the column
    """
    largest = 0.0
    for i in range(v.shape[0]):
        largest = max(largest, np.float64(abs(v[i, j])))
    scale = largest if 0.0 < largest < math.inf else 1.0
    total = 0.0
    for i in range(v.shape[0]):
        part = np.float64(v[i, j]) / scale
        total += part * part
    return scale * math.sqrt(total)


@kernel("float64({f}[:,::1])")
def longest_column(v: Float) -> float:
    """Return the length of the longest column, 0 where there is none; NaN columns do not count.

    Parameters
    ----------
    v : (K, P)
    """
    longest = 0.0
    for j in range(v.shape[1]):
        length = column_length(v, j)
        if length > longest:
            longest = length
    return longest


@kernel("float64({f}[:,::1], int64, float64)")
def boundary_gap(x: Float, j: int, curvature: float) -> float:
    r"""Return :math:`1 - s^2\|x\|^2` of one column, twice the inverse of its conformal factor.

    Parameters
    ----------
    x : (K, P)
    j : int            the column
    curvature : float  kappa < 0
    """
    relative = math.sqrt(-curvature) * column_length(x, j)
    # (1 - r)(1 + r) keeps digits that 1 - r^2 loses near the boundary.
    return (1.0 - relative) * (1.0 + relative)


@kernel("void({f}[:,::1], {f}[:,::1], int64, float64, float64, float64, boolean)")
def follow_geodesic(x: Float, v: Float, j: int, pace: float, curvature: float, limit: float, carries: bool) -> None:
    r"""Move one point to :math:`\exp_x(-p\,v)`, and carry v along to it; a point that does not move keeps every bit.

    Parameters
    ----------
    x : (K, P)            points, updated
    v : (K, P)            tangent vectors, updated where they are carried
    j : int               the column
    pace : float          p >= 0
    curvature : float     kappa < 0
    limit : float         no point ends farther from the origin, in units of length
    carries : bool        whether v is transported along

    Notes
    -----
    The new point is a sum of x and v with two coefficients, so it is nowhere kept: it is computed again where it is
    needed. Sources as in `spiral_core.zspace.poincare`.
    """
    c = -curvature
    s = math.sqrt(c)
    length = column_length(v, j)
    if pace * length == 0.0:
        return
    gap = boundary_gap(x, j, curvature)
    reach = math.tanh(s * pace * length / gap) / s
    reach = limit if reach > limit else reach
    q = -reach / length
    xx, xv, both = 0.0, 0.0, 0.0
    for i in range(x.shape[0]):
        a, b = np.float64(x[i, j]), np.float64(v[i, j])
        xx += a * a
        xv += a * b
        # Not as xx + 2 xy + yy, which cancels near the boundary, where y is nearly -x.
        both += (a + q * b) * (a + q * b)
    below = gap * ((1.0 - s * reach) * (1.0 + s * reach)) + c * both
    along_x = (1.0 + 2.0 * c * q * xv + c * reach * reach) / below
    along_v = gap * q / below
    rr = 0.0
    for i in range(x.shape[0]):
        r = along_x * x[i, j] + along_v * v[i, j]
        rr += r * r
    shorter = limit / math.sqrt(rr) if math.sqrt(rr) > limit else 1.0
    along_x, along_v = along_x * shorter, along_v * shorter
    moved = False
    rr, xr, rv, apart = 0.0, 0.0, 0.0, 0.0
    for i in range(x.shape[0]):
        r = x.dtype.type(along_x * x[i, j] + along_v * v[i, j])
        moved = moved or r != x[i, j]
        a, b, d = np.float64(x[i, j]), np.float64(v[i, j]), np.float64(r)
        rr += d * d
        xr += a * d
        rv += d * b
        apart += (d - a) * (d - a)
    if not moved:
        return
    relative = s * math.sqrt(rr)
    gap_r = (1.0 - relative) * (1.0 + relative)
    below = gap * gap_r + c * apart
    turn_r = 2.0 * (-c * c * rv * xx - c * xv + 2.0 * c * c * xr * xv) / below
    turn_x = 2.0 * (c * c * xv * rr - c * rv) / below
    for i in range(x.shape[0]):
        r = x.dtype.type(along_x * x[i, j] + along_v * v[i, j])
        if carries:
            v[i, j] = (v[i, j] + turn_r * r - turn_x * x[i, j]) * (gap_r / gap)
        x[i, j] = r


@kernel("void({f}[:,::1], {f}[:,::1], {f}[:,::1], float64, float64, float64, float64, float64)")
def geodesic_update(
    x: Float,
    grad: Float,
    velocity: Float,
    curvature: float,
    limit: float,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> None:
    r"""Apply one step of descent on the ball, with momentum that is carried along.

    .. math:: v \leftarrow \mu v + \lambda_x^{-2} (g + \lambda x), \qquad x \leftarrow \exp_x(-\eta v), \qquad
              v \leftarrow \mathrm{PT}(v)

    Parameters
    ----------
    x, velocity : (K, P)          points and v, updated
    grad : (K, P)                 g
    curvature                     kappa < 0
    limit                         no point ends farther from the origin, in units of length
    lr, momentum, weight_decay    eta, mu, lambda

    Notes
    -----
    Source: Bonnabel 2013.
    """
    for j in range(x.shape[1]):
        half = 0.5 * boundary_gap(x, j, curvature)
        for i in range(x.shape[0]):
            velocity[i, j] = momentum * velocity[i, j] + half * half * (grad[i, j] + weight_decay * x[i, j])
        follow_geodesic(x, velocity, j, lr, curvature, limit, momentum != 0.0)


@kernel(
    "void({f}[:,::1], {f}[:,::1], {f}[:,::1], {f}[::1], float64, float64, float64, float64, float64, float64, float64,"
    " float64, float64)"
)
def geodesic_adam_update(
    x: Float,
    grad: Float,
    first: Float,
    second: Float,
    curvature: float,
    limit: float,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    correction1: float,
    correction2: float,
) -> None:
    r"""Apply one step of Riemannian Adam: a running mean that is carried along, and one second moment for each point.

    Parameters
    ----------
    x, first : (K, P)            points and running means, updated
    grad : (K, P)                g
    second : (P,)                running mean of the squared Riemannian length of the gradient, updated
    curvature                    kappa < 0
    limit                        no point ends farther from the origin, in units of length
    lr, beta1, beta2, eps        eta and the constants of Adam
    weight_decay                 lambda; added to the gradient (not decoupled)
    correction1, correction2     1 - beta1^t and 1 - beta2^t

    Notes
    -----
    Source: Bécigneul and Ganea 2019, section 4.
    """
    for j in range(x.shape[1]):
        half = 0.5 * boundary_gap(x, j, curvature)
        total = 0.0
        for i in range(x.shape[0]):
            g = half * half * (grad[i, j] + weight_decay * x[i, j])
            first[i, j] = beta1 * first[i, j] + (1.0 - beta1) * g
            total += (g / half) * (g / half)
        second[j] = beta2 * second[j] + (1.0 - beta2) * total
        below = math.sqrt(second[j] / correction2) + eps
        follow_geodesic(x, first, j, lr / correction1 / below, curvature, limit, True)


@kernel("float64(float64, float64, float64)")
def saturated(v: float, most: float, bend: float) -> float:
    """Bend a number beyond ``most`` back below it; see `spiral_core.optim.hypergrad.saturate`."""
    size = abs(v)
    if not size > most:
        return v
    bent = most * (1.0 - bend * (size - most) / (size + most))
    return bent if v > 0 else -bent


@kernel("void({f}[::1], {f}[::1], float64, float64, float64)")
def gather_compressed(total: Float, grad: Float, kappa: float, most: float, bend: float) -> None:
    r"""Add a compressed gradient to a tape of the reference system, and bend sums that are too large.

    .. math:: A \leftarrow \mathrm{sat}\Bigl(A + \frac{g}{1 + |\kappa| g^2}\Bigr)

    Parameters
    ----------
    total : (E,)    A, updated
    grad : (E,)     g
    kappa           abs(kappa)
    most, bend      size beyond which a sum is bent, and the largest share that this takes off
    """
    for e in range(total.size):
        g = np.float64(grad[e])
        total[e] = saturated(total[e] + g / (1.0 + kappa * g * g), most, bend)


@kernel("void({f}[::1], {f}[::1], int64, int64, int64, float64, float64, float64, float64, float64)")
def pull_update(
    value: Float,
    direction: Float,
    rows: int,
    row_stride: int,
    stride: int,
    lr: float,
    kappa: float,
    root: float,
    most: float,
    bend: float,
) -> None:
    r"""Apply one step of the reference system, after which every row is pulled towards the origin.

    .. math:: w' = \mathrm{sat}\Bigl(w - \frac{\eta}{1 + |\kappa| w^2} A\Bigr), \qquad
              \mathrm{row} \leftarrow \mathrm{row}\,\frac{\tanh(\rho / s)}{\rho}, \quad \rho = \|\mathrm{row}\|

    Parameters
    ----------
    value : (E,)          w, updated
    direction : (E,)      A
    rows                  number of rows, of E / rows elements each
    row_stride, stride    elements from one row to the next, and from one element of a row to the next
    lr, kappa, root       eta, abs(kappa) and its square root s
    most, bend            as in `gather_compressed`
    """
    for row in range(rows):
        total = 0.0
        for k in range(value.size // rows):
            e = row * row_stride + k * stride
            w = np.float64(value[e])
            moved = saturated(w - lr / (1.0 + kappa * w * w) * direction[e], most, bend)
            value[e] = moved
            total += moved * moved
        length = math.sqrt(total)
        if length != 0.0:
            share = math.tanh(length / root) / length
            for k in range(value.size // rows):
                value[row * row_stride + k * stride] *= share
