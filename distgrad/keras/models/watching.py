"""Callbacks of ``evaluate`` and ``predict``: told of a pass over a feed, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from distgrad.keras.callbacks import Callback
from distgrad.keras.models.feed import Feed
from distgrad.training import world
from distgrad.training.loop import Logs


class Watched:
    """A pass of a model whose batches are counted, and told to callbacks.

    It ends after a batch at which one of them has set the model's ``stop_evaluating`` or
    ``stop_predicting``.
    """

    def __init__(
        self, model: Any, what: Literal["test", "predict"], callbacks: Iterable[Callback]
    ) -> None:
        self.model = model
        self.what = what
        self.callbacks = list(callbacks)
        self.batches = 0
        self.logs: dict[str, Any] = {}  # of the batches so far

    def set_up(self, verbose: Any, feed: Feed, steps: int | None) -> None:
        """Tells callbacks of the model, and of what they will see."""
        steps = steps or feed.loader(1, range(1)).steps_per_epoch
        rank = world.communicator().rank
        for callback in self.callbacks:
            callback.set_model(self.model)
            callback.set_params({"verbose": verbose, "epochs": 1, "steps": steps, "rank": rank})

    def __call__(self, batches: Iterable[Any]) -> Iterable[Any]:
        stop = "stop_evaluating" if self.what == "test" else "stop_predicting"
        setattr(self.model, stop, False)
        self._tell("begin", {})
        for batch in batches:
            self._tell("batch_begin", self.batches, {})
            yield batch
            self._tell("batch_end", self.batches, self.logs)
            self.batches += 1
            if getattr(self.model, stop):
                break

    def note(self, values: Callable[..., Logs], *sums: Any) -> None:
        """Takes the sums so far, for the callbacks that come after a batch."""
        if self.callbacks:
            self.logs = dict(sorted(values(*sums).items()))

    def end(self, logs: Logs) -> None:
        """Tells that the pass has ended, with the values over all samples."""
        self._tell("end", dict(sorted(logs.items())))

    def _tell(self, event: str, *said: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, f"on_{self.what}_{event}")(*said)
