"""Losses that layers add: in a call, by a function, and as penalties on outputs and weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distgrad.core import recording, tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras.layers.arguments import ARRAYS
from distgrad.keras.layers.calling import Losses, calls
from distgrad.ops.casting import cast


class Losing:
    """The part of a layer that knows of losses."""

    activity_regularizer: Any
    trainable_variables: Any
    _added_loss_functions: list[Callable[[], Any]]

    @property
    def _added_losses(self) -> list[Tensor]:
        return calls.losses.setdefault(self, [])

    def _forget_losses(self) -> None:
        for layer in self._layers_below():  # type: ignore[attr-defined]
            calls.losses.pop(layer, None)

    def add_loss(self, loss: Any) -> None:
        """Adds to ``losses`` a scalar tensor (until the next call), a list of them or a function.

        A function of no arguments is asked at every read of ``losses``. Raises ValueError for
        anything else.
        """
        for each in tree.flatten(loss):
            if isinstance(each, ARRAYS):
                Losses.used = True
                recording.outlive()
                self._added_losses.append(as_tensor(each))
                for told in Losses.listeners:
                    told(each)
            elif callable(each):
                self._added_loss_functions.append(each)
            else:
                raise ValueError(f"add_loss takes a tensor or a function, not {each!r}")

    def _regularize(self, outputs: Any) -> None:
        for output in tree.flatten(outputs):
            if isinstance(output, Tensor):
                whole = not output.dtype.is_floating
                penalty = self.activity_regularizer(cast(output, "float32") if whole else output)
                size = output._data.shape[0] if output._data.ndim else 1
                self.add_loss(penalty / float(max(size, 1)))

    @property
    def losses(self) -> list[Tensor]:
        """What all layers below added in the last call, then penalties on trainable weights."""
        layers = list(self._layers_below())  # type: ignore[attr-defined]
        added = [loss for layer in layers for loss in calls.losses.get(layer, ())]
        added += [as_tensor(fn()) for layer in layers for fn in layer._added_loss_functions]
        for weight in self.trainable_variables:
            regularizer = getattr(weight, "regularizer", None)
            if regularizer is not None:
                added.append(regularizer(weight))
        return added
