"""How far a result may lie from its reference, per element type; tests never override it."""

from __future__ import annotations

import numpy as np

TOLERANCES: dict[str, tuple[float, float]] = {
    # dtype: (relative, absolute)
    "float64": (1e-12, 1e-12),
    "float32": (1e-5, 1e-5),
    "float16": (2e-3, 2e-3),
    "bfloat16": (2e-2, 2e-2),
}


def assert_close(
    actual: np.ndarray, expected: np.ndarray, what: str = "", computed_in: str = ""
) -> None:
    """Same shape and dtype, floats within the table's tolerance, everything else equal.

    The tolerance is that of `computed_in`, where the results were computed in a lower precision
    than they are stored in.
    """
    assert actual.shape == expected.shape, f"{what}: {actual.shape}, expected {expected.shape}"
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype}, expected {expected.dtype}"
    if expected.dtype.name not in TOLERANCES:
        np.testing.assert_array_equal(actual, expected, err_msg=what)
        return
    relative, absolute = TOLERANCES[computed_in or expected.dtype.name]
    wide = np.float64 if expected.dtype != np.float64 else expected.dtype
    np.testing.assert_allclose(
        actual.astype(wide), expected.astype(wide), rtol=relative, atol=absolute, err_msg=what
    )
