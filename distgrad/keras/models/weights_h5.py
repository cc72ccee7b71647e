"""Keras 3's ``.weights.h5``: which array lies under which path, and reading and writing it.

A layer's group holds its variables as ``vars/0``, ``vars/1``, ..., and one group for each attribute
that is, or contains, layers. Layers in containers are named by their class and counted up. Source:
``keras/src/saving/saving_lib.py`` of Keras 3.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import MissingExtraError
from distgrad.core.user_line import warn
from distgrad.core.variable import Variable
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.operation import Operation
from distgrad.keras.models.model import Model
from distgrad.keras.registry import snake_case

INSTALL = 'pip install "distgrad[h5]"'


class Group(NamedTuple):
    """The variables of one layer, and the path that Keras gives them."""

    path: str
    name: str
    variables: list[Variable]
    layer: Layer | None = None

    def defines(self, method: str) -> bool:
        """Whether the layer says itself what it keeps, or how it reads that."""
        return self.layer is not None and self.layer.says_itself(method)

    def arrays(self) -> dict[str, np.ndarray]:
        """What is to be kept of it."""
        if not self.defines("save_own_variables"):
            return {str(i): np.asarray(v.numpy()) for i, v in enumerate(self.variables)}
        store: dict[str, Any] = {}
        assert self.layer is not None
        self.layer.save_own_variables(store)
        return {key: np.asarray(value) for key, value in store.items()}


class _Own:
    """What a layer reads by itself, in the place of one of its variables."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def _store(self, arrays: Mapping[Any, np.ndarray]) -> None:
        self._layer.load_own_variables({str(key): array for key, array in arrays.items()})


def groups(model: Model) -> list[Group]:
    """The groups of a model's layers, each layer once, in the order of Keras."""
    return list(_groups(model, "", set()))


def _groups(layer: Layer, path: str, visited: set[int]) -> Iterator[Group]:
    if id(layer) in visited:
        return
    visited.add(id(layer))
    yield Group(path, layer.name, layer._tracked_weights(), layer)
    for attribute, value in _attributes(layer):
        if isinstance(value, Layer):
            yield from _groups(value, join(path, attribute), visited)
        elif isinstance(value, (list, tuple, Mapping)):
            yield from _container(value, join(path, attribute), visited)


def _attributes(layer: Layer) -> Iterator[tuple[str, Any]]:
    """Attributes by name, those of all layers left out, private ones last."""
    listed = isinstance(layer, Model) and (
        layer._layer_graph is not None or hasattr(layer, "_stacked_layers")
    )
    if listed:
        assert isinstance(layer, Model)
        yield "layers", layer._graph_operations if layer._layer_graph is not None else layer.layers
    names = set(dir(layer)) - _common() | ({"layers"} if isinstance(layer, Model) else set())
    for name in sorted(names, key=lambda name: f"~{name}" if name.startswith("_") else name):
        if listed and name in ("layers", "_stacked_layers", "_graph_operations"):
            continue
        try:
            value = getattr(layer, name)
        except Exception:  # a property that has no value yet
            continue
        yield name, value


def _common() -> set[str]:
    """The attributes of every layer and model."""
    if not _COMMON:
        _COMMON.update(dir(Layer()), dir(Model()))
    return _COMMON


_COMMON: set[str] = set()


def _container(container: Any, path: str, visited: set[int]) -> Iterator[Group]:
    taken: dict[str, int] = {}
    for item in container.values() if isinstance(container, Mapping) else container:
        if isinstance(item, Layer):
            if isinstance(item, Operation):
                continue
            name = _counted(snake_case(type(item).__name__), taken)
            yield from _groups(item, join(path, name), visited)
        elif isinstance(item, (list, tuple, Mapping)):
            yield from _container(item, join(path, _counted("container", taken)), visited)


def _counted(name: str, taken: dict[str, int]) -> str:
    taken[name] = taken.get(name, -1) + 1
    return f"{name}_{taken[name]}" if taken[name] else name


def join(path: str, name: str) -> str:
    """The path of a name within that of a group, which is empty at the top."""
    return f"{path}/{name}" if path else name


class Stored(NamedTuple):
    """The arrays of a group, as they lie in a file."""

    path: str
    name: str
    arrays: dict[str, np.ndarray]


def stored(model: Model) -> Iterator[Stored]:
    """The weights, and the state of a compiled optimizer, group by group."""
    for group in groups(model):
        yield Stored(group.path, group.name, group.arrays())
    if model.optimizer is not None:
        arrays = {}
        for i, variable in enumerate(model.optimizer.variables):
            array = np.asarray(variable.numpy())
            is_rate = variable._name == "learning_rate"
            arrays[str(i)] = array.astype(np.float32) if is_rate else array
        yield Stored("optimizer", model.optimizer.name, arrays)


def dump(model: Model) -> bytes:
    """All that is ``stored`` of a model. Raises MissingExtraError without h5py."""
    return pack(stored(model))


def pack(parts: Iterable[Stored]) -> bytes:
    """The bytes of a file of these arrays. Raises MissingExtraError without h5py."""
    h5py = package()
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for part in parts:
            place = file.require_group(join(part.path, "vars"))
            place.attrs["name"] = part.name
            for key, array in part.arrays.items():
                write(place, key, array)
    return content.getvalue()


def write(group: Any, key: str, array: np.ndarray) -> None:
    """Puts an array into a group of a file."""
    made = group.create_dataset(key, data=array)
    if array.dtype.name == "bfloat16":  # two bytes of no meaning to HDF5
        made.attrs["dtype"] = "bfloat16"


def read(item: Any) -> np.ndarray:
    """The array that ``write`` has put there."""
    array = np.asarray(item[()])
    if item.attrs.get("dtype") == "bfloat16":
        array = array.view(as_dtype("bfloat16").numpy_dtype)
    return array


def parse(content: bytes) -> dict[str, dict[Any, np.ndarray]]:
    """The arrays of such a file by the path of their group, and their number in it.

    What a layer keeps under keys of its own has these.

    Raises MissingExtraError without h5py, ValueError for other bytes.
    """
    h5py = package()
    found: dict[str, dict[Any, np.ndarray]] = {}

    def visit(name: str, item: Any) -> None:
        path, _, key = f"/{name}".rpartition("/")
        if isinstance(item, h5py.Dataset) and path.endswith("/vars"):
            array = read(item)
            place = path[1:].removesuffix("vars").rstrip("/")
            found.setdefault(place, {})[int(key) if key.isdigit() else key] = array

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            file.visititems(visit)
    except OSError as error:
        raise ValueError(f"it is no HDF5 file: {error}") from None
    return found


def assignments(
    model: Model, arrays: Mapping[str, Mapping[Any, np.ndarray]], skip: bool = False
) -> list[tuple[Any, Any]]:
    """What to assign to which variable.

    Raises ValueError naming the layer and the shapes where the file is of another architecture, or
    leaves the layer out, with a warning.
    """
    found: list[tuple[Any, Any]] = []
    left = {path for path in arrays if path != "optimizer" and not path.startswith("optimizer/")}
    for group in groups(model):
        given = arrays.get(group.path, {})
        left.discard(group.path)
        if group.defines("load_own_variables"):
            found.append((_Own(group.layer), given))
            continue
        wanted = [tuple(variable.shape) for variable in group.variables]
        shapes = [tuple(given[i].shape) for i in sorted(given)]
        if shapes != wanted or sorted(given) != list(range(len(wanted))):
            message = (
                f"layer {group.name!r} has weights of shapes {wanted}, the file has {shapes} "
                f"under {group.path or '/'!r}: it is of another architecture"
            )
            if not skip:
                raise ValueError(message)
            warn(f"{message}. The layer is left as it is")
            continue
        found += [(variable, given[i]) for i, variable in enumerate(group.variables)]
    if left and not skip:
        raise ValueError(
            f"the file has weights under {', '.join(sorted(left))}, for which the model has no "
            "layer: it is of another architecture"
        )
    return found


def optimizer_assignments(
    model: Model, arrays: Mapping[str, Mapping[int, np.ndarray]]
) -> list[tuple[Variable, np.ndarray]]:
    """The same for the optimizer; nothing, with a warning, where its state does not fit."""
    optimizer, given = model.optimizer, arrays.get("optimizer")
    if optimizer is None or not given:
        return []
    if not optimizer.built and len(given) > len(optimizer.scalars):
        optimizer.build(model.trainable_variables)
    variables = optimizer.variables
    values = [given[i] for i in sorted(given)]
    if [np.shape(v) for v in values] != [tuple(v.shape) for v in variables]:
        warn(
            f"the state of the optimizer was left alone: {optimizer.name!r} has {len(variables)} "
            f"variables, the file has {len(values)}, or others"
        )
        return []
    return [
        (variable, value)
        for variable, value in zip(variables, values, strict=True)
        # Keras keeps the learning rate in float32; ours has more digits.
        if variable._name != "learning_rate" or np.float32(variable.numpy()) != np.float32(value)
    ]


def package() -> Any:
    """h5py. Raises MissingExtraError where it is not installed."""
    try:
        import h5py
    except ImportError:
        raise MissingExtraError(
            f"an .h5 file needs h5py: {INSTALL}. Without it, use .safetensors."
        ) from None
    return h5py


def available() -> bool:
    """Whether h5py is installed."""
    try:
        package()
    except MissingExtraError:
        return False
    return True
