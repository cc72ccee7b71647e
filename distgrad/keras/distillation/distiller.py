"""Distiller: a model whose fit trains a student by targets and by a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras import losses, registry, saving, tree
from distgrad.keras.distillation.losses import DistillationLoss
from distgrad.keras.metrics import Mean
from distgrad.keras.models import Model
from distgrad.ops.reduce import reduce_mean

_END = "final_output"


class Distiller(Model):
    """Trains ``student`` by its targets and by ``teacher``, which stays as it is.

    The loss is ``w * loss + (1 - w) * (sum of weighted distillation losses)`` with w the
    ``student_loss_weight``. A call, and predict, are the student's. Raises ValueError for models
    whose inputs or outputs do not fit, weights out of range, and losses that are not for them.
    """

    def __init__(
        self,
        teacher: Model,
        student: Model,
        distillation_losses: Any,
        distillation_loss_weights: Any = None,
        student_loss_weight: float = 0.5,
        name: str = "distiller",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        _check_models(teacher, student)
        self.teacher, self.student = teacher, student
        if not isinstance(student_loss_weight, (int, float)) or not 0 <= student_loss_weight <= 1:
            raise ValueError(
                "student_loss_weight must be a number between 0.0 and 1.0, got "
                f"{student_loss_weight!r}"
            )
        self.student_loss_weight = student_loss_weight
        if distillation_losses is None:
            raise ValueError(
                "'distillation_losses' cannot be `None`. Provide a distillation loss (e.g., "
                "LogitsDistillation or FeatureDistillation) or a list of distillation losses."
            )
        alone = not isinstance(distillation_losses, (list, tuple))
        self.distillation_losses = [distillation_losses] if alone else list(distillation_losses)
        if alone or distillation_loss_weights is None:
            distillation_loss_weights = [1.0] * len(self.distillation_losses)
        if len(distillation_loss_weights) != len(self.distillation_losses):
            raise ValueError(
                f"Number of distillation_loss_weights ({len(distillation_loss_weights)}) must "
                f"match number of distillation_losses ({len(self.distillation_losses)})"
            )
        self.distillation_loss_weights = list(distillation_loss_weights)
        for each in self.distillation_losses:
            each.validate_model_compatibility(teacher, student)
        self._teacher_feature_extractor = _extractor(teacher, self._names("teacher"))
        self._student_feature_extractor = _extractor(student, self._names("student"))
        teacher.trainable = False
        self.student_loss_tracker = Mean("student_loss")
        self.distillation_loss_tracker = Mean("distillation_loss")
        self.total_loss_tracker = Mean("total_loss")

    def _names(self, whose: str) -> list[str]:
        """The layers of one model that losses ask for."""
        return [n for each in self.distillation_losses if (n := _layer_of(each, whose))]

    def compile(  # type: ignore[override]
        self, optimizer: Any = "adam", loss: Any = None, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Chooses the optimizer, the student's loss by its targets, and metrics.

        Raises ValueError without a loss, and for metrics that are no list.
        """
        if loss is None:
            raise ValueError("'loss' cannot be `None`.")
        if metrics is not None and not isinstance(metrics, (list, tuple)):
            raise ValueError(f"metrics must be a list or tuple, got {type(metrics)}")
        self._student_loss = tree.map_structure(losses.get, loss)
        super().compile(optimizer, loss=None, metrics=metrics, **kwargs)
        self._compiled_with["loss"] = loss

    def call(self, inputs: Any, training: bool | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        return self.student(inputs, training=training, **kwargs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The loss of a batch, of which the metrics are told its parts; no weights of samples."""
        y_pred = self(x, training=training) if y_pred is None else y_pred
        share, own, distilled = self.student_loss_weight, 0.0, 0.0
        if share > 0 and y is not None:
            own = self._by_targets(y, y_pred)
        if share < 1:
            distilled = self._by_teacher(x, y_pred)
        total = share * own + (1.0 - share) * distilled
        self.student_loss_tracker.update_state(own)
        self.distillation_loss_tracker.update_state(distilled)
        self.total_loss_tracker.update_state(total)
        return total

    def _by_targets(self, y: Any, y_pred: Any) -> Any:
        values = tree.map_structure(lambda loss, *of: loss(*of), self._student_loss, y, y_pred)
        first, *others = tree.flatten(values)
        if not others:
            return reduce_mean(first)
        return sum(map(reduce_mean, others), reduce_mean(first))

    def _by_teacher(self, x: Any, y_pred: Any) -> Any:
        taught = _outputs(self._teacher_feature_extractor, self.teacher, x, False)
        extractor = self._student_feature_extractor
        learnt = {_END: y_pred} if extractor is None else extractor(x, training=True)
        total: Any = 0.0
        weighted = zip(self.distillation_losses, self.distillation_loss_weights, strict=True)
        for each, weight in weighted:
            named = _layer_of(each, "teacher") is not None
            teacher = taught[_layer_of(each, "teacher") or _END]
            student = learnt[_layer_of(each, "student") or _END] if named else y_pred
            each.validate_outputs(teacher, student)
            value = each.compute_loss(teacher, student)
            if isinstance(value, Tensor) and value._data.ndim:
                raise ValueError(
                    f"Distillation loss {type(each).__name__} returned a non-scalar loss with "
                    f"shape {tuple(value.shape)}: compute_loss returns a scalar"
                )
            total = total + weight * value
        return total

    # Saved and loaded

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, the models as their configs."""
        config = super().get_config()
        for name in ("teacher", "student"):
            model = getattr(self, name)
            if model._build_shapes_dict is not None:
                shape = {"input_shape": registry.plain(model._build_shapes_dict)}
                config[name]["build_config"] = {**shape, "input_dtype": model._build_dtypes_dict}
        return config

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Any:
        """A distiller with models and losses of these configs."""
        from distgrad.keras import distillation

        given = {name: value for name, value in config.items() if name != "dtype"}
        with registry.custom_object_scope(custom_objects or {}):
            for name in ("teacher", "student"):
                given[name] = _revived(config[name])
            known = {name: getattr(distillation, name) for name in distillation.__all__}
            given["distillation_losses"] = [
                registry.deserialize("distillation loss", each, known, None)
                for each in config["distillation_losses"]
            ]
        trainable = given.pop("trainable", True)
        made = cls(**given)
        if not trainable:
            made.trainable = False
        return made

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """``compile`` with what ``get_compile_config`` gave; Keras's does not tell the loss."""
        if config.get("loss") is not None:
            super().compile_from_config(config)


def _revived(entry: Mapping[str, Any]) -> Any:
    model = saving.deserialize_keras_object(entry)
    built = entry.get("build_config") or {}
    if not model.built and built.get("input_shape"):
        model.build_like(built["input_shape"], built.get("input_dtype"))
    return model


def _layer_of(loss: DistillationLoss, whose: str) -> str | None:
    return getattr(loss, f"{whose}_layer_name", None)


def _extractor(model: Model, names: list[str]) -> Model | None:
    """A model that gives the outputs of these layers by name, and the model's own."""
    if not names:
        return None
    outputs = {
        _END: model._graph_ends()[1],
        **{name: model.get_layer(name).output for name in names},
    }
    return Model(model.inputs, outputs, name=f"{model.name}_multi_feature_extractor")


def _outputs(extractor: Model | None, model: Model, x: Any, training: bool) -> Any:
    if extractor is None:
        return {_END: model(x, training=training)}
    return extractor(x, training=training)


def _check_models(teacher: Any, student: Any) -> None:
    """Raises ValueError unless both are models, of the same inputs and outputs as far as known."""
    for kind, model in (("Teacher", teacher), ("Student", student)):
        if not isinstance(model, Model):
            raise ValueError(f"{kind} must be a keras.Model, got {type(model)}")
    for what in ("inputs", "outputs"):
        both = [getattr(model, what, None) for model in (teacher, student)]
        if None in both:
            continue
        tree.map_structure(lambda a, b, what=what: _check_same(what[:-1], a, b), *both)


def _check_same(what: str, one: Any, other: Any) -> None:
    shapes = tuple(one.shape), tuple(other.shape)
    sizes = zip(*shapes, strict=False)
    if len(shapes[0]) != len(shapes[1]) or any(a != b for a, b in sizes if None not in (a, b)):
        raise ValueError(
            f"Teacher and student {what} shapes are incompatible. Teacher: {shapes[0]}, Student: "
            f"{shapes[1]}. All dimensions must match."
        )
    if one.dtype != other.dtype:
        raise ValueError(
            f"Teacher and student {what} dtypes must match. Teacher: {one.dtype}, Student: "
            f"{other.dtype}."
        )
