"""What a model was compiled to reach: the losses and metrics of its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core import recording, tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Operand, Tensor
from distgrad.keras import losses, metrics
from distgrad.keras.layers.masking import mask_of
from distgrad.keras.metrics.base import Metric, parts_of
from distgrad.ops.casting import cast
from distgrad.ops.host import on_host
from distgrad.ops.reduce import reduce_sum
from distgrad.training import state
from distgrad.training.returned import goes_on


class Objective:
    """Losses, weights and metrics, as ``compile`` takes them.

    Each is for the only output, or a list by position, or a dict by name; a single loss serves all
    outputs. Outputs by name have the positions of their sorted names, as in Keras. Raises
    ValueError for unknown names, and, once the outputs are known, for lists and dicts that do not
    fit them.
    """

    def __init__(
        self, loss: Any, loss_weights: Any, plain_metrics: Any, weighted_metrics: Any
    ) -> None:
        self._loss = _map(_one_loss, loss)
        for weight in _flat(loss_weights):
            if isinstance(weight, str):
                raise ValueError(
                    f"loss_weights are numbers, not {weight!r}: as in Keras 3 they are the third "
                    "argument of compile; say metrics=[...]"
                )
        self._weights = loss_weights
        self._metrics = plain_metrics, weighted_metrics
        self.loss_tracker = metrics.Mean("loss")
        self.alone = False  # whether a batch is one shard, and nobody has another
        self._names: list[str] | None = None
        self._at: list[int] | None = None  # the positions of outputs by name
        self._metric_objects: list[Metric] = []
        self._made: dict[Any, tuple[Any, Metric]] = {}  # by their places: of what, and the metric
        self._shown: list[str] = []  # the names of metrics among those of all outputs
        self._places: list[tuple[int, bool]] = []  # of each metric: its output, whether weighted
        self.losses: list[Any] = []
        if not _nested(loss):  # names are checked at once
            for each in (*_flat(plain_metrics), *_flat(weighted_metrics)):
                metrics.check(each)

    @property
    def has_loss(self) -> bool:
        return any(each is not None for each in _flat(self._loss))

    @property
    def metrics(self) -> list[Metric]:
        """Those of all outputs; none before it is known which outputs there are."""
        if self._names is None and not self._tells_outputs_apart():
            self.bind([""])
        return self._metric_objects

    def _tells_outputs_apart(self) -> bool:
        given = [*self._metrics, *(each for m in self._metrics if _nested(m) for each in m)]
        names = any(isinstance(each, dict) and "class_name" not in each for each in given)
        places = any(isinstance(each, (list, tuple)) for each in given[2:])
        return names or places or _nested(self._loss) or _nested(self._weights)

    @property
    def names(self) -> list[str]:
        """The outputs; unless ``bind`` has said so, there is one, which needs no name."""
        if self._names is None:
            self.bind([""])
        assert self._names is not None
        return self._names

    def bind(self, names: Sequence[str], by_name: bool = False) -> None:
        """Says which outputs there are, and whether they come by name, as a dict.

        Several are named in the names of their metrics.
        """
        names = list(names)
        at = [tree.keys(dict.fromkeys(names)).index(name) for name in names] if by_name else None
        if names == self._names and at == self._at:
            return
        own_losses = _align(self._loss, names, "loss", at)
        weights = _align(self._weights, names, "loss_weights", at)
        plain, by_weight = (_per_output(given, names, at) for given in self._metrics)
        self._at, self.losses = at, own_losses  # all of them fit
        self._factors = [1.0 if weight is None else float(weight) for weight in weights]
        self._metric_objects, self._shown, self._places = [], [], []
        for outputs, weighted in ((plain, False), (by_weight, True)):
            for place, chosen in enumerate(outputs):
                for number, each in enumerate(chosen):
                    key = place, weighted, number
                    if key not in self._made or self._made[key][0] is not each:
                        self._made[key] = each, metrics.compiled(each)
                    metric = self._made[key][1]
                    prefix = f"{names[place]}_" if len(names) > 1 else ""
                    self._shown.append(_unused(prefix, metric.name, weighted, self._shown))
                    self._metric_objects.append(metric)
                    self._places.append((place, weighted))
        self._names = names

    def expect(self, outputs: Sequence[Any]) -> None:
        """Tells metrics the shapes of what they will be given."""
        for metric, (place, _) in zip(self._metric_objects, self._places, strict=True):
            metric.expect(tuple(outputs[place].shape))

    @property
    def _own_losses(self) -> list[int]:
        """The outputs whose losses are shown one by one: none where there is but one loss."""
        found = [i for i, _ in enumerate(self.names) if self.losses[i] is not None]
        if self._at is not None and isinstance(self._loss, dict):  # in the order of the losses
            found = [self.names.index(name) for name in self._loss if self._loss[name] is not None]
        return found if len(found) > 1 else []

    @property
    def _unreduced(self) -> bool:
        """Whether there is a loss for each sample: the gradient is that of their sum, and what is
        shown is their mean."""
        self.names  # noqa: B018  binds
        return {loss.reduction for loss in self.losses if loss is not None} == {None}

    @property
    def _losses_size(self) -> int:
        return 2 * (self._unreduced + len(self._own_losses))

    @property
    def sums_size(self) -> int:
        return self._losses_size + sum(metric.numbers_in_all() for metric in self._added)

    @property
    def _added(self) -> list[Metric]:
        """Those whose statistics are added up; the others go on from batch to batch."""
        return [metric for metric in self._metric_objects if not goes_on(metric, self.alone)]

    @property
    def is_mean(self) -> bool:
        """Whether the loss is a mean over samples; else a sum over them."""
        self.names  # noqa: B018  binds
        reductions = {loss.reduction for loss in self.losses if loss is not None}
        return not reductions or bool(reductions - {"sum", None})

    def counted(self, masked: bool, weighted: bool) -> bool:
        """Whether the mean of the loss is over something else than samples, as ``count`` says."""
        chosen = [loss for loss in self.losses if loss is not None]
        if len(chosen) != 1 or not self.is_mean:
            return False
        (loss,) = chosen
        by_weight = weighted and loss.reduction == "mean_with_sample_weight"
        counts = loss.masks_values or getattr(loss, "ignore_class", None) is not None
        return masked or by_weight or counts

    def total(
        self, y: Any, prediction: Any, weight: Any, extra: Sequence[Any] = ()
    ) -> tuple[Tensor, list[Tensor | None], Any]:
        """The loss to differentiate, that of each output, and the count of a counted one.

        ``extra`` are losses that layers have added: means, as it were, of all the samples, but
        for tensors with axes, which have a loss for each sample and count by their sum.
        """
        outputs, is_mean = self.outputs(prediction), self.is_mean
        targets, weights = self._targets(y), self._sample_weights(weight)
        values: list[Tensor | None] = []
        terms: list[Tensor] = []
        count: Any = 0.0
        for loss, factor, y_true, y_pred, w in zip(
            self.losses, self._factors, targets, outputs, weights, strict=True
        ):
            if loss is None:
                values.append(None)
                continue
            value, count = loss.counted(y_true, y_pred, w)
            if loss.reduction is None:
                value = reduce_sum(value)
            values.append(value)
            if is_mean and loss.reduction in ("sum", None):
                value = _unshared(value)
            terms.append(value if factor == 1.0 else value * factor)
        share = 1.0 if is_mean else count if self._unreduced else state.share()
        for value in map(as_tensor, extra):
            if value._data.ndim:
                value = reduce_sum(value)
                terms.append(_unshared(value) if is_mean else value)
            else:
                terms.append(value if share == 1.0 else value * share)
        if not terms:
            raise ValueError("there is no loss: give one to compile, or use add_loss in a layer")
        total = terms[0]
        for term in terms[1:]:
            total = total + cast(term, total._data.dtype)
        return total, values, count

    def sums(
        self,
        y: Any,
        prediction: Any,
        weight: Any,
        values: Sequence[Tensor | None],
        whole: tuple[Any, Any],
    ) -> Tensor:
        """The statistics of losses and metrics, one after the other: a float64 vector.

        ``values`` are the losses of the outputs, ``whole`` that of all together and its count.
        """
        if not self._metric_objects and not self._losses_size:
            return Tensor(np.zeros(0))
        outputs = self.outputs(prediction)
        targets, weights = self._targets(y), self._sample_weights(weight)
        masks = [mask_of(each) for each in outputs]
        if len(self._added) < len(self._metric_objects):
            recording.call(self._give, targets, outputs, weights, masks)
            if not self.sums_size:
                return Tensor(np.zeros(0))
        if len(self._metric_objects) == 1 and not self._losses_size:
            (metric,), ((i, _),) = self._metric_objects, self._places
            plain = weights[i] is None and masks[i] is None
            if (
                recording.per_thread.capture is not None
                and plain
                and not metric.updates_itself
                and all(isinstance(each, Operand) for each in (targets[i], outputs[i]))
            ):
                found = metric.operations(as_tensor(targets[i]), outputs[i])
                if found is not None:
                    return found
        return on_host(self._sums, targets, outputs, weights, list(values), masks, *whole)

    def _sums(
        self,
        targets: Any,
        outputs: Any,
        weights: Any,
        values: Any,
        masks: Any,
        total: Any,
        count: Any,
    ) -> np.ndarray:
        parts = []
        if self._unreduced:
            parts.append(np.array([float(total), float(count)]))
        _remask(outputs, masks)
        for i in self._own_losses:
            size = float(outputs[i]._data.shape[0])
            value = 0.0 if values[i] is None else float(values[i])
            parts.append(np.array([value, count] if self._unreduced else [value * size, size]))
        for metric, (i, weighted) in zip(self._metric_objects, self._places, strict=True):
            if not goes_on(metric, self.alone):
                given = (weights[i],) if weighted and weights[i] is not None else ()
                parts.append(metric.of_batch(targets[i], outputs[i], *given))
        return np.concatenate(parts) if parts else np.zeros(0)

    def _give(self, targets: Any, outputs: Any, weights: Any, masks: Any) -> None:
        """Gives a batch to the metrics that go on."""
        _remask(outputs, masks)
        with recording.suspended():
            for metric, (i, weighted) in zip(self._metric_objects, self._places, strict=True):
                if goes_on(metric, self.alone):
                    metric.give(targets[i], outputs[i], weights[i] if weighted else None)

    _give.apart = True  # type: ignore[attr-defined]  # metrics write what is theirs alone

    def update_metrics(self, y: Any, prediction: Any, weight: Any) -> None:
        """Gives a batch to all metrics, as a user's own step does."""
        outputs = self.outputs(prediction)
        targets, weights = self._targets(y), self._sample_weights(weight)
        for metric, (i, weighted) in zip(self._metric_objects, self._places, strict=True):
            given = (weights[i],) if weighted and weights[i] is not None else ()
            metric.update_state(targets[i], outputs[i], *given)

    def own(self, values: Sequence[Tensor | None]) -> dict[str, Any]:
        """The losses of several outputs by name."""
        known = [i for i in self._own_losses if values[i] is not None]
        return {f"{self.names[i]}_loss": values[i] for i in known}

    @property
    def shown(self) -> list[str]:
        """The names of all ``results``."""
        return ["loss", *self.own_names, *self.named()]

    @property
    def own_names(self) -> list[str]:
        """The names of the losses of several outputs."""
        return [f"{self.names[i]}_loss" for i in self._own_losses]

    def named(self) -> dict[str, Metric]:
        """The metrics under the names by which they are shown."""
        return dict(zip(self._shown, self.metrics, strict=True)) if self.metrics else {}

    def results(self, loss: float, sums: np.ndarray) -> dict[str, Any]:
        """The loss and all metrics by name."""
        start = 2 * self._unreduced
        logs: dict[str, Any] = {"loss": float(sums[0] / sums[1]) if start else loss}
        for i in self._own_losses:
            logs[f"{self.names[i]}_loss"] = float(sums[start] / sums[start + 1])
            start += 2
        parts = parts_of(self._added, sums, start)
        for name, metric in zip(self._shown, self._metric_objects, strict=True):
            alone = goes_on(metric, self.alone)
            logs[name] = metric.told() if alone else metric.value_of_sums(next(parts)[1])
        return logs

    def keep(self, loss: float, sums: np.ndarray) -> None:
        """Lets the metrics have these statistics, for users who ask them."""
        shown = sums[:2] if self._unreduced else np.array([loss, 1.0])
        self.loss_tracker.keep(shown)
        for metric, part in parts_of(self._added, sums, self._losses_size):
            metric.keep(part)

    def outputs(self, prediction: Any) -> list[Tensor]:
        """The outputs of a prediction, in the order of their names.

        A step of one's own may compare others than those that ``call`` gives: they are bound here.
        """
        by_name = isinstance(prediction, dict)
        given: Any = prediction if _nested(prediction) else [prediction]
        if set(given) != set(self.names) if by_name else len(given) != len(self.names):
            self.bind(output_names(prediction), by_name)
        return [given[name] for name in self.names] if by_name else list(given)

    def _targets(self, y: Any) -> list[Any]:
        if len(self.names) == 1 and not isinstance(y, dict):
            return [y[0] if isinstance(y, (list, tuple)) and len(y) == 1 else y]
        at = self._at or range(len(self.names))
        compared = sorted(p for p, loss in zip(at, self.losses, strict=True) if loss is not None)
        if isinstance(y, (list, tuple)) and len(self.names) != len(y) == len(compared):
            # Targets of the outputs that have a loss alone.
            return [y[compared.index(place)] if place in compared else None for place in at]
        if len(compared) > 1 and y is not None and not _nested(y):
            raise ValueError(
                f"y is one array, and {len(compared)} outputs are compared with targets: give a "
                f"list of {len(self.names)}, or a dict by {list(self.names)}"
            )
        return _align(y, self.names, "y", self._at)

    def _sample_weights(self, weight: Any) -> list[Any]:
        return _align(weight, self.names, "sample_weight", self._at)


def _remask(outputs: Sequence[Any], masks: Sequence[Any]) -> None:
    """Gives outputs their masks again: a replay comes with new tensors."""
    for output, mask in zip(outputs, masks, strict=True):
        if mask is not None:
            output._keras_mask = mask


def _unshared(value: Tensor) -> Tensor:
    """A sum over the samples of a shard that is about to be weighed by its share of them."""
    return value * (1.0 / state.share())


class CompiledMetrics:
    """The metrics of ``compile`` as one, which steps of one's own give whole batches, as in Keras.

    It knows which output each is for, and which of them count weights.
    """

    name = "compile_metrics"

    def __init__(self, objective: Objective) -> None:
        self._objective = objective

    @property
    def metrics(self) -> list[Metric]:
        return self._objective.metrics

    @property
    def variables(self) -> list[Any]:
        return [variable for metric in self.metrics for variable in metric.variables]

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self._objective.update_metrics(y_true, y_pred, sample_weight)

    def result(self) -> dict[str, Tensor]:
        """What each says, by its name."""
        return {name: metric.result() for name, metric in self._objective.named().items()}

    def reset_state(self) -> None:
        for metric in self.metrics:
            metric.reset_state()

    def __repr__(self) -> str:
        return f"<CompiledMetrics of {[metric.name for metric in self.metrics]}>"


def output_names(prediction: Any, given: Sequence[str] = ()) -> list[str]:
    """Names for the outputs of a model: its own, the keys of a dict, else numbers."""
    if isinstance(prediction, dict):
        return list(prediction)
    if isinstance(prediction, (list, tuple)):
        numbered = [f"output_{i + 1}" for i in range(len(prediction))]
        return list(given) if len(given) == len(prediction) else numbered
    return list(given) if len(given) == 1 else [""]


def _unused(prefix: str, name: str, weighted: bool, taken: Sequence[str]) -> str:
    """The name under which a metric is shown where others are, as Keras finds it."""
    if weighted and prefix + name in taken:
        name = f"weighted_{name}"
    found, number = prefix + name, 0
    while found in taken:
        number += 1
        found = f"{prefix}{name}_{number}"
    return found


def _nested(spec: Any) -> bool:
    return isinstance(spec, (dict, list, tuple))


def _map(fn: Any, spec: Any) -> Any:
    if isinstance(spec, dict) and "class_name" not in spec:
        return {name: fn(each) for name, each in spec.items()}
    if isinstance(spec, (list, tuple)):
        return [fn(each) for each in spec]
    return fn(spec)


def _one_loss(spec: Any) -> Any:
    """The loss of an output, which may stand in a list of its own."""
    if isinstance(spec, (list, tuple)):
        if len(spec) != 1:
            raise ValueError(f"an output has one loss, not {spec!r}: add several in a function")
        (spec,) = spec
    return losses.as_loss(spec)


def _flat(spec: Any) -> list[Any]:
    if isinstance(spec, dict) and "class_name" not in spec:
        return [each for part in spec.values() for each in _flat(part)]
    if isinstance(spec, (list, tuple)):
        return [each for part in spec for each in _flat(part)]
    return [] if spec is None else [spec]


def _align(spec: Any, names: Sequence[str], what: str, at: Sequence[int] | None) -> list[Any]:
    """One entry for each output; None where a dict has no entry for it.

    ``at`` has the place of each in a list, None where that is the order of the names.
    """
    if isinstance(spec, dict) and "class_name" not in spec:
        unknown = [name for name in spec if name not in names]
        if unknown and names != [""]:
            raise ValueError(f"{what} names {unknown}; the outputs are {list(names)}")
        return list(spec.values()) if names == [""] else [spec.get(name) for name in names]
    if isinstance(spec, (list, tuple)):
        if len(spec) != len(names):
            raise ValueError(f"{what} has {len(spec)} entries for {len(names)} outputs")
        return list(spec) if at is None else [spec[place] for place in at]
    return [spec] * len(names)


def _per_output(spec: Any, names: Sequence[str], at: Sequence[int] | None) -> list[list[Any]]:
    """The metrics of each output."""
    if spec is None:
        return [[] for _ in names]
    if isinstance(spec, dict):
        return [_flat(each) for each in _align(spec, names, "metrics", at)]
    if len(names) == 1:
        return [_flat(spec)]
    return [_flat(each) for each in _align(spec, names, "metrics", at)]
