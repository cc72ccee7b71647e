"""Callbacks: observers of ``Model.fit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distgrad.training.loop import Observer


class Callback(Observer):
    """Base of callbacks; ``self.model`` is the model being trained, ``self.params`` the setting.

    ``params`` holds ``epochs``, ``steps``, ``verbose``, and ``rank``, which is 0 for the one worker
    that prints and writes files. ``state_names`` are attributes that ``BackupAndRestore`` keeps:
    None, numbers, texts, arrays, and lists of them.
    """

    state_names: tuple[str, ...] = ()

    resumes_fit = False  # whether fit asks it where to begin
    holds_averages = False  # whether it has put averages in the place of weights, for a while
    shows_progress = False  # whether it takes the place of fit's own line
    model: Any = None
    params: dict[str, Any]

    def __init__(self) -> None:
        self.params = {}

    def set_model(self, model: Any) -> None:
        self.model = model

    def _by_rate(self) -> dict[str, Any]:
        """The model's optimizers, by what their learning rates are called in logs."""
        whole = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        if not hasattr(whole, "optimizers"):
            return {"learning_rate": whole}
        found: dict[str, Any] = {}
        for optimizer in whole.optimizers:
            name = f"learning_rate_{optimizer.name}"
            again = sum(other.name == optimizer.name for other in found.values())
            found[f"{name}_{again}" if again else name] = optimizer
        return found

    def _learning_rates(self) -> dict[str, float]:
        return {name: float(each.learning_rate) for name, each in self._by_rate().items()}

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params

    @property
    def wants_batch_logs(self) -> bool:
        """Whether anything is done at the end of a batch."""
        return any(
            name in vars(self) or getattr(type(self), name) is not getattr(Callback, name)
            for name in ("on_train_batch_end", "on_batch_end")
        )

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Any = None) -> None: ...

    def on_batch_end(self, batch: int, logs: Any = None) -> None: ...

    def on_test_begin(self, logs: Any = None) -> None: ...

    def on_test_end(self, logs: Any = None) -> None: ...

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None: ...

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None: ...

    def on_predict_begin(self, logs: Any = None) -> None: ...

    def on_predict_end(self, logs: Any = None) -> None: ...

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None: ...

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None: ...

    # For those that print or write files: in a data-parallel run one worker does.

    @property
    def _writes(self) -> bool:
        return getattr(self, "params", {}).get("rank", 0) == 0

    def _say(self, text: str) -> None:
        if self._writes:
            print(text, flush=True)


class History(Callback):
    """What ``fit`` returns: ``history`` maps a name to its values, ``epoch`` lists the epochs.

    One that several fits are given goes on with its values, and lists the epochs of the last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class LambdaCallback(Callback):
    """A callback of functions, by the names of the events: ``on_epoch_end=lambda epoch, logs:``."""

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        events = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **kwargs,
        }
        vars(self).update({name: fn for name, fn in events.items() if fn is not None})
