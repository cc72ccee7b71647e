"""SwapEMAWeights: a model is evaluated, and saved, with the moving averages of its weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.keras.callbacks.base import Callback


class SwapEMAWeights(Callback):
    """Puts the averages of an optimizer with ``use_ema`` in the place of the weights, and back.

    They are there while the model is evaluated or asked to predict; with ``swap_on_epoch`` also
    from the end of an epoch to the start of the next, so that callbacks after this one save them.
    Raises ValueError for an optimizer without averages.
    """

    state_names = ("holds_averages",)

    def __init__(self, swap_on_epoch: bool = False) -> None:
        super().__init__()
        self.swap_on_epoch = swap_on_epoch
        self.holds_averages = False

    def _pairs(self) -> list[tuple[Any, Any]]:
        averaging = [each for each in self._by_rate().values() if each.use_ema]
        if not averaging:
            raise ValueError(
                "SwapEMAWeights must be used when `use_ema=True` is set on the optimizer. "
                "Received: use_ema=False"
            )
        return [
            pair
            for optimizer in averaging
            for pair in zip(optimizer.trained, optimizer.slots.get("average", []), strict=True)
        ]

    def _swap(self, swapped: bool) -> None:
        if self.holds_averages == swapped:
            return
        for variable, average in self._pairs():
            value = np.array(variable.numpy())
            variable.assign(average)
            average.assign(value)
        self.holds_averages = swapped

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._swap(False)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._swap(self.swap_on_epoch)

    def on_train_end(self, logs: Any = None) -> None:
        if self.holds_averages:  # fit ends by taking the averages: these are in the model
            for variable, average in self._pairs():
                average.assign(variable)
            self.holds_averages = False

    def on_test_begin(self, logs: Any = None) -> None:
        self._swap(True)

    def on_test_end(self, logs: Any = None) -> None:
        self._swap(False)

    def on_predict_begin(self, logs: Any = None) -> None:
        self._swap(True)

    def on_predict_end(self, logs: Any = None) -> None:
        self._swap(False)
