"""How many compiled kernels torch keeps, settled before torch starts.

oneDNN compiles one for each shape of a product and keeps the last 1,024, of some hundred kilobytes each. A step of
many layers needs some thirty, and batches of many lengths hardly ever ask for those of an earlier batch again: what
is kept grows to hundreds of megabytes, and lies between larger blocks, which cannot be given back for it.
"""

import os
from typing import Final

CAPACITY: Final = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
SET_BY_USER: Final = (CAPACITY, "DNNL_PRIMITIVE_CACHE_CAPACITY")
ENOUGH: Final = 256


def bound_kernels() -> None:
    """Let oneDNN keep as many as several steps need; what the user has set stands."""
    if os.environ.keys().isdisjoint(SET_BY_USER):
        os.environ[CAPACITY] = str(ENOUGH)
