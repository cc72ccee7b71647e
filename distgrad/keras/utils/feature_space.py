"""FeatureSpace: the columns of a table as the inputs of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.data.dataset import Dataset
from distgrad.keras import layers, registry
from distgrad.keras.layers.core import one_of
from distgrad.keras.utils.features import Cross, Kinds, feature_of
from distgrad.ops.shape import reshape, squeeze


class FeatureSpace(Kinds, layers.Layer):
    """Makes one vector of the columns of a table, or a dict of what comes of each.

    ``features`` has a kind for each column (``FeatureSpace.float_normalized()`` or its name),
    ``crosses`` the groups of names that count together, too. ``output_mode`` is "concat" or "dict".
    ``adapt(dataset)`` comes first; then it is called on a dict of columns, of texts as arrays of
    str, also in ``Dataset.map``. Raises ValueError for unknown kinds, names and modes, for a call
    before ``adapt``, and for features that cannot be put into one vector.
    """

    _keras_module = "keras.src.layers.preprocessing.feature_space"
    optimizer = None  # (of a model in a file)

    def __init__(
        self,
        features: Mapping[str, Any],
        output_mode: str = "concat",
        crosses: Sequence[Any] | None = None,
        crossing_dim: int = 32,
        hashing_dim: int = 32,
        num_discretization_bins: int = 32,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if not features:
            raise ValueError("The `features` argument cannot be None or empty.")
        self.crossing_dim = crossing_dim
        self.hashing_dim = hashing_dim
        self.num_discretization_bins = num_discretization_bins
        self.features = {
            name: feature_of(name, kind, hashing_dim, num_discretization_bins)
            for name, kind in features.items()
        }
        self.crosses = [self._cross_of(each) for each in crosses or ()]
        self.output_mode = one_of("output_mode", output_mode, "dict", "concat")
        self.preprocessors: dict[str, Any] = {
            name: each.preprocessor for name, each in self.features.items()
        }
        self.crossers = {
            cross.name: layers.HashedCrossing(cross.crossing_dim, name=cross.name)
            for cross in self.crosses
        }
        self.one_hot_encoders: dict[str, Any] = {}
        self._is_adapted = not self._to_adapt()
        self._inputs: dict[str, Any] | None = None
        self._encoded: Any = None

    def _cross_of(self, given: Any) -> Cross:
        if isinstance(given, Cross):
            return given
        if isinstance(given, Mapping):
            return Cross.from_config(given["config"])
        if unknown := [name for name in given if name not in self.features]:
            raise ValueError(
                "All features referenced in the `crosses` argument should be present in the "
                f"`features` dict. Received unknown features: {unknown}"
            )
        return Cross(given, self.crossing_dim)

    # What the data say

    def _to_adapt(self) -> list[str]:
        """The features whose layers learn from data what they were not given."""
        return [
            name
            for name, layer in self.preprocessors.items()
            if hasattr(layer, "adapt") and not _knows_all(layer)
        ]

    def adapt(self, dataset: Any) -> None:
        """Lets the layers learn from a Dataset of dicts, or from a dict of columns.

        Raises ValueError for anything else.
        """
        if isinstance(dataset, Mapping):
            dataset = Dataset.from_tensor_slices(dict(dataset))
        if not isinstance(dataset, Dataset):
            raise ValueError(
                "`adapt()` can only be called on a tf.data.Dataset or a dict of arrays/lists. "
                f"Received instead: {dataset} (of type {type(dataset)})"
            )
        for name in self._to_adapt():
            column = dataset.map(lambda row, name=name: row[name])
            if not np.ndim(next(iter(column))):
                column = column.batch(32)
            self.preprocessors[name].adapt(_as_column(batch) for batch in column)
        self._is_adapted = True
        self._finish()

    def _finish(self) -> None:
        """Makes what turns numbers into vectors. Raises ValueError before ``adapt``."""
        if not self._is_adapted:
            raise ValueError(
                "You need to call `.adapt(dataset)` on the FeatureSpace before you can start using "
                "it."
            )
        if self.built:
            return
        specs: dict[str, Any] = {**self.features, **{cross.name: cross for cross in self.crosses}}
        for name, spec in specs.items():
            if spec.output_mode == "one_hot":
                layer = self.preprocessors.get(name) or self.crossers[name]
                self.one_hot_encoders[name] = layers.CategoryEncoding(_categories(name, layer))
            elif spec.output_mode == "int" and self.output_mode == "concat":
                raise ValueError(
                    f"Cannot concatenate features because feature '{name}' has not been encoded. "
                    "Consider using `output_mode='dict'`."
                )
        self.built = True

    # The call

    def __call__(self, data: Any) -> Any:  # type: ignore[override]
        """Of a dict of columns (batch,) or (batch, n), or of one row."""
        self._finish()
        if not isinstance(data, Mapping):
            raise ValueError(
                "A FeatureSpace can only be called with a dict. Received: "
                f"data={data} (of type {type(data)})"
            )
        found = self._merged({name: _as_column(value) for name, value in data.items()})
        if any(np.ndim(value) for value in data.values()):
            return found
        if self.output_mode == "concat":
            return squeeze(found, 0)
        return {name: squeeze(x, 0) if x.shape[0] == 1 else x for name, x in found.items()}

    def _merged(self, columns: Mapping[str, Any]) -> Any:
        made = {name: self.preprocessors[name](value) for name, value in columns.items()}
        crossed = {
            cross.name: self.crossers[cross.name]([made[name] for name in cross.feature_names])
            for cross in self.crosses
        }
        found = {}
        for each in (made, crossed):
            for name in sorted(each):
                encoder = self.one_hot_encoders.get(name)
                found[name] = each[name] if encoder is None else encoder(each[name])
        if self.output_mode == "dict":
            return found
        parts = list(found.values())
        return parts[0] if len(parts) == 1 else layers.concatenate(parts, axis=-1)

    # In a model

    def get_inputs(self) -> dict[str, Any]:
        """The columns as inputs of a model."""
        self._finish()
        if self._inputs is None:
            self._inputs = {name: each.input(name) for name, each in self.features.items()}
        return self._inputs

    def get_encoded_features(self) -> Any:
        """What comes of the inputs, as KerasTensors on which layers can be called."""
        self._finish()
        if self._encoded is None:
            self._encoded = self._merged(self.get_inputs())
        return self._encoded

    # Saved and loaded

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, the layers as their configs."""
        return {
            "features": {name: registry.serialize(each) for name, each in self.features.items()},
            "output_mode": self.output_mode,
            "crosses": [registry.serialize(each) for each in self.crosses],
            "crossing_dim": self.crossing_dim,
            "hashing_dim": self.hashing_dim,
            "num_discretization_bins": self.num_discretization_bins,
        }

    def get_build_config(self) -> dict[str, Any]:
        return {name: layer.get_build_config() for name, layer in self.preprocessors.items()}

    def build_from_config(self, config: Mapping[str, Any]) -> None:
        """Makes the weights of the layers, whose values and vocabularies a file has."""
        for name, built in config.items():
            if built and not self.preprocessors[name].built:
                self.preprocessors[name].build_from_config(built)
        self._is_adapted = True

    def read_entry(self, entry: Mapping[str, Any]) -> None:
        self.build_from_config(entry.get("build_config") or {})

    def save(self, filepath: Any) -> None:
        """Writes it into a ``.keras`` file, which ``keras.models.load_model`` reads."""
        from distgrad.keras.models.saving import save_model

        save_model(self, filepath)  # type: ignore[arg-type]


def _as_column(value: Any) -> Any:
    """Values of rows, along a last axis: a tensor, or an array of str."""
    if isinstance(value, (Tensor, Variable)):
        x = as_tensor(value)
        return reshape(x, (-1, 1)) if x._data.ndim < 2 else x
    array = np.asarray(value)
    array = array.reshape(-1, 1) if array.ndim < 2 else array
    return as_tensor(array) if array.dtype.kind in "biuf" else array


def _knows_all(layer: Any) -> bool:
    """Whether the layer was given what it would learn."""
    if isinstance(layer, layers.Normalization):
        return layer.input_mean is not None
    if isinstance(layer, layers.Discretization):
        return layer.num_bins is None
    return getattr(getattr(layer, "_lookup", layer), "_was_given", False)


def _categories(name: str, layer: Any) -> int:
    """How many there are. Raises ValueError for a layer that does not say so."""
    if isinstance(layer, (layers.IntegerLookup, layers.StringLookup)):
        return layer.vocabulary_size()
    if isinstance(layer, layers.Discretization):
        return layer.num_bins or len(layer.bin_boundaries) + 1
    found = getattr(layer, "num_tokens", getattr(layer, "num_bins", None))
    if found is None:
        raise ValueError(
            f"Feature '{name}' has `output_mode='one_hot'`. However it isn't a standard feature "
            "and the dimensionality of its output space is not known, thus it cannot be one-hot "
            "encoded. Try using `output_mode='int'`."
        )
    return found
