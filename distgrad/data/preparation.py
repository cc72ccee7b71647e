"""What was done to samples before a model saw them, as plain values that travel with the model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distgrad.core.errors import DataError
from distgrad.data.source import ArraySource

_FORMAT = 1


@dataclass(frozen=True)
class Preparation:
    """From what a file holds to the inputs of a model, and from its outputs to what they mean.

    - ``kind``: ``arrays`` (images, too), ``table``, ``text`` or ``series``.
    - ``shape`` and ``dtype`` of one sample of the inputs, and of its target.
    - ``scale``: what the inputs were divided by; ``raw_dtype``: what they were before.
    - ``features``: the columns of a table, in order; ``label``: the one that is predicted.
    - ``classes``: the names of the classes, in order, where they have any.
    - ``fill``: what stands in for a missing value of each column of a table, where something does.
    - ``mean`` and ``deviation``: of each column of a table, or of a series, if standardized.
    - ``alphabet``: the characters of a text in the order of their codes; an empty one stands for
      all others.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    target_shape: tuple[int, ...]
    target_dtype: str
    scale: float = 1.0
    raw_dtype: str = ""
    features: tuple[str, ...] = ()
    label: str | None = None
    classes: tuple[str, ...] = ()
    fill: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    alphabet: tuple[str, ...] = ()

    @classmethod
    def of(cls, kind: str, train: ArraySource, **more: Any) -> Preparation:
        """That of samples like those of ``train``."""
        x, y = train.take(slice(0, 1))
        samples = (tuple(x.shape[1:]), x.dtype.name, tuple(y.shape[1:]), y.dtype.name)
        return cls(kind, *samples, **more)

    def to_json(self) -> str:
        """As JSON that `from_json` reads back to the last bit of every number."""
        return json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str) -> Preparation:
        """What `to_json` gave. Raises DataError that names the file where it is something else."""
        try:
            values = json.loads(text)
            if (found := values.pop("format")) != _FORMAT:
                raise ValueError(f"it has format {found!r}, of another version than {_FORMAT!r}")
            values.setdefault("fill", ())  # models from before there was any
            known = {field.name: values.pop(field.name) for field in dataclasses.fields(cls)}
            if values:
                raise ValueError(f"unknown key {next(iter(values))}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{name} does not describe the inputs of a model ({error})") from None
        return cls(**_with_tuples(known))


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
