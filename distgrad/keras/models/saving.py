"""Models and weights in files: ``.keras`` archives, ``.h5``, ``.weights.h5`` and ``.safetensors``.

A ``.keras`` archive is Keras 3's: a zip of ``metadata.json``, ``config.json`` and
``model.weights.h5``; without h5py, the weights lie in ``model.safetensors``.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core import files
from distgrad.core.user_line import warn
from distgrad.keras import __version__, registry
from distgrad.keras.layers.reviving import deserialize
from distgrad.keras.models import assets, weights_h5, weights_shards, whole_h5
from distgrad.keras.models.model import Model
from distgrad.training import tensors

_H5, _SAFETENSORS = "model.weights.h5", "model.safetensors"
_WHOLE_H5 = (".h5", ".hdf5")

Pairs = list[tuple[Any, Any]]


def save_model(
    model: Model,
    filepath: Any,
    overwrite: bool = True,
    zipped: bool | None = None,
    include_optimizer: bool = True,
    save_format: str | None = None,
) -> None:
    """Writes architecture, weights and optimizer state, so that training can go on.

    ``include_optimizer=False`` leaves out what the model was compiled with from an ``.h5`` file,
    as in Keras. A ``save_format``, which Keras 2 had, is warned of. Raises ValueError for an ending
    other than ``.keras``, ``.h5`` and ``.hdf5``, and for ``zipped=False``, FileExistsError where
    the file is not to be overwritten, NotImplementedError where a layer cannot be described by its
    config, MissingExtraError for ``.h5`` without h5py.
    """
    if zipped is False:
        raise ValueError("zipped=False writes a folder in Keras; a model lies in one file here")
    path = _target(filepath, overwrite, (".keras", *_WHOLE_H5))
    if save_format:
        warn(f"save_format={save_format!r} is not used: {path.name!r} is a {path.suffix} file")
    config = registry.serialize(model)
    if model._build_shapes_dict is not None:
        config["build_config"] = {"input_shape": registry.plain(model._build_shapes_dict)}
        config["build_config"].update(input_dtype=model._build_dtypes_dict)
    if path.name.endswith(_WHOLE_H5):
        path.parent.mkdir(parents=True, exist_ok=True)  # for these alone, as in Keras
        files.replace(path, whole_h5.dump(model, config, include_optimizer))
        return
    if model.optimizer is not None:
        config["compile_config"] = registry.entry(model.get_compile_config())
    metadata = {
        "keras_version": __version__,
        "date_saved": datetime.now().strftime("%Y-%m-%d@%H:%M:%S"),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("metadata.json", json.dumps(metadata))
        archive.writestr("config.json", json.dumps(config))
        if weights_h5.available():
            archive.writestr(_H5, weights_h5.dump(model))
        else:
            archive.writestr(_SAFETENSORS, tensors.to_bytes(_all_arrays(model)))
        for name, text in assets.dump(model).items():
            archive.writestr(name, text)
    files.replace(path, content.getvalue())


def load_model(
    filepath: Any,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> Any:
    """The model of a ``.keras`` or ``.h5`` file, of distgrad or of Keras, compiled if it was.

    ``custom_objects`` maps the names of a user's classes and functions to them. Raises ValueError
    for a file that is none, FileNotFoundError, and ValueError for a class that is not known.
    """
    path = Path(filepath)
    if path.name.endswith(_WHOLE_H5):
        return _load_h5(path, custom_objects or {}, compile)
    if not path.name.endswith(".keras"):
        raise ValueError(f"{str(path)!r}: a model lies in a file whose name ends in .keras or .h5")
    try:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            names = set(archive.namelist())
            config = json.loads(archive.read("config.json"))
            kind = _H5 if _H5 in names else _SAFETENSORS
            weights = archive.read(kind)
            files_of_layers = {n: archive.read(n) for n in names if n.startswith(assets.ROOM)}
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{str(path)!r} is not a whole .keras file: {error}") from None
    with registry.custom_object_scope(custom_objects or {}):
        model: Any = deserialize(config)
        _build(model, config.get("build_config") or {})
        if compile and config.get("compile_config"):
            model.compile_from_config(config["compile_config"])
    assets.load_vocabularies(model, files_of_layers)
    try:
        pairs = _pairs(model, kind, weights)
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from None
    _assign(pairs)
    assets.load(model, files_of_layers)
    return model


def _load_h5(path: Path, custom_objects: Mapping[str, Any], compile: bool) -> Any:
    content = path.read_bytes()
    try:
        config, training = whole_h5.configs(content)
        if config is None:
            raise ValueError("it holds weights alone: build the model, and use load_weights")
        with registry.custom_object_scope(custom_objects):
            model: Any = deserialize(config)
            _build(model, config.get("build_config") or {})
            if compile and training is not None:
                model.compile_from_config(training)
        pairs = whole_h5.assignments(model, content)
        state = whole_h5.optimizer_state(content)
        pairs += weights_h5.optimizer_assignments(model, {"optimizer": state})
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from None
    _assign(pairs)
    return model


def save_weights(
    model: Model, filepath: Any, overwrite: bool = True, max_shard_size: float | None = None
) -> None:
    """Writes the weights alone; see ``Model.save_weights``."""
    in_shards = max_shard_size is not None
    endings = (".weights.h5", ".weights.json" if in_shards else ".safetensors")
    path = _checked(filepath, endings)
    if in_shards and path.suffix == ".h5":
        warn(f"{path.name!r}: shards are listed in a .weights.json file")
        path = path.with_suffix(".json")
    path = _target(path, overwrite, endings)
    _check_weights(model)
    if max_shard_size is not None:
        weights_shards.write(model, path, max_shard_size)
    elif path.name.endswith(".h5"):
        files.replace(path, weights_h5.dump(model))
    else:
        files.replace(path, tensors.to_bytes(_arrays(model)))


def load_weights(
    model: Model, filepath: Any, skip_mismatch: bool = False, by_name: bool | None = None
) -> None:
    """Reads weights into a built model; see ``Model.load_weights``."""
    endings = (".weights.h5", ".weights.json", ".safetensors", ".keras", *_WHOLE_H5)
    path = _checked(filepath, endings)
    content = path.read_bytes()
    _check_weights(model)
    try:
        older = path.suffix in _WHOLE_H5 and whole_h5.holds_this(content)
        if by_name is not None and not older:
            raise ValueError("by_name is for Keras's older .h5 and .hdf5 files, not for this one")
        if path.suffix == ".keras":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                kind = _H5 if _H5 in archive.namelist() else _SAFETENSORS
                pairs = _pairs(model, kind, archive.read(kind), skip_mismatch)
        elif path.suffix == ".json":
            pairs = _h5_pairs(model, weights_shards.read(path), skip_mismatch)
        elif path.suffix in _WHOLE_H5:
            if older:
                pairs = whole_h5.assignments(model, content, skip_mismatch, bool(by_name))
            else:
                pairs = _pairs(model, _H5, content, skip_mismatch)
        else:
            pairs = by_path(model, tensors.from_bytes(content), skip_mismatch)
    except (ValueError, zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{str(path)!r}: {error}") from None
    _assign(pairs)


def _check_weights(model: Model) -> None:
    """Raises ValueError before there are any; a model with a step of its own is never called."""
    if not model.built and not model.weights:
        raise ValueError(f"{model.name!r} has no weights yet: call it or build it first")


def _checked(filepath: Any, endings: tuple[str, ...]) -> Path:
    if filepath is None:
        raise ValueError(
            "filepath is None, which names no file: tf.train.latest_checkpoint gives it where it "
            f"finds no checkpoint, and knows none of those whose names end in {endings[0]}"
        )
    path = Path(filepath)
    if not path.name.endswith(endings):
        raise ValueError(f"{str(path)!r}: the name must end in {' or '.join(endings)}")
    return path


def _target(filepath: Any, overwrite: bool, endings: tuple[str, ...]) -> Path:
    path = _checked(filepath, endings)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{str(path)!r} exists, and overwrite=False")
    return path


def _build(model: Any, build_config: Mapping[str, Any]) -> None:
    shape = build_config.get("input_shape") or build_config.get("shapes_dict")
    if not model.built and shape:
        model.build_like(shape, build_config.get("input_dtype"))


def _pairs(model: Model, kind: str, content: bytes, skip: bool = False) -> Pairs:
    if kind == _H5:
        return _h5_pairs(model, weights_h5.parse(content), skip)
    stored = tensors.from_bytes(content)
    state = {int(k.split("/")[1]): v for k, v in stored.items() if k.startswith("optimizer/")}
    own = {k.removeprefix("model/"): v for k, v in stored.items() if k.startswith("model/")}
    found = by_path(model, own, skip)
    return found + weights_h5.optimizer_assignments(model, {"optimizer": state})


def _h5_pairs(model: Model, arrays: dict[str, dict[Any, np.ndarray]], skip: bool) -> Pairs:
    found = weights_h5.assignments(model, arrays, skip)
    return found + weights_h5.optimizer_assignments(model, arrays)


def by_path(model: Model, arrays: Mapping[str, np.ndarray], skip: bool = False) -> Pairs:
    """What to assign to which variable.

    Raises ValueError for arrays of another architecture, or leaves those out, with a warning.
    """
    variables = model.variable_paths()
    found: Pairs = []
    for path in sorted({*variables, *arrays}):
        wanted = tuple(variables[path].shape) if path in variables else None
        given = arrays[path].shape if path in arrays else None
        if wanted == given:
            found.append((variables[path], arrays[path]))
            continue
        message = (
            f"{path!r} has shape {wanted} in the model and {given} in the file (None: it has "
            "none): the file is of another architecture"
        )
        if not skip:
            raise ValueError(message)
        warn(f"{message}. It is left as it is")
    return found


def _arrays(model: Model) -> dict[str, np.ndarray]:
    return {path: np.asarray(v.numpy()) for path, v in model.variable_paths().items()}


def _all_arrays(model: Model) -> dict[str, np.ndarray]:
    arrays = {f"model/{path}": array for path, array in _arrays(model).items()}
    if model.optimizer is not None:
        state = model.optimizer.variables
        arrays |= {f"optimizer/{i}": np.asarray(v.numpy()) for i, v in enumerate(state)}
    return arrays


def _assign(pairs: Pairs) -> None:
    """Last, after everything was found to fit: nothing is ever loaded by half."""
    for variable, array in pairs:
        variable._store(array)
