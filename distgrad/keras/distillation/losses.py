"""How far what a student gives is from what its teacher gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras import losses, registry, tree
from distgrad.keras.registry import Configured
from distgrad.ops.nn import softmax
from distgrad.ops.reduce import reduce_mean


class DistillationLoss(Configured):
    """Base of the losses between a teacher and a student: a subclass defines ``compute_loss``."""

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:
        """The loss of a batch, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} does not define compute_loss")

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Raises ValueError where the outputs do not lie in the same nest."""
        tree.assert_same_structure(teacher_outputs, student_outputs)

    def validate_model_compatibility(self, teacher: Any, student: Any) -> None:
        """Raises ValueError for models that the loss is not for."""


class _ByLosses(DistillationLoss):
    """Keras's losses, one for each output; None leaves an output out."""

    loss: Any

    def _chosen(self, loss: Any) -> Any:
        found = tree.map_structure(lambda each: None if each is None else losses.get(each), loss)
        if all(each is None for each in tree.flatten(found)):
            raise ValueError(
                f"the `loss` of {type(self).__name__} must contain at least one that is not None"
            )
        return found

    def _sum(self, of: Any, teacher_outputs: Any, student_outputs: Any) -> Tensor:
        terms = tree.map_structure(
            lambda loss, *outputs: None if loss is None else of(loss, *outputs),
            self.loss,
            teacher_outputs,
            student_outputs,
        )
        first, *others = [term for term in tree.flatten(terms) if term is not None]
        return sum(others, first)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "loss": registry.entry(self.loss)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        return cls(**{**config, "loss": _revived(config["loss"])})


class FeatureDistillation(_ByLosses):
    """``loss`` between the outputs of a layer of the teacher and those of one of the student.

    Without the name of a layer it is the output of the model. ``loss`` is for one output, or a
    nest like that of the outputs, None for those that are left out. Raises ValueError for a name
    that no layer has, and for layers of a model that is not made of inputs and outputs.
    """

    def __init__(
        self,
        loss: Any = "mse",
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
    ) -> None:
        self.loss = self._chosen(loss)
        self.teacher_layer_name = teacher_layer_name
        self.student_layer_name = student_layer_name

    def validate_model_compatibility(self, teacher: Any, student: Any) -> None:
        names = self.teacher_layer_name, self.student_layer_name
        models = {"teacher": teacher, "student": student}
        without = [kind for kind, model in models.items() if not hasattr(model, "inputs")]
        if without and any(name is not None for name in names):
            raise ValueError(
                "FeatureDistillation with specific layer names requires Functional or Sequential "
                f"models. The {' and '.join(without)} model(s) appear to be subclassed: leave the "
                "names out (to distill final outputs only), or use LogitsDistillation."
            )
        for (kind, model), name in zip(models.items(), names, strict=True):
            try:
                if name is not None:
                    model.get_layer(name=name)
            except ValueError as error:
                raise ValueError(f"In {kind} model: {error}") from None

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        super().validate_outputs(teacher_outputs, student_outputs)
        try:
            tree.assert_same_structure(self.loss, teacher_outputs)
        except ValueError as error:
            raise ValueError(f"Loss structure mismatch: {error}") from None

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Tensor:
        """The sum of the losses of all outputs."""
        return self._sum(_mean_of, teacher_outputs, student_outputs)


class LogitsDistillation(_ByLosses):
    """``loss`` between the logits of teacher and student, divided by ``temperature``.

    The Kullback-Leibler divergence, the default, is that of their softmax, times the square of the
    temperature. Raises ValueError for a temperature that is not above 0, and without any loss.
    Hinton et al., 2015.
    """

    def __init__(self, temperature: float = 3.0, loss: Any = "kl_divergence") -> None:
        self.loss = self._chosen(loss)
        if not isinstance(temperature, (int, float)) or temperature <= 0:
            raise ValueError(f"temperature must be a number above 0, not {temperature!r}")
        self.temperature = temperature

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Tensor:
        """The sum of the losses of all outputs."""

        def of(loss: Any, teacher: Any, student: Any) -> Tensor:
            logits = as_tensor(teacher) / self.temperature, as_tensor(student) / self.temperature
            if loss is losses.kl_divergence or isinstance(loss, losses.KLDivergence):
                return _mean_of(loss, *map(softmax, logits)) * self.temperature**2
            return _mean_of(loss, *logits)

        return self._sum(of, teacher_outputs, student_outputs)


def _mean_of(loss: Any, *outputs: Any) -> Tensor:
    return reduce_mean(loss(*outputs))


def _revived(config: Any) -> Any:
    """Losses in place of their configs, in a nest by output."""
    if isinstance(config, Mapping) and "class_name" not in config:
        return {name: _revived(each) for name, each in config.items()}
    if isinstance(config, (list, tuple)):
        return [_revived(each) for each in config]
    return None if config is None else losses.deserialize(config)
