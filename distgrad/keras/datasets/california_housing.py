"""``california_housing.load_data`` as Keras has it."""

from __future__ import annotations

from distgrad.keras.datasets.tables import Pair, load_table

_SHA256 = "1a2e3a52e0398de6463aebe6f4a8da34fb21fbb6b934cf88c3425e766f2a1a6f"


def load_data(
    version: str = "large",
    path: str = "california_housing.npz",
    test_split: float = 0.2,
    seed: int = 113,
) -> tuple[Pair, Pair]:
    """``(x_train, y_train), (x_test, y_test)``: 8 measures of 20640 districts, values in $.

    ``version="small"`` has the first 600. Downloaded to ``~/.keras/datasets`` once, with its hash
    verified. Raises ValueError for another version or a ``test_split`` outside of [0, 1), DataError
    where the file cannot be had. Source: R. K. Pace and R. Barry, Sparse Spatial Autoregressions.
    """
    if version not in ("small", "large"):
        raise ValueError(
            f"Argument `version` must be one of 'small', 'large'. Received: version={version}"
        )
    most = 600 if version == "small" else None
    return load_table(path, "california_housing.npz", _SHA256, test_split, seed, most)
