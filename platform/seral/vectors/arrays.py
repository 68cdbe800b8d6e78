"""Types of the arrays that selection works on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Strings = NDArray[np.str_]


Floats = NDArray[np.float32]


Rows = NDArray[np.intp]


Stored = NDArray[np.float16] | NDArray[np.float32]
"""Features: kept in half precision where they come so."""


Doubles = NDArray[np.float64]
