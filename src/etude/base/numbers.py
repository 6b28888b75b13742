"""What counts as a number."""

import math
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number; true and false are none.

    >>> [is_number(value) for value in (1, 0.5, float("nan"), True, "1", None)]
    [True, True, True, False, False, False]
    """
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a number, and finite.

    >>> [is_finite(value) for value in (1, float("nan"), True)]
    [True, False, False]
    """
    return is_number(value) and math.isfinite(value)
