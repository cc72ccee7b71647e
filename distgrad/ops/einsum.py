"""Einstein summation, as transposes, sums and batched matrix products.

Operands are contracted in pairs; each pair becomes one (batched) matrix product, which is much
faster than a loop over all indices and differentiable to any order as it is.
"""

from __future__ import annotations

import functools
import itertools
import math
import string
from typing import Any

import numpy as np

from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.ops.linalg import dot, main_diagonal, tensors
from distgrad.ops.reduce import sum as sum_over
from distgrad.ops.shape import permute, reshape_to


def einsum(equation: str, *inputs: Any, **kwargs: Any) -> Tensor:
    """Sum of products over the labels of ``equation`` that its output leaves out.

    ``"ij,jk->ik"``, or ``"ij,jk"`` whose output is the labels seen once in alphabetical order;
    ``...`` stands for axes that broadcast; a label twice in one operand takes the diagonal.
    Several operands are contracted in pairs, in a greedy order. Raises InvalidArgumentError for
    an equation or shapes that do not fit, with the equation and the shapes.
    """
    unknown = set(kwargs) - {"optimize", "name"}
    if unknown:
        raise TypeError(f"einsum: unknown keyword {', '.join(sorted(unknown))}")
    if not inputs:
        raise ValueError("einsum needs at least one operand")
    operands = tensors("einsum", *inputs)
    shapes = tuple(x._data.shape for x in operands)
    terms, output, path = _plan(equation, shapes)
    labelled = [_one_each(x, term) for x, term in zip(operands, terms, strict=True)]
    for step in path:
        chosen = [labelled[i] for i in step]
        labelled = [item for i, item in enumerate(labelled) if i not in step]
        wanted = set(output).union(*(labels for _, labels in labelled))
        if len(chosen) == 1:
            labelled.append(_reduced(*chosen[0], wanted))
        else:
            labelled.append(_contract(*chosen[0], *chosen[1], wanted, output))
    result, labels = labelled[0]
    perm = tuple(labels.index(label) for label in output)
    return result if perm == tuple(range(len(perm))) else bind(permute, result, perm=perm)


@functools.lru_cache(maxsize=512)
def _plan(
    equation: str, shapes: tuple[tuple[int, ...], ...]
) -> tuple[list[str], str, list[tuple[int, ...]]]:
    """Labels of each operand and of the output, ellipses spelt out, and the order of the pairs."""
    terms, output = _labels(equation, shapes)
    sizes: dict[str, int] = {}
    broadcast = {label for term in terms for label in term if not label.isalpha()}
    for term, shape in zip(terms, shapes, strict=True):
        for label, size in zip(term, shape, strict=True):
            known = sizes.setdefault(label, size)
            if known != size and not (label in broadcast and 1 in (known, size)):
                raise _misfit(equation, shapes, f"label {label!r} has sizes {known} and {size}")
            if known == 1:
                sizes[label] = size
    if len(terms) < 3:
        return terms, output, [tuple(range(len(terms)))]
    # Only shapes matter for the order: NumPy's own search runs over arrays that take no memory.
    letters = dict(zip(sizes, string.ascii_letters, strict=False))
    plain = ["".join(letters[label] for label in dict.fromkeys(term)) for term in terms]
    target = "".join(letters[label] for label in output)
    dummies = [
        np.broadcast_to(0.0, [sizes[label] for label in dict.fromkeys(term)]) for term in terms
    ]
    found = np.einsum_path(f"{','.join(plain)}->{target}", *dummies, optimize="greedy")
    return terms, output, _pairs(found[0][1:], len(terms))


def _pairs(path: list[tuple[int, ...]], count: int) -> list[tuple[int, ...]]:
    """NumPy's path with every step of more than two operands taken in pairs."""
    pairs: list[tuple[int, ...]] = []
    for step in path:
        chosen = sorted(step)
        while len(chosen) > 2:
            pairs.append((chosen[0], chosen[1]))
            count -= 1
            chosen = [i - 2 for i in chosen[2:]] + [count - 1]
        pairs.append(tuple(chosen))
        count -= len(chosen) - 1
    return pairs


def _labels(equation: str, shapes: tuple) -> tuple[list[str], str]:
    """Operand and output labels; the axes of an ellipsis get digits, counted from the last."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise _misfit(equation, shapes, f"it has {len(terms)} operands")
    dots = 0
    result = []
    for term, shape in zip(terms, shapes, strict=True):
        named = term.replace("...", "", 1)
        if any(c not in string.ascii_letters for c in named):
            raise _misfit(equation, shapes, f"{term!r} is not made of letters and one ellipsis")
        hidden = len(shape) - len(named)
        if hidden < 0 or (hidden and "..." not in term):
            raise _misfit(equation, shapes, f"{term!r} does not name the axes of shape {shape}")
        dots = max(dots, hidden)
        result.append(term.replace("...", _hidden(hidden)))
    if arrow:
        named = right.replace("...", "", 1)
        if any(c not in string.ascii_letters for c in named):
            raise _misfit(equation, shapes, f"{right!r} is not made of letters and one ellipsis")
        if dots and "..." not in right:
            raise _misfit(equation, shapes, "its output leaves out the ellipsis")
        missing = set(named) - set("".join(terms))
        if missing:
            raise _misfit(equation, shapes, f"no operand has the label {min(missing)!r}")
        if len(set(named)) < len(named):
            raise _misfit(equation, shapes, "its output has a label twice")
        return result, right.replace("...", _hidden(dots))
    everything = "".join(terms)
    once = sorted(c for c in set(everything) - {"."} if everything.count(c) == 1)
    return result, _hidden(dots) + "".join(once)


def _hidden(count: int) -> str:
    """Labels of the axes behind an ellipsis, which no letter can clash with: the last is 0."""
    return "".join(chr(0x2460 + i) for i in reversed(range(count)))


def _misfit(equation: str, shapes: tuple, why: str) -> InvalidArgumentError:
    operands = ", ".join(map(str, shapes))
    return InvalidArgumentError(f"einsum {equation!r} of shapes {operands}: {why}")


def _one_each(x: Tensor, labels: str) -> tuple[Tensor, str]:
    """The diagonal over each label that comes twice."""
    while len(set(labels)) < len(labels):
        label = next(c for c in labels if labels.count(c) > 1)
        first = labels.index(label)
        second = labels.index(label, first + 1)
        rest = [i for i in range(len(labels)) if i not in (first, second)]
        x = main_diagonal(bind(permute, x, perm=(*rest, first, second)))
        labels = "".join(labels[i] for i in rest) + label
    return x, labels


def _reduced(x: Tensor, labels: str, wanted: set[str]) -> tuple[Tensor, str]:
    """``x`` summed over the labels that nobody wants."""
    gone = tuple(i for i, label in enumerate(labels) if label not in wanted)
    if not gone:
        return x, labels
    kept = "".join(label for label in labels if label in wanted)
    return bind(sum_over, x, axis=gone, keepdims=False), kept


def _contract(
    a: Tensor, a_labels: str, b: Tensor, b_labels: str, wanted: set[str], output: str
) -> tuple[Tensor, str]:
    """The product of two operands, summed over the labels that nobody else wants.

    It is made in the order of the output where one product can be: what follows then works on
    memory in that order.
    """
    a, a_labels = _reduced(a, a_labels, wanted | set(b_labels))
    b, b_labels = _reduced(b, b_labels, wanted | set(a_labels))
    both = [c for c in a_labels if c in b_labels]
    batch = "".join(sorted((c for c in both if c in wanted), key=output.find))
    inner = "".join(c for c in both if c not in wanted)
    rows = "".join(c for c in a_labels if c not in b_labels)
    columns = "".join(c for c in b_labels if c not in a_labels)
    if batch + columns + rows == output:
        a, a_labels, b, b_labels = b, b_labels, a, a_labels
        rows, columns = columns, rows
    left, a_sizes = _arranged(a, a_labels, batch, rows, inner)
    right, b_sizes = _arranged(b, b_labels, batch, inner, columns)
    if inner:
        product = bind(dot, left, right, transpose_a=False, transpose_b=False)
    else:
        product = left * right  # [..., rows, 1] times [..., 1, columns]
    sizes = [a_sizes[c] for c in rows] + [b_sizes[c] for c in columns]
    shape = (*product._data.shape[: len(batch)], *sizes)
    if shape != product._data.shape:
        product = bind(reshape_to, product, shape=shape)
    return product, batch + rows + columns


def _arranged(x: Tensor, labels: str, *groups: str) -> tuple[Tensor, dict[str, int]]:
    """``x`` as a batch of matrices: the axes of the first group, one per other group."""
    sizes = dict(zip(labels, x._data.shape, strict=True))
    perm = tuple(labels.index(c) for c in itertools.chain(*groups))
    if perm != tuple(range(len(perm))):
        x = bind(permute, x, perm=perm)
    batch, *others = groups
    shape = tuple(sizes[c] for c in batch) + tuple(
        math.prod(sizes[c] for c in group) for group in others
    )
    if shape != x._data.shape:
        x = bind(reshape_to, x, shape=shape)
    return x, sizes
