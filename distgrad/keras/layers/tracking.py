"""Tracked: an object that knows the weights and layers in its attributes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core.variable import Variable
from distgrad.keras.layers.weight import Weight

number = itertools.count(1).__next__  # of what is made and assigned, in this order


class Tracked:
    """Finds what lies below in the attributes, in the order of their assignment.

    Weights and layers in lists, tuples and dicts are found as well. Layers that were put into
    several of them by turns come in the order in which they were made, as in Keras and its files.
    """

    name: str
    _given_name: str | None
    built: bool
    _own_weights: Sequence[Weight] = ()  # of a layer that leaves out super().__init__()
    _trainable: bool = True
    _layer_path: str
    _settled_layers: settled | None = None
    _creation_number: int = 0
    _assigned_at: Mapping[str, int] = {}  # numbers, by attributes

    def __setattr__(self, attribute: str, value: Any) -> None:
        # (As in ``_held_by_attributes``: first a look at the table.)
        if (
            _sorts.get(type(value), _UNKNOWN)
            and attribute not in HOLD_NONE
            and value is not self.__dict__.get(attribute)
        ):
            self.__dict__.setdefault("_assigned_at", {})[attribute] = number()
        object.__setattr__(self, attribute, value)

    def _layers_directly_below(self) -> Iterator[tuple[str, Any]]:
        """(attribute, layer) of the layers right below, each once."""
        _, layers, holders = self._held_by_attributes()
        once: dict[int, tuple[str, Any]] = {}
        for attribute, layer in zip(holders, layers, strict=True):
            once.setdefault(id(layer), (attribute, layer))
        return iter(once.values())

    def _held_by_attributes(self) -> tuple[list[Variable], list[Any], list[str]]:
        """Weights, and layers with their attributes, in the order in which they came to this one.

        Whatever several attributes hold is there several times.
        """
        weights: list[Any] = [*self._own_weights]
        layers: list[Any] = []
        holders: list[str] = []
        for attribute, value in self.__dict__.items():
            # (A look at the table in place of a call: layers have dozens of attributes.)
            if _sorts.get(type(value), _UNKNOWN) and attribute not in HOLD_NONE:
                _sift(value, weights, layers)
                if len(layers) > len(holders):
                    holders += [attribute] * (len(layers) - len(holders))
        several = layers and holders[0] is not holders[-1]  # attributes
        if several and (order := self._in_time(list(dict.fromkeys(holders)))):
            layers, holders = [layers[i] for i in order], [holders[i] for i in order]
        return weights, layers, holders

    def _in_time(self, holders: Sequence[str]) -> list[int]:
        """The places of the layers in these attributes, in the order in which they came to this
        one; none where that is the order in which they are found."""
        # Only a list or dict may have got layers after another attribute was assigned.
        if all(_sort(self.__dict__[name]) == "layer" for name in holders):
            return []
        times = [time for name in holders for time in self._times(name)]
        return sorted(range(len(times)), key=times.__getitem__)

    def _times(self, attribute: str) -> Iterator[int]:
        """When each layer in an attribute came to this one: with the attribute or, where it was
        made later than that, as it was put into the list or dict that the attribute is.

        A list in that list is taken as put there once it was full.
        """
        value, time = self.__dict__[attribute], self._assigned_at.get(attribute, 0)
        sort = _sort(value)
        items = value.values() if sort == "mapping" else value if sort == "sequence" else [value]
        for item in items:
            inside: list[Any] = []
            _sift(item, [], inside)
            time = max([time, *(layer._creation_number for layer in inside)])
            yield from [time] * len(inside)

    def _layers_below(self) -> Iterable[Any]:
        """This layer and all layers below it, each once."""
        return (
            self._settled_layers.layers if self._settled_layers is not None else self._find_below()
        )

    def _find_below(self) -> Iterator[Any]:
        return (layer for layer, _ in self._walk_layers())

    def _walk_layers(self) -> Iterator[tuple[Any, list[Variable]]]:
        """This layer and all layers below it, each once, with the weights of its own."""
        seen: set[int] = set()
        waiting: list[Any] = [self]
        while waiting:
            layer = waiting.pop(0)
            if id(layer) not in seen:
                seen.add(id(layer))
                weights, layers = layer._held_directly()
                yield layer, weights
                waiting[:0] = layers

    def _tracked_weights(self) -> list[Variable]:
        """Own weights: those made trainable first, as in Keras's files."""
        return self._held_directly()[0]

    def _held_directly(self) -> tuple[list[Variable], list[Any]]:
        """``_tracked_weights`` and the layers right below, each once."""
        weights, layers, _ = self._held_by_attributes()
        if weights:
            weights = list({id(weight): weight for weight in weights}.values())
            if not all(map(_made_trainable, weights)):
                weights.sort(key=_made_trainable, reverse=True)
        if len(layers) < 2:
            return weights, layers
        return weights, list({id(layer): layer for layer in layers}.values())

    def _layers_and_weights(self) -> list[Any]:
        """This layer, those below it, and the weights of all: what a program of it depends on."""
        return [part for layer, weights in self._walk_layers() for part in (layer, *weights)]

    def _gather_values(self, trains: bool, found: dict[int, tuple[Variable, bool]]) -> None:
        """Adds every weight below, and whether it is trained, by its id."""
        trains = trains and self._trainable
        weights, layers = self._held_directly()
        for weight in weights:
            if id(weight) not in found:
                found[id(weight)] = weight, weight.trainable and trains
        for layer in layers:
            layer._gather_values(trains, found)

    def _paths_below(self, prefix: str = "") -> Iterator[tuple[str, Variable, bool]]:
        """(path, variable, trainable) of every weight below, names made unique level by level."""
        taken: dict[str, int] = {}
        for weight in self._tracked_weights():
            name = weight._name
            yield prefix + _unique(name, taken), weight, weight.trainable and self._trainable
        for _, layer in self._layers_directly_below():
            for path, weight, trainable in layer._paths_below(
                prefix + _unique(layer.name, taken) + "/"
            ):
                yield path, weight, trainable and self._trainable

    def _all_weights(self) -> Iterable[tuple[str, Variable, bool]]:
        """As ``_paths``, each weight once."""
        return (
            self._settled_layers.weights
            if self._settled_layers is not None
            else self._find_weights()
        )

    def _find_weights(self) -> Iterator[tuple[str, Variable, bool]]:
        seen: set[int] = set()
        for path, weight, trainable in self._paths_below():
            if id(weight) not in seen:
                seen.add(id(weight))
                yield path, weight, trainable

    def _name_weights(self, prefix: str = "", seen: set[int] | None = None) -> None:
        """Tells all layers and weights below where they lie."""
        seen = set() if seen is None else seen
        self._layer_path = prefix + self.name
        taken: dict[str, int] = {}
        for weight in self._tracked_weights():
            name = _unique(weight.name, taken)
            if isinstance(weight, Weight) and id(weight) not in seen:
                seen.add(id(weight))
                weight.path = f"{self._layer_path}/{name}"
        layers = self._held_directly()[1]
        count_up(layers)
        for layer in layers:
            if id(layer) not in seen:
                seen.add(id(layer))
                layer._name_weights(f"{self._layer_path}/", seen)

    def _each_weight(self) -> Iterable[tuple[Variable, bool]]:
        """The weights of ``_weights``, without the work of naming them."""
        if self._settled_layers is not None:
            return self._settled_layers.each
        found: dict[int, tuple[Variable, bool]] = {}
        self._gather_values(True, found)
        return found.values()

    @property
    def weights(self) -> list[Variable]:
        """All weights, layer by layer, in each the trainable ones first."""
        return [weight for weight, _ in self._each_weight()]

    variables = weights

    @property
    def trainable_variables(self) -> list[Variable]:
        return [weight for weight, trainable in self._each_weight() if trainable]

    @property
    def non_trainable_variables(self) -> list[Variable]:
        return [weight for weight, trainable in self._each_weight() if not trainable]

    trainable_weights = trainable_variables
    non_trainable_weights = non_trainable_variables

    @property
    def trainable(self) -> bool:
        """Whether training may change the weights; setting it sets it for all layers below."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        for weight in self.__dict__.get("_own_weights", ()):
            if weight.made_trainable:
                weight.trainable = self._trainable
        for layer in self._held_directly()[1]:
            layer.trainable = value

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all weights, as arrays."""
        return [np.asarray(weight.numpy()) for weight in self.weights]

    def set_weights(self, weights: list[Any]) -> None:
        """Assigns all weights. Raises ValueError where their number or shapes differ."""
        own = self.weights
        if len(weights) != len(own):
            raise ValueError(f"{self.name!r} has {len(own)} weights, {len(weights)} were given")
        for weight, value in zip(own, weights, strict=True):
            if np.shape(value) != tuple(weight.shape):
                raise ValueError(
                    f"{weight.name!r} has shape {weight.shape}, a value of shape "
                    f"{np.shape(value)} was given"
                )
        for weight, value in zip(own, weights, strict=True):
            weight.assign(value)

    def count_params(self) -> int:
        """Number of scalars in all weights. Raises ValueError before the layer is built."""
        if not self.built:
            raise ValueError(f"{self.name!r} has no weights yet: call it or build it first")
        return sum(weight.shape.num_elements() for weight in self.weights)


class settled:
    """Context in which nothing is added below a layer: what lies there is looked up once.

    The layer has it as an attribute, in which nobody who looks for weights of the layer finds any.
    """

    def __init__(self, layer: Tracked) -> None:
        self._layer = layer

    def __enter__(self) -> None:
        self._before = self._layer._settled_layers
        if self._before is None:
            self.layers, self.weights = (
                list(self._layer._layers_below()),
                list(self._layer._all_weights()),
            )
            self.each = [(weight, trainable) for _, weight, trainable in self.weights]
            self._layer._settled_layers = self

    def __exit__(self, *exc: object) -> None:
        self._layer._settled_layers = self._before


def count_up(layers: Sequence[Any]) -> None:
    """Gives layers without a name of their own one that counts up among them.

    A layer keeps the name that its first model gave it, so that its weights keep their paths.
    """
    taken = {layer._given_name for layer in layers if layer._given_name is not None}
    for layer in layers:
        if layer._given_name is None:
            base = layer.__dict__.setdefault("_base_name", layer.name)
            named = layer.__dict__.get("_named", False) and layer.name not in taken
            name, count = layer.name if named else base, 0
            while name in taken:
                count += 1
                name = f"{base}_{count}"
            layer.name, layer._named = name, True
            taken.add(name)


def _sift(value: Any, weights: list[Any], layers: list[Any]) -> None:
    """Adds the weights and layers in a value to the lists, in their order."""
    sort = _sort(value)
    if sort == "weight":
        weights.append(value)
    elif sort == "layer":
        layers.append(value)
    elif sort:
        for item in value if sort == "sequence" else value.values():
            if _sorts.get(type(item), _UNKNOWN):
                _sift(item, weights, layers)


def _made_trainable(weight: Any) -> bool:
    return getattr(weight, "made_trainable", weight.trainable)


# Attributes of every layer whose sequences hold neither layers nor, but for the first, weights.
HOLD_NONE = frozenset(
    (
        *(
            "_own_weights",
            "_inbound_nodes",
            "_call_parameters",
            "_mask_for",
            "_added_loss_functions",
        ),
        *("_build_shapes_dict", "_kept_step", "_kept_passes", "_assigned_at"),
    )
)
_sorts: dict[type, str] = {}
_UNKNOWN = "?"  # of a type that nobody has looked at yet: ``_sift`` does


def _sort(value: Any) -> str:
    """What a value may hold, by its type: that is looked at once, since a model has many values."""
    known = _sorts.get(type(value))
    if known is None:
        known = _sorts[type(value)] = _sort_of(type(value))
    return known


def _sort_of(cls: type) -> str:
    if issubclass(cls, Tracked):
        return "layer"
    if issubclass(cls, Variable):
        return "weight"
    if issubclass(cls, (list, tuple)):
        return "sequence"
    return "mapping" if issubclass(cls, Mapping) else ""


def _unique(name: str, taken: dict[str, int]) -> str:
    count = taken.get(name, 0)
    taken[name] = count + 1
    return f"{name}_{count}" if count else name
