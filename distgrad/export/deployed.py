"""A trained run as it is used elsewhere: from raw values to what its outputs mean."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.ops.exponential import sigmoid
from distgrad.ops.logic import is_nan, select
from distgrad.ops.nn import softmax
from distgrad.trained import Trained
from distgrad.trained.outputs import Outputs


class Deployed:
    """The computation of an exported run, between arrays as files have them and final outputs.

    Unless ``raw`` it begins with what the training did to its samples (division, what stands in
    for nan, mean and deviation), makes scores into probabilities, and brings forecasts back to
    their own units.
    """

    def __init__(self, run: Trained, raw: bool = False) -> None:
        self.run, self.raw = run, raw
        self.how, self.outputs = run.preparation, Outputs.of(run.model, run.preparation)

    @property
    def signature(self) -> list[KerasTensor]:
        """One input of any number of samples."""
        name = run_input_name(self.run.model)
        return [KerasTensor((None, *self.how.shape), self.how.dtype, name=name)]

    def __call__(self, x: Any) -> Any:
        """Outputs for inputs, in operations that can be recorded."""
        y = self.run.model(x if self.raw else self._prepared(as_tensor(x)), training=False)
        if self.raw:
            return y
        if self.outputs.logits:
            return sigmoid(y) if self.outputs.two else softmax(y)
        if self.how.kind == "series" and self.how.mean:
            return y * np.float32(self.how.deviation[0]) + np.float32(self.how.mean[0])
        return y

    def _prepared(self, x: Any) -> Any:
        if self.how.scale != 1:
            x = x / self.how.scale
        if self.how.fill:
            x = select(is_nan(x), np.array(self.how.fill, np.float32), x)
        if self.how.mean:
            mean, deviation = (np.array(v, np.float32) for v in (self.how.mean, self.how.deviation))
            x = (x - mean) / deviation
        return x

    # The same on the host, for what is compared

    def as_files_have(self, x: np.ndarray) -> np.ndarray:
        """Prepared samples as they were before: what the file is to be given."""
        if self.raw or self.how.kind == "text":
            return x
        values = x.astype(np.float64) * self.how.scale
        if self.how.mean:
            values = values * np.array(self.how.deviation) + np.array(self.how.mean)
        if np.dtype(self.how.raw_dtype or "f4").kind in "iu":
            values = np.rint(values)
        return values.astype(np.float32)

    def meant(self, found: np.ndarray) -> np.ndarray:
        """What the model gives, made into what this gives."""
        if self.raw:
            return found
        if self.outputs.logits:
            probabilities = self.outputs.probabilities(found)
            return probabilities[..., 1:] if self.outputs.two else probabilities
        if self.how.kind == "series" and self.how.mean:
            return found * self.how.deviation[0] + self.how.mean[0]
        return found

    def targets(self, y: np.ndarray) -> np.ndarray:
        """Targets in the units of the outputs."""
        if not self.raw and self.how.kind == "series" and self.how.mean:
            return y * self.how.deviation[0] + self.how.mean[0]
        return y

    # What is said of it

    def score(self, found: np.ndarray, y: np.ndarray) -> float:
        """Accuracy where outputs are classes, else the mean squared error; see ``measure``."""
        if not self.outputs.classes:
            return float(np.mean((found.astype(np.float64) - y) ** 2))
        if self.outputs.two:
            half = 0.0 if self.raw and self.outputs.logits else 0.5
            return float(np.mean((found > half).reshape(-1) == (y > 0.5).reshape(-1)))
        one_hot = y.ndim == found.ndim and y.shape[-1] == found.shape[-1]
        true = y.argmax(axis=-1) if one_hot else y.reshape(found.shape[:-1])
        return float(np.mean(found.argmax(axis=-1) == true))

    @property
    def measure(self) -> str:
        return "accuracy" if self.outputs.classes else "mean_squared_error"

    def metadata(self) -> dict[str, str]:
        """What a program that uses the file has to know, as the texts that ONNX keeps."""
        values: dict[str, Any] = {
            "job": self.run.job.name,
            "step": self.run.step,
            "classes": list(self.outputs.classes),
            "output": self.output,
            "inputs_prepared": "by the caller" if self.raw else "in the graph",
            "missing": "nan" if self.fills else None,
            "highest": self.highest,
            "features": list(self.how.features),
            "label": self.how.label,
            "alphabet": list(self.how.alphabet),
        }
        kept = {key: value for key, value in values.items() if value not in ([], None)}
        return {k: v if isinstance(v, str) else json.dumps(v) for k, v in kept.items()}

    @property
    def fills(self) -> bool:
        """Whether a nan among the inputs stands for a value that is missing."""
        return bool(self.how.fill) and not self.raw

    @property
    def output(self) -> str:
        """What the last axis of the output holds."""
        if not self.outputs.classes:
            return "values"
        if self.raw and self.outputs.logits:
            return "scores"
        return "probability of the second class" if self.outputs.two else "probabilities"

    @property
    def highest(self) -> float:
        """The largest value of a pixel, of images."""
        whole = {"uint8": 255.0}.get(self.how.raw_dtype, 1.0)
        if self.how.scale == 1:
            return whole
        return 1.0 if self.raw else self.how.scale


def run_input_name(model: Any) -> str:
    """How a model calls its input."""
    return model.input_names[0]
