"""Callbacks of one's own loops: a list of them as one, and one that shows how far it is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distgrad.core import tree
from distgrad.keras.callbacks.base import Callback, History
from distgrad.keras.utils.progbar import Progbar

_EVENTS = [
    *(f"on_{part}_{end}" for part in ("epoch", "batch") for end in ("begin", "end")),
    *(
        f"on_{what}_{end}"
        for mode in ("train", "test", "predict")
        for what in (mode, f"{mode}_batch")
        for end in ("begin", "end")
    ),
]


class ProgbarLogger(Callback):
    """Shows batches done and the logs in a bar; ``fit`` has its own line, which it takes over."""

    shows_progress = True

    def __init__(self) -> None:
        super().__init__()
        self._bar: Progbar | None = None

    def _verbose(self) -> int:
        verbose = self.params.get("verbose", 1)
        return 0 if not self._writes else 1 if verbose == "auto" else int(verbose)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._verbose() and self.params.get("epochs", 1) > 1:
            print(f"Epoch {epoch + 1}/{self.params['epochs']}", flush=True)
        self._start()

    def _start(self) -> None:
        self._bar = Progbar(self.params.get("steps"), verbose=self._verbose(), stateless_metrics=())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._bar is not None:
            self._bar.update(batch + 1, list((logs or {}).items()), finalize=False)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._finish(logs)

    def on_test_begin(self, logs: Any = None) -> None:
        if self._bar is None:
            self._start()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.on_train_batch_end(batch, logs)

    def on_test_end(self, logs: Any = None) -> None:
        if not self.params.get("epochs"):
            self._finish(logs)

    def _finish(self, logs: Any) -> None:
        if self._bar is not None:
            done = self._bar.target or self._bar._seen
            self._bar.update(done, list((logs or {}).items()), finalize=True)
            self._bar = None


class CallbackList(Callback):
    """Several callbacks that are told of everything by one call: ``on_epoch_end(epoch, logs)``.

    ``add_history`` and ``add_progbar`` add the callbacks that ``fit`` has anyway; further arguments
    are the ``params`` of all of them.
    """

    def __init__(
        self,
        callbacks: Sequence[Any] | None = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        **params: Any,
    ) -> None:
        super().__init__()
        self.callbacks: list[Any] = tree.flatten(callbacks) if callbacks else []
        for kind, wanted in ((History, add_history), (ProgbarLogger, add_progbar)):
            if wanted and not any(isinstance(each, kind) for each in self.callbacks):
                self.callbacks.append(kind())
        if model is not None:
            self.set_model(model)
        self.set_params(params)

    def append(self, callback: Any) -> None:
        """Adds a callback."""
        self.callbacks.append(callback)

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        for callback in self.callbacks:
            callback.set_model(model)
            if isinstance(callback, History):
                model.history = callback

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params)
        for callback in self.callbacks:
            callback.set_params(params)


def _plain(logs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Logs as ``fit`` gives them: sorted by name, numbers as floats; nested ones are laid flat."""
    found: dict[str, Any] = {}
    for name, value in sorted((logs or {}).items()):
        if isinstance(value, Mapping):
            found.update(_plain(value))
            continue
        try:
            found[name] = float(value)
        except (TypeError, ValueError):  # a text, or several values
            found[name] = value
    return found


def _teller(event: str) -> Callable[..., None]:
    signature = inspect.signature(getattr(Callback, event))

    def tell(self: CallbackList, *args: Any, **kwargs: Any) -> None:
        given = signature.bind(self, *args, **kwargs)
        given.arguments["logs"] = _plain(given.arguments.get("logs"))
        for callback in self.callbacks:
            getattr(callback, event)(*given.args[1:])

    tell.__name__ = event
    tell.__doc__ = f"Tells all callbacks: ``{event}``."
    return tell


for _event in _EVENTS:
    setattr(CallbackList, _event, _teller(_event))
