"""``boston_housing.load_data`` as Keras has it."""

from __future__ import annotations

from distgrad.keras.datasets.tables import Pair, load_table

_SHA256 = "f553886a1f8d56431e820c5b82552d9d95cfcb96d1e678153f8839538947dff5"


def load_data(
    path: str = "boston_housing.npz", test_split: float = 0.2, seed: int = 113
) -> tuple[Pair, Pair]:
    """``(x_train, y_train), (x_test, y_test)``: 13 measures of 506 towns, prices in k$.

    One of the measures assumes that segregation moves prices: prefer ``california_housing``.
    Downloaded to ``~/.keras/datasets`` once, with its hash verified. Raises ValueError for a
    ``test_split`` outside of [0, 1), DataError where the file cannot be had. Source: StatLib.
    """
    return load_table(path, "boston_housing.npz", _SHA256, test_split, seed)
