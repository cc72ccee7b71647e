"""Classes drawn as negative samples: ``tf.random``'s candidate samplers, drawn on the host.

Each gives ``(sampled_candidates, true_expected_count, sampled_expected_count)``: int64 classes of
shape (num_sampled,), and float32 numbers of how often the true classes, of shape (batch, num_true),
and those that were drawn are expected among them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.backend.numpy import backend as numpy_backend
from distgrad.core.dispatch import as_tensor, backend_over
from distgrad.core.dtypes import limits
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import multiply, negative
from distgrad.ops.casting import cast
from distgrad.ops.constants import fill, ones
from distgrad.ops.constants import range as numbers
from distgrad.ops.draws import SAMPLE_KEY
from distgrad.ops.exponential import expm1, log1p
from distgrad.ops.factors import on_host
from distgrad.ops.indexing import gather
from distgrad.ops.logic import equal, where
from distgrad.ops.reduce import reduce_any
from distgrad.ops.shape import expand_dims, reshape
from distgrad.ops.streams import next_key

Sampled = tuple[Tensor, Tensor, Tensor]


@primitive(vjp=None, match=(), creates=True)
def random_candidates(xp, key, cumulative, *, count, unique):
    """``count`` classes, and how many draws they took, drawn from ``key``.

    Class k has the chance ``cumulative[k] - cumulative[k - 1]``. Classes that came before are drawn
    anew where they are to be ``unique``.
    """
    drawn = _drawn(on_host(cumulative), numpy_backend.generator(on_host(key)), count, unique)
    return backend_over(xp).asarray(drawn)


def _drawn(
    bounds: np.ndarray, generator: np.random.Generator, count: int, unique: bool
) -> np.ndarray:
    def draw(number: int) -> np.ndarray:
        found = np.searchsorted(bounds, generator.random(number), side="right")
        return np.minimum(found, len(bounds) - 1)

    if not unique:
        return np.append(draw(count), count)
    if np.count_nonzero(np.diff(bounds, prepend=0)) < count:  # where a capture tries it on zeros
        return np.zeros(count + 1, np.int64)
    found: dict[int, None] = {}
    draws = 0
    while len(found) < count:
        for candidate in draw(2 * count).tolist():
            draws += 1
            found[candidate] = None
            if len(found) == count:
                break
    return np.array([*found, draws], dtype=np.int64)


@random_candidates.samples
def _(rng):
    bounds = np.cumsum([0.1, 0.2, 0.3, 0.4])
    yield sample(SAMPLE_KEY, bounds, count=3, unique=True)
    yield sample(SAMPLE_KEY, bounds, count=6, unique=False)


def uniform_candidate_sampler(
    true_classes: Any,
    num_true: int,
    num_sampled: int,
    unique: bool,
    range_max: int,
    seed: int | None = None,
    name: str | None = None,
) -> Sampled:
    """Candidates among the classes below ``range_max``, all with the same chance.

    Raises InvalidArgumentError for more unique candidates than classes.
    """
    chances = np.full(range_max, 1 / range_max)
    return _candidates(true_classes, num_true, num_sampled, unique, chances, seed)


def log_uniform_candidate_sampler(
    true_classes: Any,
    num_true: int,
    num_sampled: int,
    unique: bool,
    range_max: int,
    seed: int | None = None,
    name: str | None = None,
) -> Sampled:
    """Candidates whose chances fall as those of words that are numbered by how often they come.

    Class k has the chance ``log((k + 2) / (k + 1)) / log(range_max + 1)``. Raises
    InvalidArgumentError for more unique candidates than classes.
    """
    chances = np.log1p(1 / np.arange(1, range_max + 1)) / np.log(range_max + 1)
    return _candidates(true_classes, num_true, num_sampled, unique, chances, seed)


def fixed_unigram_candidate_sampler(
    true_classes: Any,
    num_true: int,
    num_sampled: int,
    unique: bool,
    range_max: int,
    vocab_file: str = "",
    distortion: float = 1.0,
    num_reserved_ids: int = 0,
    num_shards: int = 1,
    shard: int = 0,
    unigrams: Any = (),
    seed: int | None = None,
    name: str | None = None,
) -> Sampled:
    """Candidates with chances as ``unigrams ** distortion``, after reserved ids that never come.

    Raises ValueError for a ``vocab_file`` or shards, InvalidArgumentError for counts that are not
    those of the classes below ``range_max``, or more unique candidates than such classes.
    """
    if vocab_file or num_shards != 1 or shard:
        raise ValueError("fixed_unigram_candidate_sampler takes counts as unigrams, and no shards")
    counts = np.asarray(unigrams, dtype=np.float64)
    if counts.ndim != 1 or num_reserved_ids + len(counts) != range_max:
        raise InvalidArgumentError(
            f"unigrams are the counts of {range_max - num_reserved_ids} classes, not of "
            f"{counts.size}"
        )
    powers = np.append(np.zeros(num_reserved_ids), counts**distortion)
    return _candidates(true_classes, num_true, num_sampled, unique, powers / powers.sum(), seed)


def all_candidate_sampler(
    true_classes: Any,
    num_true: int,
    num_sampled: int,
    unique: bool,
    seed: int | None = None,
    name: str | None = None,
) -> Sampled:
    """All classes below ``num_sampled``, each of which is expected once."""
    true = _true(true_classes, num_true)
    classes = numbers(num_sampled, dtype=np.int64)
    return classes, fill(true.shape, 1.0), ones(num_sampled)


def compute_accidental_hits(
    true_classes: Any,
    sampled_candidates: Any,
    num_true: int,
    seed: int | None = None,
    name: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Where a sampled candidate is a true class: rows (int32), places in the sample (int64), and
    for each the most negative float32, to be added to its logit."""
    pairs = where(hits(_true(true_classes, num_true), as_tensor(sampled_candidates)))
    lowest = -float(limits(np.dtype(np.float32)).max)
    return cast(pairs[:, 0], np.int32), pairs[:, 1], fill(pairs.shape[:1], lowest)


def hits(true: Tensor, sampled: Tensor) -> Tensor:
    """Whether each candidate is one of the true classes of each row: bool (batch, sampled)."""
    return reduce_any(equal(expand_dims(true, 2), cast(sampled, np.int64)), axis=1)


def _true(true_classes: Any, num_true: int) -> Tensor:
    true = cast(true_classes, np.int64)
    if len(true.shape) != 2 or true.shape[1] != num_true:
        raise InvalidArgumentError(
            f"true_classes have shape (batch, num_true={num_true}), not {true.shape}"
        )
    return true


def _candidates(
    true_classes: Any, num_true: int, count: int, unique: bool, chances: np.ndarray, seed: Any
) -> Sampled:
    true = _true(true_classes, num_true)
    possible = int(np.count_nonzero(chances))
    if unique and count > possible:
        raise InvalidArgumentError(f"{count} unique candidates of {possible} classes")
    drawn = bind(
        random_candidates, next_key(seed), np.cumsum(chances), count=int(count), unique=bool(unique)
    )
    sampled, draws = drawn[:-1], cast(drawn[-1], np.float32)
    table = as_tensor(chances.astype(np.float32))
    expected = _expected(count, draws)
    of_true = expected(reshape(gather(table, reshape(true, [-1])), true.shape))
    return sampled, of_true, expected(gather(table, sampled))


def _expected(count: int, draws: Tensor) -> Callable[[Tensor], Tensor]:
    """How often a class of some chance is expected in so many draws."""

    def expected(chance: Tensor) -> Tensor:
        at_least_once = negative(expm1(multiply(draws, log1p(negative(chance)))))
        return where(equal(draws, float(count)), multiply(chance, draws), at_least_once)

    return expected
