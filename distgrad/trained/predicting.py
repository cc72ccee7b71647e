"""What a trained model says: of the rows of a file, of a series' future, or how a text goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from distgrad.core.errors import DataError, UsageError
from distgrad.data.fresh import Fresh
from distgrad.data.preparation import Preparation
from distgrad.data.text import read
from distgrad.trained import writing
from distgrad.trained.outputs import Outputs


@dataclass(frozen=True)
class Asked:
    """A model that is asked to predict: what its inputs are made of, and ``size`` at a time.

    ``spec`` is the ``data`` section of its job.
    """

    model: Any
    how: Preparation
    spec: Mapping[str, Any]
    size: int

    def answer(self, path: str | None, target: str, force: bool, **options: Any) -> str:
        """Writes what the model says of a file (or goes on from a prompt); returns one line on it.

        ``options`` (prompt, length, temperature, seed) are None where they are not given. Raises
        UsageError for those that the model has no use for, and for a file that is in the way.
        """
        kind, fresh = self.how.kind, Fresh(self.how, self.spec)
        given = {name: value for name, value in options.items() if value is not None}
        for name in given:
            if name not in _TAKES.get(kind, ()):
                raise UsageError(f"--{name} is not for a model of {_NAMES[kind]}")
        if kind == "text":
            writing.check(target, (".txt",), force, path)
            prompt = given.pop("prompt", None)
            if (prompt is None) == (path is None):
                raise UsageError("a model of text needs a --prompt, or a file with one")
            prompt = read(path) if path is not None else prompt
            more = of_text(self.model, self.how, prompt, **given)
            writing.write_text(target, chain([prompt], more, ["\n"]))
            return f"wrote {target}"
        if path is None:
            raise UsageError(f"a model of {_NAMES[kind]} needs a file of them after its name")
        writing.check(target, writing.ENDINGS, force, path)
        if kind == "series":
            batches = iter([of_series(self.model, fresh, path, given.get("length"))])
        else:
            batches = of_rows(self.model, fresh, path, self.size)
        count = writing.write(target, Outputs.of(self.model, self.how), batches)
        return f"wrote {count} {'prediction' if count == 1 else 'predictions'} to {target}"


_TAKES = {"text": ("prompt", "length", "temperature", "seed"), "series": ("length",)}
_NAMES = {"arrays": "arrays", "table": "tables", "text": "text", "series": "series"}


def of_rows(model: Any, fresh: Fresh, path: str, size: int) -> Iterator[np.ndarray]:
    """The outputs for the samples of a file, in order, ``size`` at a time; no half precision."""
    for x in fresh.inputs(path, size):
        found = model.predict_on_batch(x)
        yield found.astype(np.float32) if found.dtype.itemsize < 4 else found


def of_series(model: Any, fresh: Fresh, path: str, length: int | None) -> np.ndarray:
    """The next ``length`` values (length, 1) of a series, in its own units.

    None: as many as the model forecasts at a time; for more it goes on from what it has forecast.
    Raises DataError where the series is shorter than what the model looks at.
    """
    window, standard = fresh.how.shape[0], fresh.standard
    values = fresh.values(path)
    if len(values) < window:
        raise DataError(f"{path} has {len(values)} values, but a forecast needs the last {window}")
    seen = standard(values[-window:])
    forecast = np.empty(0, np.float32)
    while not len(forecast) or (length is not None and len(forecast) < length):
        found = model.predict_on_batch(seen[None, :, None]).reshape(-1)
        forecast = np.concatenate([forecast, found])
        seen = np.concatenate([seen, found])[-window:]
    return (forecast[:length] * standard.deviation + standard.mean).astype(np.float32)[:, None]


def of_text(
    model: Any,
    how: Preparation,
    prompt: str,
    *,
    length: int = 200,
    temperature: float = 1.0,
    seed: int = 0,
) -> Iterator[str]:
    """Characters that go on from a prompt, drawn by what the model gives them.

    A low ``temperature`` prefers the likely ones, 0 takes the likeliest; the same seed gives the
    same text. Raises UsageError for an empty prompt, one with characters that the model has never
    seen, and a model that does not give each character of the alphabet a probability.
    """
    try:
        codes = Fresh(how).codes("the prompt", prompt).tolist()
    except DataError as error:
        raise UsageError(str(error)) from None
    if not codes:
        raise UsageError("the prompt is empty: a text needs a character to go on from")
    outputs = Outputs.of(model, how)
    if len(outputs.classes) < len(how.alphabet):
        raise UsageError(
            f"this model does not predict the next character of a text: it gives "
            f"{len(outputs.classes)} numbers, and the alphabet has {len(how.alphabet)} characters"
        )
    return _going_on(model, outputs, how, codes, length, temperature, seed)


def _going_on(
    model: Any,
    outputs: Outputs,
    how: Preparation,
    codes: list[int],
    length: int,
    temperature: float,
    seed: int,
) -> Iterator[str]:
    window, known = how.shape[0], len(how.alphabet)
    draws = np.random.Generator(np.random.PCG64(seed))
    allowed = np.array([bool(character) for character in how.alphabet])
    for _ in range(length):
        recent = codes[-window:]
        # The model looks back only: what stands after the last character changes nothing there.
        padded = np.zeros((1, window), np.int32)
        padded[0, : len(recent)] = recent
        found = outputs.probabilities(model.predict_on_batch(padded))[0, len(recent) - 1, :known]
        code = _draw(found.astype(np.float64) * allowed, temperature, draws.random())
        codes.append(code)
        yield how.alphabet[code]


def _draw(probabilities: np.ndarray, temperature: float, chance: float) -> int:
    """The index that a number from [0, 1) falls on."""
    if temperature == 0:
        return int(probabilities.argmax())
    with np.errstate(divide="ignore"):
        scores = np.log(probabilities) / temperature
    weights = np.cumsum(np.exp(scores - scores.max()))
    return int(np.searchsorted(weights, chance * weights[-1], side="right"))
