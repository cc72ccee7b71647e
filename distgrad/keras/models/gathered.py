"""What a model gives for many batches, as arrays of the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core import tree
from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor, backend_of, numpy_backend
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.ops.shape import concat
from distgrad.sparse.moving import concat as join_sparse

_WAITING = 1 << 26  # bytes of outputs that are left on a device until they are read together


class Gathered:
    """The outputs of batches, in order; a device goes on while those before wait to be read."""

    def __init__(self) -> None:
        self._parts: list[Any] = []
        self._waiting: list[Any] = []
        self._nbytes = 0

    def add(self, outputs: Any) -> None:
        """Takes an array or a tensor with a row for each sample of a batch, or a nest of them."""
        if type(outputs) is Tensor and type(outputs._data) is np.ndarray:
            self._parts.append(outputs._host())  # as all of them are then
            return
        if any(isinstance(leaf, Composite) for leaf in tree.flatten(outputs)):
            self._parts.append(on_host(outputs))
            return
        found = tree.map_structure(as_tensor, outputs)
        leaves = [leaf._data for leaf in tree.flatten(found)]
        self._waiting.append(found)
        self._nbytes += sum(leaf.nbytes for leaf in leaves)
        if self._nbytes > _WAITING or any(backend_of(leaf) is numpy_backend for leaf in leaves):
            self._bring()

    def _bring(self) -> None:
        if self._waiting:
            self._parts.append(tree.map_structure(_joined, *self._waiting))
        self._waiting, self._nbytes = [], 0

    def whole(self) -> Any:
        """All of them, in the nest in which each batch came."""
        self._bring()
        return tree.map_structure(_one_behind_the_other, *self._parts)


def on_host(outputs: Any) -> Any:
    """Those of one batch; ragged and sparse tensors as they are."""

    def one(output: Any) -> Any:
        return output if isinstance(output, Composite) else as_tensor(output)._host()

    return tree.map_structure(one, outputs)


def _one_behind_the_other(*parts: Any) -> Any:
    if isinstance(parts[0], SparseTensor):
        return join_sparse(0, parts)
    return concat(parts, 0) if isinstance(parts[0], Composite) else np.concatenate(parts)


def _joined(*tensors: Tensor) -> np.ndarray:
    if len(tensors) == 1:
        return tensors[0]._host()
    arrays = [tensor._data for tensor in tensors]
    backend = backend_of(arrays[0])
    found: np.ndarray = backend.to_numpy(backend.xp.concatenate(arrays))
    return found
