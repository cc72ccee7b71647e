"""A callback that ends a fit in its midst."""

from __future__ import annotations

from typing import Any

from distgrad import keras


class Killed(BaseException):
    pass


class Kill(keras.callbacks.Callback):
    """Ends a run at batch number ``at``, as a lost machine does."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if not self.left:
            raise Killed
