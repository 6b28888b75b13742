"""Student's t distribution, by itself: its tails and its quantiles."""

import math

_STEPS = 300
_TINY = 1e-300
_EXACT = 1e-16
_HALVINGS = 200


def two_tails(t: float, freedom: float) -> float:
    """How likely a value at least as far from zero as `t` is, with so many degrees of freedom (Student 1908).

    >>> round(two_tails(2.0, 10), 6)
    0.073388
    """
    if math.isnan(t) or not freedom > 0:
        return math.nan
    if math.isinf(t):
        return 0.0
    if abs(t) < 1:  # the other way round, so that a small t is not lost beside 1
        return 1 - incomplete_beta(0.5, freedom / 2, t * t / (freedom + t * t))
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def quantile(confidence: float, freedom: float) -> float:
    """How far from zero a value stays with this probability.

    >>> round(quantile(0.95, 10), 6)
    2.228139
    """
    if not freedom > 0:
        return math.nan
    low, high = 0.0, 1.0
    while two_tails(high, freedom) > 1 - confidence:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if two_tails(middle, freedom) > 1 - confidence:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (Abramowitz and Stegun 26.5.8)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction, from its front (Lentz 1976)."""
    value, above, below = 1.0, 1.0, 0.0
    for step in range(1, _STEPS):
        term = _term(a, b, x, step)
        below = 1 / _not_zero(1 + term * below)
        above = _not_zero(1 + term / above)
        value *= above * below
        if abs(above * below - 1) < _EXACT:
            break
    return 1 / value


def _term(a: float, b: float, x: float, step: int) -> float:
    """The coefficient of a step, counted from 1."""
    half = step // 2
    if step % 2:
        return -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
    return half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
