"""Keras's older ``.h5``: a whole model, or the weights of one, in one HDF5 file.

The configs lie in attributes of the file; each layer of the model has a group, in which its weights
lie under their paths, those that are trained first. Layers and weights are matched by their order,
so that names may differ. Source: ``keras/src/legacy/saving/legacy_h5_format.py`` of Keras 3.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core.user_line import warn
from distgrad.core.variable import Variable
from distgrad.keras import __version__
from distgrad.keras.layers.base import Layer
from distgrad.keras.models import weights_h5
from distgrad.keras.models.model import Model

Pairs = list[tuple[Variable, np.ndarray]]

_LIMIT = 64000  # bytes of an attribute; HDF5 has room for little more
_ONCE = ("decay", "is_legacy_optimizer", "jit_compile")  # options of Keras 2's optimizers
_TOP = "top_level_model_weights"  # those that no layer of the model holds


def dump(model: Model, config: Mapping[str, Any], include_optimizer: bool) -> bytes:
    """The bytes of a file of ``model``, whose config is given.

    Raises MissingExtraError without h5py.
    """
    h5py = weights_h5.package()
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = __version__, "tensorflow"
        file.attrs["model_config"] = json.dumps(config).encode()
        if include_optimizer and model.optimizer is not None:
            compiled = model.get_compile_config()
            optimizer = compiled.pop("optimizer")
            file.attrs["training_config"] = json.dumps(
                {**compiled, "optimizer_config": optimizer}
            ).encode()
            if model.optimizer.variables:
                _write(file.create_group("optimizer_weights"), model.optimizer.variables)
        weights = file.create_group("model_weights")
        weights.attrs["keras_version"], weights.attrs["backend"] = __version__, "tensorflow"
        _list(weights, "layer_names", [layer.name for layer in model.layers])
        for layer in model.layers:
            _write(weights.create_group(layer.name), _in_order(layer))
        _write(weights.create_group(_TOP), model._tracked_weights())
    return content.getvalue()


def configs(content: bytes) -> tuple[Any, Any]:
    """The configs of the model and of its compilation, None for one that the file lacks.

    Raises MissingExtraError without h5py, ValueError for other bytes.
    """
    with _opened(content) as file:
        texts = (file.attrs.get(name) for name in ("model_config", "training_config"))
        model, training = (None if text is None else json.loads(text) for text in texts)
    if training is not None:
        training = _of_keras_3(training)
        training["optimizer"] = training.pop("optimizer_config", None)
    return model, training


def holds_this(content: bytes) -> bool:
    """Whether a ``.weights.h5`` is such a file: Keras 2 has written it."""
    with _opened(content) as file:
        return "model_weights" in file or _listed(file, "layer_names") is not None


def assignments(model: Model, content: bytes, skip: bool = False, by_name: bool = False) -> Pairs:
    """What to assign to which variable of the model.

    Layers are those of the same place, or of the same name. Raises ValueError naming the layer and
    the shapes where the file is of another architecture, or leaves weights out, with a warning.
    """
    with _opened(content) as file:
        group = file.get("model_weights", file)
        names = _listed(group, "layer_names")
        if names is None:
            raise ValueError("it holds no weights of layers")
        stored = [(name, _read(group[name])) for name in names]
        top = _read(group[_TOP]) if _TOP in group else None
    if by_name:
        pairs = [
            (layer, each) for each in stored for layer in model.layers if layer.name == each[0]
        ]
    else:
        given = [(name, arrays) for name, arrays in stored if arrays]
        wanted = [layer for layer in model.layers if layer.weights]
        if len(given) != len(wanted):
            raise ValueError(
                f"the model has {len(wanted)} layers with weights, the file has {len(given)}: it "
                "is of another architecture (by_name=True takes layers of the same name alone)"
            )
        pairs = list(zip(wanted, given, strict=True))
    found: Pairs = []
    for layer, (name, arrays) in pairs:
        found += _matched(f"layer {layer.name!r}", name, _in_order(layer), arrays, skip)
    own = model._tracked_weights()
    if top or (own and not by_name):
        found += _matched("the model itself", _TOP, own, top, skip)
    return found


def optimizer_state(content: bytes) -> dict[Any, np.ndarray]:
    """The optimizer's arrays by their number, as ``weights_h5`` takes them."""
    with _opened(content) as file:
        group = file.get("optimizer_weights")
        return {} if group is None else dict(enumerate(_read(group)))


def _of_keras_3(config: Any) -> Any:
    """A compilation's config as Keras 3 has it: Keras 2 knew options and a metric beyond it."""
    if isinstance(config, list):
        return [_of_keras_3(each) for each in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "MeanMetricWrapper":
        given = config["config"]
        return given["name"] if given["name"] in ("accuracy", "acc") else given["fn"]
    return {k: _of_keras_3(v) for k, v in config.items() if k not in _ONCE}


def _opened(content: bytes) -> Any:
    try:
        return weights_h5.package().File(io.BytesIO(content), "r")
    except OSError as error:
        raise ValueError(f"it is no HDF5 file: {error}") from None


def _in_order(layer: Layer) -> list[Variable]:
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _matched(who: str, name: str, variables: Sequence[Variable], arrays: Any, skip: bool) -> Pairs:
    wanted = [tuple(variable.shape) for variable in variables]
    shapes = [array.shape for array in arrays or ()]
    if wanted != shapes:
        message = (
            f"{who} has weights of shapes {wanted}, the file has {shapes} under {name!r}: it is of "
            "another architecture"
        )
        if not skip:
            raise ValueError(message)
        warn(f"{message}. Those of another shape are left as they are")
    if len(wanted) != len(shapes):
        return []
    pairs = zip(variables, arrays or (), strict=True)
    return [(v, array) for v, array in pairs if tuple(v.shape) == array.shape]


def _write(group: Any, variables: Iterable[Variable]) -> None:
    names: list[str] = []
    for variable in variables:
        array = np.asarray(variable.numpy())
        if variable._name == "learning_rate":  # Keras keeps it in float32
            array = array.astype(np.float32)
        start = getattr(variable, "path", variable._name)
        name, count = start, 0
        while name in group:
            count += 1
            name = f"{start}_{count}"
        names.append(name)
        weights_h5.write(group, name, array)
    _list(group, "weight_names", names)


def _read(group: Any) -> list[np.ndarray]:
    return [weights_h5.read(group[name]) for name in _listed(group, "weight_names") or ()]


def _list(group: Any, name: str, texts: Sequence[str]) -> None:
    """Texts as an attribute, or as several that are numbered where one has no room for them."""
    data = np.array([text.encode() for text in texts], dtype=None if texts else "S1")
    parts = np.array_split(data, max(1, -(-data.nbytes // _LIMIT)))
    for i, part in enumerate(parts):
        group.attrs[name if len(parts) == 1 else f"{name}{i}"] = part


def _listed(group: Any, name: str) -> list[str] | None:
    """The texts of ``_list``, or None where there are none of this name."""
    parts = [group.attrs[name]] if name in group.attrs else []
    while name not in group.attrs and f"{name}{len(parts)}" in group.attrs:
        parts.append(group.attrs[f"{name}{len(parts)}"])
    if not parts:
        return None
    return [text.decode() if isinstance(text, bytes) else text for part in parts for text in part]
