"""What a checkpoint holds, without the objects it came from (``tf.train.load_checkpoint``, ...)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core.dtypes import DType, as_dtype
from distgrad.core.errors import NotFoundError
from distgrad.training import checkpoint
from distgrad.training.object_checkpoint import latest_checkpoint

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"  # which TensorFlow's names have, and ours go without


class _ByName(dict[str, Any]):
    """What variables have, by their names, which may be TensorFlow's."""

    def __missing__(self, name: str) -> Any:
        if not name.endswith(_SUFFIX):
            raise KeyError(name)
        return self[name.removesuffix(_SUFFIX)]


class CheckpointReader:
    """The arrays of one checkpoint, by the names of their variables."""

    def __init__(self, path: Path) -> None:
        found = checkpoint.load(path)
        if "paths" not in found.state:
            raise ValueError(f"{str(path)!r} is the checkpoint of a job, not one of objects")
        arrays = found.arrays["variables"]
        self._arrays = {name: np.asarray(arrays[key]) for name, key in found.state["paths"].items()}

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """The shape of each variable."""
        return _ByName((name, list(array.shape)) for name, array in self._arrays.items())

    def get_variable_to_dtype_map(self) -> dict[str, DType]:
        """The dtype of each variable."""
        return _ByName((name, as_dtype(array.dtype)) for name, array in self._arrays.items())

    def has_tensor(self, tensor_str: str) -> bool:
        """Whether there is a variable of this name."""
        return tensor_str.removesuffix(_SUFFIX) in self._arrays

    def get_tensor(self, tensor_str: str) -> np.ndarray:
        """The value of a variable. Raises NotFoundError, with the names that there are."""
        name = tensor_str.removesuffix(_SUFFIX)
        if name not in self._arrays:
            names = ", ".join(sorted(self._arrays))
            raise NotFoundError(f"the checkpoint has no {tensor_str!r}; it has {names}")
        return self._arrays[name]


def load_checkpoint(ckpt_dir_or_file: Any) -> CheckpointReader:
    """The contents of a checkpoint, or of the latest one of a folder.

    Raises NotFoundError where there is none, DataError for one that is damaged.
    """
    path = Path(ckpt_dir_or_file)
    if not (path / checkpoint.MANIFEST).exists():
        latest = latest_checkpoint(path)
        if latest is None:
            raise NotFoundError(f"there is no checkpoint {str(path)!r}, and none in that folder")
        path = Path(latest)
    return CheckpointReader(path)


def list_variables(ckpt_dir_or_file: Any) -> list[tuple[str, list[int]]]:
    """Name and shape of each variable of a checkpoint, sorted by name."""
    return sorted(load_checkpoint(ckpt_dir_or_file).get_variable_to_shape_map().items())


def load_variable(ckpt_dir_or_file: Any, name: str) -> np.ndarray:
    """The value of one variable of a checkpoint; NotFoundError for a name that is not there."""
    return load_checkpoint(ckpt_dir_or_file).get_tensor(name)
