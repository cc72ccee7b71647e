"""What the reductions, scans and sorts should give, by loops and other functions."""

from __future__ import annotations

import math

import numpy as np


def over_axes(fn):
    """``fn(list of floats)`` applied to every group of elements that the axes put together."""

    def reference(x, *, axis, keepdims):
        rest = [i for i in range(x.ndim) if i not in axis]
        shape = [x.shape[i] for i in rest]
        out = np.empty(shape, dtype=np.asarray(fn([x.ravel()[0]] if x.size else [])).dtype)
        for at in np.ndindex(*shape):
            key = [slice(None)] * x.ndim
            for i, position in zip(rest, at, strict=True):
                key[i] = position
            out[at] = fn(x[tuple(key)].ravel().tolist())
        if keepdims:
            out = out.reshape([1 if i in axis else n for i, n in enumerate(x.shape)])
        return out

    return reference


def along(fn, x, axis, reverse):
    """``fn(list)`` applied to every line along the axis, walked backwards if ``reverse``."""
    out = np.empty(x.shape)
    source, target = np.moveaxis(x, axis, -1), np.moveaxis(out, axis, -1)
    for at in np.ndindex(*source.shape[:-1]):
        line = source[at].tolist()
        result = fn(line[::-1])[::-1] if reverse else fn(line)
        target[at] = result
    return out


def running(op, start):
    def reference(x, *, axis, exclusive, reverse):
        def scan(line):
            out, total = [], start
            for value in line:
                before, total = total, op(total, value)
                out.append(before if exclusive else total)
            return out

        return along(scan, x, axis, reverse)

    return reference


def shift(x, *, axis, reverse):
    return along(lambda line: [0.0, *line[:-1]] if line else [], x, axis, reverse)


def linear_scan(a, b, *, axis, reverse):
    both = np.stack([a, b])

    def run(lines):
        h, out = 0.0, []
        for factor, term in lines:
            h = factor * h + term
            out.append(h)
        return out

    out = np.empty(b.shape)
    source, target = np.moveaxis(both, axis + 1, -1), np.moveaxis(out, axis, -1)
    for at in np.ndindex(*target.shape[:-1]):
        pairs = list(zip(source[(0, *at)], source[(1, *at)], strict=True))
        target[at] = run(pairs[::-1])[::-1] if reverse else run(pairs)
    return out


def cumulative_logsumexp(x, *, axis, reverse):
    def scan(line):
        return [math.log(math.fsum(map(math.exp, line[: i + 1]))) for i in range(len(line))]

    return along(scan, x, axis, reverse)


def sum_to(x, *, shape):
    out = np.zeros(shape)
    for at in np.ndindex(*x.shape):
        place = at[len(at) - len(shape) :]
        out[tuple(0 if n == 1 else i for i, n in zip(place, shape, strict=True))] += x[at]
    return out


def position_of(better):
    def reference(x, *, axis):
        out = np.empty(x.shape[:axis] + x.shape[axis + 1 :], dtype=np.int64)
        lines = np.moveaxis(x, axis, -1)
        for at in np.ndindex(*out.shape):
            line = lines[at].tolist()
            best = 0
            for i, value in enumerate(line):
                if better(value, line[best]):
                    best = i
            out[at] = best
        return out

    return reference


def argsort_last(x, *, descending):
    out = np.empty(x.shape, dtype=np.int64)
    for at in np.ndindex(*x.shape[:-1]):
        line = x[at].tolist()
        out[at] = sorted(range(len(line)), key=line.__getitem__, reverse=descending)
    return out


def places_of_largest(x, *, count):
    return argsort_last(x, descending=True)[..., :count]


def rows_over_shards(g, indices, *, shape, merges):
    table = np.zeros((shape[0], math.prod(shape[1:])))
    for row, place in zip(g.reshape(-1, g.shape[-1]), indices.ravel(), strict=True):
        table[place] += row
    return table.reshape(shape)


def search_rows(sequence, values, *, side):
    out = np.empty(values.shape, dtype=np.int64)
    for row, column in np.ndindex(*values.shape):
        value = values[row, column]
        before = sequence[row] < value if side == "left" else sequence[row] <= value
        out[row, column] = int(np.sum(before))
    return out


def unique_parts(x):
    seen: dict[float, int] = {}
    places, counts = [], []
    for value in x.tolist():
        if value not in seen:
            seen[value] = len(seen)
            counts.append(0)
        places.append(seen[value])
        counts[seen[value]] += 1
    return np.array(list(seen)), np.array(places, np.int64), np.array(counts, np.int64)


REFERENCES = {
    "all_true": over_axes(lambda values: all(values)),
    "any_true": over_axes(lambda values: any(values)),
    "argmax_along": position_of(lambda new, best: new > best),
    "argmin_along": position_of(lambda new, best: new < best),
    "argsort_last": argsort_last,
    "places_of_largest": places_of_largest,
    "cumprod_along": running(lambda total, value: total * value, 1.0),
    "cumsum_along": running(lambda total, value: total + value, 0.0),
    "cumulative_logsumexp_along": cumulative_logsumexp,
    "linear_scan": linear_scan,
    "max": over_axes(lambda values: max(values, default=-math.inf)),
    "mean": over_axes(lambda values: math.fsum(values) / len(values) if values else math.nan),
    "min": over_axes(lambda values: min(values, default=math.inf)),
    "prod": over_axes(lambda values: math.prod(values) * 1.0),
    "search_rows": search_rows,
    "rows_over_shards": rows_over_shards,
    "sum_over_shards": lambda x, *, merges: np.array(
        [math.fsum(x[:, :, i].flat) for i in range(x.shape[2])]
    ),
    "shift": shift,
    "sum": over_axes(lambda values: math.fsum(values)),
    "sum_to": sum_to,
    "unique_parts": unique_parts,
}
