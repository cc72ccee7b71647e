"""What a FeatureSpace is told of its features and of their crosses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras import layers
from distgrad.keras.layers.core import one_of
from distgrad.keras.layers.input import Input
from distgrad.keras.layers.reviving import deserialize
from distgrad.keras.naming import auto_name
from distgrad.keras.registry import Configured
from distgrad.ops.casting import cast

_KERAS = "keras.src.layers.preprocessing.feature_space"


class Cross(Configured):
    """Features that count together: as one of ``crossing_dim`` numbers, by their hash.

    ``output_mode`` is "int" or "one_hot"; raises ValueError for another one.
    """

    _keras_module = _KERAS

    def __init__(
        self, feature_names: Sequence[str], crossing_dim: int, output_mode: str = "one_hot"
    ) -> None:
        self.feature_names = tuple(feature_names)
        self.crossing_dim = crossing_dim
        self.output_mode = one_of("output_mode", output_mode, "int", "one_hot")

    @property
    def name(self) -> str:
        return "_X_".join(self.feature_names)


class Feature(Configured):
    """A column: its dtype ("string" for texts), the layer for it, and what comes of that.

    ``output_mode`` is "float", "int", or "one_hot" for an "int" to be made a vector; raises
    ValueError for another one.
    """

    _keras_module = _KERAS

    def __init__(self, dtype: str, preprocessor: Any, output_mode: str) -> None:
        self.dtype = dtype
        given = isinstance(preprocessor, Mapping)
        self.preprocessor = deserialize(preprocessor) if given else preprocessor
        self.output_mode = one_of("output_mode", output_mode, "int", "one_hot", "float")

    def input(self, name: str) -> Any:
        """The input of a model for it. Raises TypeError for texts, which no tensor holds."""
        return Input((1,), dtype=self.dtype, name=name)


class TFDIdentity(layers.Layer):
    """Numbers as float32."""

    _keras_module = _KERAS
    casts_inputs = True

    def call(self, x: Tensor) -> Tensor:
        return cast(x, self.compute_dtype)


class Kinds:
    """The kinds of features, as functions that make them, or by their names."""

    @staticmethod
    def cross(
        feature_names: Sequence[str], crossing_dim: int, output_mode: str = "one_hot"
    ) -> Cross:
        """Features that count together."""
        return Cross(feature_names, crossing_dim, output_mode)

    @staticmethod
    def feature(dtype: str, preprocessor: Any, output_mode: str) -> Feature:
        """A feature with a layer of one's own."""
        return Feature(dtype, preprocessor, output_mode)

    @staticmethod
    def float(name: str | None = None) -> Feature:
        """Numbers as they are."""
        return Feature("float32", TFDIdentity(name=_named(name, "float"), dtype="float32"), "float")

    @staticmethod
    def float_rescaled(scale: Any = 1.0, offset: Any = 0.0, name: str | None = None) -> Feature:
        """``scale * x + offset``."""
        return Feature(
            "float32", layers.Rescaling(scale, offset, name=_named(name, "float_rescaled")), "float"
        )

    @staticmethod
    def float_normalized(name: str | None = None) -> Feature:
        """Numbers less their mean, by their deviation."""
        return Feature(
            "float32", layers.Normalization(name=_named(name, "float_normalized")), "float"
        )

    @staticmethod
    def float_discretized(
        num_bins: int | None,
        bin_boundaries: Any = None,
        output_mode: str = "one_hot",
        name: str | None = None,
    ) -> Feature:
        """The bin in which a number lies: one of as many as hold about the same of them."""
        layer = layers.Discretization(
            bin_boundaries, num_bins, name=_named(name, "float_discretized")
        )
        return Feature("float32", layer, output_mode)

    @staticmethod
    def integer_categorical(
        max_tokens: int | None = None,
        num_oov_indices: int = 1,
        output_mode: str = "one_hot",
        name: str | None = None,
    ) -> Feature:
        """Whole numbers by their place in a vocabulary."""
        layer = layers.IntegerLookup(
            max_tokens, num_oov_indices, name=_named(name, "integer_categorical")
        )
        return Feature("int32", layer, output_mode)

    @staticmethod
    def string_categorical(
        max_tokens: int | None = None,
        num_oov_indices: int = 1,
        output_mode: str = "one_hot",
        name: str | None = None,
    ) -> Feature:
        """Texts by their place in a vocabulary."""
        layer = layers.StringLookup(
            max_tokens, num_oov_indices, name=_named(name, "string_categorical")
        )
        return Feature("string", layer, output_mode)

    @staticmethod
    def string_hashed(
        num_bins: int, output_mode: str = "one_hot", name: str | None = None
    ) -> Feature:
        """Texts by their hash."""
        return Feature(
            "string", layers.Hashing(num_bins, name=_named(name, "string_hashed")), output_mode
        )

    @staticmethod
    def integer_hashed(
        num_bins: int, output_mode: str = "one_hot", name: str | None = None
    ) -> Feature:
        """Whole numbers by their hash."""
        return Feature(
            "int32", layers.Hashing(num_bins, name=_named(name, "integer_hashed")), output_mode
        )


def _named(name: str | None, kind: str) -> str:
    return f"{name or auto_name(kind)}_preprocessor"


_PLAIN = (
    *("float", "float_normalized", "float_rescaled"),
    *("integer_categorical", "string_categorical"),
)


def feature_of(name: str, kind: Any, hashing_dim: int, bins: int) -> Feature:
    """The feature that a Feature, its config or the name of a kind means; ValueError otherwise."""
    if isinstance(kind, Feature):
        return kind
    if isinstance(kind, Mapping):
        return Feature.from_config(kind["config"])
    if kind in _PLAIN:
        return getattr(Kinds, kind)(name=name)
    if kind == "float_discretized":
        return Kinds.float_discretized(bins, name=name)
    if kind in ("integer_hashed", "string_hashed"):
        return getattr(Kinds, kind)(hashing_dim, name=name)
    raise ValueError(
        f"Invalid feature type: {kind!r}. Known are {', '.join(_PLAIN)}, float_discretized, "
        "integer_hashed and string_hashed"
    )
