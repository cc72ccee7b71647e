"""What a model is compiled with: its loss and metrics, and what they say of a shard."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from distgrad.core.tensor import Tensor
from distgrad.core.user_line import warn
from distgrad.keras import optimizers
from distgrad.keras.layers.base import Layer
from distgrad.keras.metrics.base import one_by_one
from distgrad.keras.models.feed import unpack_x_y_sample_weight
from distgrad.keras.models.objective import CompiledMetrics, Objective
from distgrad.ops.host import on_host
from distgrad.training.loop import Logs
from distgrad.training.programs import Jit
from distgrad.training.reduction import ShardResult


@dataclass
class Look:
    """What a model has learnt by a look at data of a ``kind``, and the parts that it had then."""

    kind: tuple[Any, ...]
    adds_losses: bool
    counted: bool
    parts: list[Any]


class Compiled(Layer):
    """A layer with an optimizer, losses and metrics, which the training loop asks for."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.optimizer: optimizers.Optimizer | None = None
        self.loss: Any = None
        self.stop_training = self.stop_evaluating = self.stop_predicting = False
        self.objective: Objective | None = None
        self.adds_losses = False  # whether its layers do, in a call
        self._class_weight_of_fit: dict[int, float] | None = None
        self._loss_counted = False
        self.run_eagerly = False
        self._of_arrays, self._of_composites = True, False
        self.jit_compile: Any = "auto"
        self._kept_passes: tuple[Any, Any] = None, None  # without gradients
        self._last_look: Look | None = None  # the last one at data

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Chooses optimizer, losses and metrics, by name or object, for one output or several.

        ``metrics`` count all samples alike, ``weighted_metrics`` by their weights.
        ``jit_compile``: "auto" captures training steps and runs them eagerly where that cannot be
        done, True raises CaptureError there, False runs them eagerly, as ``run_eagerly`` does. What
        evaluates the model, what it predicts by, and steps of its own are captured likewise, and
        run eagerly where that cannot be done, which is no error.
        ``steps_per_execution`` is taken for the sake of Keras's signature. Raises ValueError for
        an unknown name, and for a step that is to be eager and compiled.
        """
        if jit_compile not in ("auto", True, False, None):
            raise ValueError(f"jit_compile must be True, False or 'auto', not {jit_compile!r}")
        if run_eagerly and jit_compile is True:
            raise ValueError("a step cannot run both eagerly and compiled: choose one")
        self.run_eagerly, self.jit_compile = bool(run_eagerly), jit_compile
        self._compiled_with = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        self.optimizer = optimizers.get(optimizer)
        if auto_scale_loss and getattr(self, "dtype_policy", None) is not None:
            self.optimizer = optimizers.scaled_for(self.dtype_policy, self.optimizer)
        self.loss, self.steps_per_execution = loss, steps_per_execution
        self._kept_step: tuple[Any, Any] = None, None  # of the last call
        self._kept_passes, self._last_look = (None, None), None
        self.objective = Objective(loss, loss_weights, metrics, weighted_metrics)
        # Not `reset_metrics`: metrics of one's own may be made after this, and asked for there.
        for metric in (self.objective.loss_tracker, *self.objective.metrics):
            metric.reset_state()

    @property
    def compiled(self) -> bool:
        """Whether ``compile`` was called."""
        return self.objective is not None

    @property
    def _jit_asked(self) -> Jit:
        if self.run_eagerly or not self.jit_compile:
            return "off"
        return "strict" if self.jit_compile is True else "auto"

    @property
    def metrics(self) -> list[Any]:
        """The mean of the loss, as one all those of ``compile``, and metrics that are attributes of
        the model or of layers below it.

        Steps of one's own give them the loss of a batch, and targets and predictions.
        """
        if self.objective is None:
            return super().metrics
        compiled = [CompiledMetrics(self.objective)] if self.objective.metrics else []
        return [self.objective.loss_tracker, *compiled, *self._own_metrics()]

    def _own_metrics(self) -> list[Any]:
        """Those that are attributes of the model or of layers below it."""
        compiled = [] if self.objective is None else self.objective.metrics
        return [m for m in super().metrics if not any(m is each for each in compiled)]

    def _each_metric(self) -> list[Any]:
        return one_by_one(self.metrics)

    @property
    def metrics_names(self) -> list[str]:
        """The names of what ``evaluate`` returns, once the model has seen data."""
        if self.objective is None:
            return []
        return self._in_order([*self.objective.shown, *(m.name for m in self._own_metrics())])

    def _in_order(self, shown: Iterable[str]) -> list[str]:
        """Names as ``evaluate`` lists them: the loss, metrics by names of their own, the rest."""
        goal = self._compiled_goal
        others = [m.name for m in self._each_metric() if m is not goal.loss_tracker]
        first = ["loss", *goal.own_names, *others]
        known = [name for name in first if name in shown]  # as often as there are such metrics
        return known + sorted(set(shown).difference(known))

    def reset_metrics(self) -> None:
        """Lets all metrics forget what they were given."""
        for metric in self.metrics:
            metric.reset_state()

    # What the training loop asks for.

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The loss of a batch, with those that layers have added; models may define their own."""
        total, self._last_loss_values, self._last_loss_count = self._compiled_goal.total(
            y, y_pred, sample_weight, self.losses
        )
        return total

    def _loss_of_batch(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool
    ) -> Any:
        """``compute_loss``, of which a model's own may have no ``training``."""
        self._last_loss_values, self._last_loss_count = (
            [None] * len(self._compiled_goal.losses),
            0.0,
        )
        own = self.compute_loss
        told = {"training": training} if _takes_training(getattr(own, "__func__", own)) else {}
        return own(x, y, y_pred, sample_weight, **told)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Gives a batch to the metrics of ``compile``; the results of all metrics, by name."""
        self._compiled_goal.update_metrics(y, y_pred, sample_weight)
        return self.get_metrics_result()

    def get_metrics_result(self) -> dict[str, Any]:
        """What all metrics say of the batches that they were given, by name."""
        compiled = {} if self.objective is None else self.objective.named()
        shown = {id(metric): name for name, metric in compiled.items()}
        return {shown.get(id(m), m.name): m.result() for m in self._each_metric()}

    # Their names in Keras 2, of which older steps of one's own are full.

    def compiled_loss(
        self, y: Any, y_pred: Any, sample_weight: Any = None, regularization_losses: Any = None
    ) -> Tensor:
        """``compute_loss`` under its old name, which also gives the loss to its own metric.

        ``regularization_losses`` are added in place of those of the layers.
        """
        _warn_of_old("compiled_loss", "compute_loss(x, y, y_pred, sample_weight)")
        if regularization_losses is None:
            loss = self.compute_loss(None, y, y_pred, sample_weight)
        else:
            losses = list(regularization_losses)
            loss, self._last_loss_values, self._last_loss_count = self._compiled_goal.total(
                y, y_pred, sample_weight, losses
            )
        self._compiled_goal.loss_tracker.update_state(
            loss, len(self._compiled_goal.outputs(y_pred)[0])
        )
        return loss

    @property
    def compiled_metrics(self) -> CompiledMetrics:
        """The metrics of ``compile`` as one, under its old name."""
        _warn_of_old("compiled_metrics", "compute_metrics(x, y, y_pred, sample_weight)")
        return CompiledMetrics(self._compiled_goal)

    @property
    def mean_loss(self) -> bool:
        return self._compiled_goal.is_mean

    @property
    def counted(self) -> bool:
        return self._loss_counted

    @property
    def sums_size(self) -> int:
        return self._compiled_goal.sums_size

    def compute(self, arrays: tuple, training: bool) -> ShardResult:
        """Loss and metric sums of one shard: ``(x, y)`` or ``(x, y, sample_weight)``."""
        x, y, weight = unpack_x_y_sample_weight(arrays)
        if training and self._class_weight_of_fit is not None:
            weight = on_host(by_class, y, self._class_weight_of_fit)
        prediction = self(x, training=training)
        loss = self._loss_of_batch(x, y, prediction, weight, training)
        sums = self._compiled_goal.sums(
            y, prediction, weight, self._last_loss_values, (loss, self._last_loss_count)
        )
        return ShardResult(loss, sums, self._last_loss_count)

    def results(self, loss: float, sums: np.ndarray) -> Logs:
        """The loss and the metrics by name, for their summed statistics, which they then have."""
        self._compiled_goal.keep(loss, sums)
        return self._compiled_goal.results(loss, sums)

    @property
    def _compiled_goal(self) -> Objective:
        if self.objective is None:
            raise ValueError("call compile(optimizer=..., loss=...) before training or evaluating")
        return self.objective


@functools.cache
def _takes_training(compute_loss: Any) -> bool:
    return "training" in inspect.signature(compute_loss).parameters


def _warn_of_old(name: str, instead: str) -> None:
    warn(f"`model.{name}` is deprecated: use `model.{instead}`")


def by_class(y: Any, weights: dict[int, float]) -> np.ndarray:
    """The weight of each sample: 1 for classes that have none. Floats are rounded to a class."""
    labels = np.asarray(y)
    if labels.ndim > 1 and labels.shape[-1] > 1:
        labels = labels.argmax(axis=-1)
    labels = np.round(labels.reshape(len(labels), -1)[:, 0])
    return np.array([weights.get(int(label), 1.0) for label in labels], np.float32)
