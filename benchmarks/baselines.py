"""What simple methods score on the test samples of the jobs in configs.

Run it as `python benchmarks/baselines.py [JOB.yaml ...]`.

They see the same training samples and forecast the same test samples as the job. A job without its
data, such as MNIST without a network, is told what is missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from distgrad.config import load
from distgrad.core.errors import DataError
from distgrad.data import source
from distgrad.data.source import Splits

CONFIGS = Path(__file__).parents[1] / "configs"
Scores = dict[str, float]


def image_accuracy(splits: Splits) -> Scores:
    """Accuracy of the nearest class mean, and of least squares on one-hot labels."""
    (x, y), (tx, ty) = ((a.reshape(len(a), -1), b) for a, b in map(everything, splits_of(splits)))
    means = np.stack([x[y == label].mean(axis=0) for label in range(y.max() + 1)])
    distance = (means**2).sum(axis=1) - 2 * tx @ means.T
    ones = lambda a: np.column_stack([a, np.ones(len(a))])  # noqa: E731
    weights = np.linalg.lstsq(ones(x), np.eye(len(means))[y], rcond=None)[0]
    return {
        "nearest class mean": np.mean(distance.argmin(axis=1) == ty),
        "linear least squares": np.mean((ones(tx) @ weights).argmax(axis=1) == ty),
    }


def table_accuracy(splits: Splits) -> Scores:
    """Accuracy of the commoner class, and of the best threshold on the best single column."""
    (x, y), (tx, ty) = map(everything, splits_of(splits))
    common = np.bincount(y).argmax()
    best = max(
        (np.mean((sign * x[:, c] > sign * t) == y), c, t, sign)
        for c in range(x.shape[1])
        for t in np.unique(x[:, c])
        for sign in (1, -1)
    )
    _, column, threshold, sign = best
    return {
        "commoner class": np.mean(ty == common),
        "best single measure": np.mean((sign * tx[:, column] > sign * threshold) == ty),
    }


def text_entropy(splits: Splits) -> Scores:
    """Cross entropies in nats a character; each backs off to the one before it."""
    (x, y), (tx, ty) = map(everything, splits_of(splits))
    codes, size = np.append(x.ravel(), y[-1, -1]), int(max(x.max(), y.max(), tx.max())) + 1
    single = (np.bincount(codes, minlength=size) + 1.0) / (len(codes) + size)
    pairs = np.zeros((size, size))
    np.add.at(pairs, (codes[:-1], codes[1:]), 1)
    pairs = (pairs + single) / (pairs.sum(axis=1, keepdims=True) + 1)
    return {
        "uniform": np.log(size),
        "unigram": -np.log(single[ty]).mean(),
        "bigram": -np.log(pairs[tx, ty]).mean(),
    }


def series_error(splits: Splits) -> Scores:
    """Mean squared errors: the last value again, and the value of the same month a year ago."""
    x, y = everything(splits.test)
    return {
        "persistence": np.mean((x[:, -1] - y) ** 2),
        "same month of last year": np.mean((x[:, -12] - y) ** 2),
    }


def everything(part: source.ArraySource) -> tuple[np.ndarray, ...]:
    return part.take(slice(0, len(part)))


def splits_of(splits: Splits) -> tuple[source.ArraySource, source.ArraySource]:
    return splits.train, splits.test


METHODS: dict[str, Callable[[Splits], Scores]] = {
    "digits": image_accuracy,
    "mnist": image_accuracy,
    "breast_cancer": table_accuracy,
    "text": text_entropy,
    "series": series_error,
}


def baselines(job: Path) -> Scores:
    """The scores of the simple methods for a job file. Raises DataError without its data."""
    config = load(job).to_dict()
    splits = source.load(config["data"], config["seed"])
    return METHODS[config["data"]["source"]](splits)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "jobs", nargs="*", type=Path, metavar="JOB.yaml", help="else all of configs/"
    )
    for path in parser.parse_args().jobs or sorted(CONFIGS.glob("*.yaml")):
        try:
            found = baselines(path)
        except DataError as error:
            print(f"{path.name:24} {error}")
            continue
        print(
            f"{path.name:24} " + ", ".join(f"{name} {score:.3f}" for name, score in found.items())
        )
