"""What the neural-network primitives should give, by loops over every element."""

from __future__ import annotations

import math

import numpy as np
import scipy.special


def softmax(x, *, axis):
    if not x.size:
        return x
    return np.apply_along_axis(lambda v: [1 / math.fsum(np.exp(v - a)) for a in v], axis, x)


def log_softmax(x, *, axis):
    return x - scipy.special.logsumexp(x, axis=axis, keepdims=True) if x.size else x


def sparse_cross_entropy(logits, labels):
    out = np.empty(labels.shape)
    for at in np.ndindex(*labels.shape):
        out[at] = -math.log(softmax(logits[at], axis=0)[labels[at]])
    return out


def sparse_cross_entropy_grad(dy, logits, labels):
    out = np.empty(logits.shape)
    for at in np.ndindex(*labels.shape):
        p = np.array(softmax(logits[at], axis=0))
        p[labels[at]] -= 1
        out[at] = dy[at] * p
    return out


def cross_entropy(logits, labels):
    out = np.empty(logits.shape[:-1])
    for at in np.ndindex(*out.shape):
        p = softmax(logits[at], axis=0)
        out[at] = -sum(q * math.log(r) for q, r in zip(labels[at], p, strict=True))
    return out


def cross_entropy_grad(dy, logits, labels):
    out = np.empty(logits.shape)
    for at in np.ndindex(*logits.shape[:-1]):
        p = np.array(softmax(logits[at], axis=0))
        out[at] = dy[at] * sum(q * (p - np.eye(len(p))[i]) for i, q in enumerate(labels[at]))
    return out


def sigmoid_cross_entropy(logits, labels):
    p = scipy.special.expit(logits)
    return -labels * np.log(p) - (1 - labels) * np.log1p(-p)


def among_largest(predictions, targets, *, k):
    found = []
    for row, target in zip(predictions, targets, strict=True):
        order = sorted(range(len(row)), key=lambda i: -row[i])
        found.append(int(target) in order[:k])
    return np.array(found)


def is_class(labels, *, classes):
    return np.array([[label == c for c in range(classes)] for (label,) in labels])


def standardize(x, *, axis, epsilon):
    mean = np.mean(x, axis=axis, keepdims=True)
    return (x - mean) / np.sqrt(np.var(x, axis=axis, keepdims=True) + epsilon)


def standardize_grad(dy, x, *, axis, epsilon):
    """The product with the Jacobian ``scale * (I - 1/n - y y^T / n)``, written out."""
    groups = np.moveaxis(x, axis, range(len(axis)))
    flat = groups.reshape(math.prod(groups.shape[: len(axis)]), -1)
    upstream = np.moveaxis(dy, axis, range(len(axis))).reshape(flat.shape)
    out = np.empty(flat.shape)
    n = len(flat)
    for column in range(flat.shape[1]):
        v = flat[:, column]
        scale = 1 / math.sqrt(np.var(v) + epsilon)
        y = (v - np.mean(v)) * scale
        jacobian = scale * (np.eye(n) - np.ones((n, n)) / n - np.outer(y, y) / n)
        out[:, column] = jacobian.T @ upstream[:, column]
    return np.moveaxis(out.reshape(groups.shape), range(len(axis)), axis)


def window_elements(counts, space, geometry):
    """Every window, every position in it, and the element of the input there (None: padding)."""
    for out_at in np.ndindex(*counts):
        for at in np.ndindex(*geometry.size):
            place = tuple(
                o * s + k * d - before
                for o, s, k, d, (before, _) in zip(
                    out_at, geometry.strides, at, geometry.dilations, geometry.padding, strict=True
                )
            )
            inside = all(0 <= p < n for p, n in zip(place, space, strict=True))
            yield out_at, at, place if inside else None


def window_counts(space, geometry):
    counts = []
    for n, k, s, (before, after), d in zip(
        space, geometry.size, geometry.strides, geometry.padding, geometry.dilations, strict=True
    ):
        starts = range(0, n + before + after - (k - 1) * d, s)
        counts.append(len(starts))
    return tuple(counts)


def trilinear(x_shape, counts, geometry):
    """The terms of a convolution: input place, filter place and output place of each product."""
    for out_at, at, place in window_elements(counts, x_shape[1:-1], geometry):
        if place is not None:
            yield (slice(None), *place), at, (slice(None), *out_at)


def convolve(x, w, *, geometry):
    counts = window_counts(x.shape[1:-1], geometry)
    out = np.zeros((x.shape[0], *counts, w.shape[-1]))
    for i, j, o in trilinear(x.shape, counts, geometry):
        out[o] += x[i] @ w[j]
    return out


def convolve_grad_x(dy, w, *, shape, geometry):
    out = np.zeros(shape)
    for i, j, o in trilinear(shape, dy.shape[1:-1], geometry):
        out[i] += dy[o] @ w[j].T
    return out


def convolve_grad_w(x, dy, *, geometry):
    out = np.zeros((*geometry.size, x.shape[-1], dy.shape[-1]))
    for i, j, o in trilinear(x.shape, dy.shape[1:-1], geometry):
        out[j] += x[i].T @ dy[o]
    return out


def spread(w):
    """Depthwise filters as dense ones: zero but between a channel and its own outputs."""
    *size, channels, multiplier = w.shape
    out = np.zeros((*size, channels, channels * multiplier))
    for c in range(channels):
        out[..., c, c * multiplier : (c + 1) * multiplier] = w[..., c, :]
    return out


def depthwise_convolve_grad_w(x, dy, *, geometry):
    dense = convolve_grad_w(x, dy, geometry=geometry)
    channels = x.shape[-1]
    blocks = dense.reshape(*dense.shape[:-1], channels, -1)
    return np.stack([blocks[..., c, c, :] for c in range(channels)], axis=-2)


def windows(x, geometry):
    """Each window with its elements in order, and where they stand in the input."""
    space = x.shape[1:-1]
    found = {}
    for out_at, _, place in window_elements(window_counts(space, geometry), space, geometry):
        found.setdefault(out_at, []).append(place)
    for n, c in np.ndindex(x.shape[0], x.shape[-1]):
        for out_at, places in found.items():
            inside = [(n, *place, c) for place in places if place is not None]
            yield (n, *out_at, c), inside


def pooled(x, geometry, fn):
    out = np.empty((x.shape[0], *window_counts(x.shape[1:-1], geometry), x.shape[-1]))
    for at, places in windows(x, geometry):
        out[at] = fn(places)
    return out


def first_largest(x, places):
    return max(places, key=lambda place: x[place])


def max_windows(x, *, geometry):
    return pooled(x, geometry, lambda places: x[first_largest(x, places)])


def max_windows_grad(dy, x, *, geometry):
    out = np.zeros(x.shape)
    for at, places in windows(x, geometry):
        out[first_largest(x, places)] += dy[at]
    return out


def at_maximum(u, x, *, geometry):
    return pooled(x, geometry, lambda places: u[first_largest(x, places)])


def elements(space, geometry):
    """For each window its index, and its elements in order, also those outside."""
    for at in np.ndindex(*window_counts(space, geometry)):
        yield (
            at,
            [
                tuple(
                    i * s + k * d - before
                    for i, s, k, d, (before, _) in zip(
                        at,
                        geometry.strides,
                        offset,
                        geometry.dilations,
                        geometry.padding,
                        strict=True,
                    )
                )
                for offset in np.ndindex(*geometry.size)
            ],
        )


def rectified_windows(x, bias, *, geometry):
    space, count = x.shape[1:-1], math.prod(geometry.size)
    shape = (x.shape[0], *window_counts(space, geometry), x.shape[-1])
    out, place = np.zeros(shape), np.full(shape, count)
    for n, c in np.ndindex(x.shape[0], x.shape[-1]):
        for at, places in elements(space, geometry):
            for number, p in enumerate(places):
                if all(0 <= i < size for i, size in zip(p, space, strict=True)):
                    value = x[n, *p, c] + bias[c]
                    if value > out[n, *at, c]:
                        out[n, *at, c], place[n, *at, c] = value, number
    return out, place


def rectified_windows_grad(dy, place, *, shape, geometry):
    out, space = np.zeros(shape), shape[1:-1]
    for n, c in np.ndindex(shape[0], shape[-1]):
        for at, places in elements(space, geometry):
            for number, p in enumerate(places):
                inside = all(0 <= i < size for i, size in zip(p, space, strict=True))
                if inside and place[n, *at, c] == number:
                    out[n, *p, c] += dy[n, *at, c]
    return out


def mean_windows(x, *, geometry):
    return pooled(x, geometry, lambda places: math.fsum(x[p] for p in places) / len(places))


def mean_windows_grad(dy, *, shape, geometry):
    out = np.zeros(shape)
    for at, places in windows(out, geometry):
        for place in places:
            out[place] += dy[at] / len(places)
    return out


_BY_DISTANCE = {
    "bilinear": (1, lambda x: 1 - x),
    "bicubic": (2, lambda x: (1.5 * x**3 - 2.5 * x**2 + 1) * (x <= 1)
                + (-0.5 * x**3 + 2.5 * x**2 - 4 * x + 2) * (x > 1)),
    "gaussian": (1.5, lambda x: math.exp(-(x**2) / (2 * 0.5**2))),
    "lanczos3": (3, lambda x: float(np.sinc(x) * np.sinc(x / 3))),
    "lanczos5": (5, lambda x: float(np.sinc(x) * np.sinc(x / 5))),
    "mitchellcubic": (2, lambda x: ((7 * x**3 - 12 * x**2) / 6 + 8 / 9) * (x < 1)
                      + (-7 / 18 * x**3 + 2 * x**2 - 10 / 3 * x + 16 / 9) * (x >= 1)),
}  # fmt: skip


def _resampled(lines, before, after, method, antialias):
    """Each new pixel as the mean of the old ones, by the kernel at their distance."""
    scale = before / after
    out = np.zeros((after, *lines.shape[1:]))
    for i in range(after):
        if method == "area":
            shares = [
                max(min((i + 1) * scale, j + 1) - max(i * scale, j), 0) for j in range(before)
            ]
        else:
            radius, kernel = _BY_DISTANCE[method]
            wide = max(scale, 1) if antialias else 1
            apart = [abs(j + 0.5 - (i + 0.5) * scale) / wide for j in range(before)]
            shares = [kernel(d) if d < radius else 0.0 for d in apart]
        for share, line in zip(shares, lines, strict=True):
            out[i] += line * share / sum(shares)
    return out


def interpolate(x, *, axis, before, after, transpose, method, antialias):
    """Row by row: the two pixels whose centres enclose that of the new one share its weight."""
    if method != "bilinear" or antialias:
        lines = np.moveaxis(x, axis, 0)
        return np.moveaxis(_resampled(lines, before, after, method, antialias), 0, axis)
    lines = np.moveaxis(x, axis, 0)
    out = np.zeros((before if transpose else after, *lines.shape[1:]))
    for i in range(after):
        at = min(max((i + 0.5) * before / after - 0.5, 0.0), before - 1.0)
        low = math.floor(at)
        for j, weight in ((low, 1 - (at - low)), (min(low + 1, before - 1), at - low)):
            if transpose:
                out[j] += weight * lines[i]
            else:
                out[i] += weight * lines[j]
    return np.moveaxis(out, 0, axis)


SLOPES = {
    "relu": lambda y, b: y > 0,
    "tanh": lambda y, b: 1 - y * y,
    "gelu_exact": lambda x, b: (
        scipy.special.ndtr(x + b) + (x + b) * np.exp(-((x + b) ** 2) / 2) / math.sqrt(2 * math.pi)
    ),
}


def biased(x, b, *, activation):
    own = {
        "relu": lambda v: max(v, 0.0),
        "tanh": math.tanh,
        "gelu_exact": lambda v: v * scipy.special.ndtr(v),
    }
    return np.vectorize(own[activation], otypes=[float])(x + b)


def biased_grad(g, y, b, *, activation):
    dx = g * SLOPES[activation](y, b)
    return dx, np.array([math.fsum(dx[..., i].flat) for i in range(len(b))])


def rescaled_grad(g, x, scale):
    columns = range(x.shape[-1])
    sums = (np.array([math.fsum(v[..., i].flat) for i in columns]) for v in (g * x, g))
    return g * scale, *(s.reshape(scale.shape) for s in sums)


def softmax_grad(g, y, *, axis):
    """The product with the Jacobian ``diag(y) - y y^T``, written out."""
    if not g.size:
        return g
    values, upstream = np.moveaxis(y, axis, -1), np.moveaxis(g, axis, -1)
    out = np.empty(values.shape)
    for at in np.ndindex(*values.shape[:-1]):
        out[at] = (np.diag(values[at]) - np.outer(values[at], values[at])) @ upstream[at]
    return np.moveaxis(out, -1, axis)


def dense(x, w, b, *, activation):
    z = np.einsum("ij,jk->ik", x, w) + b
    return {"": z, "relu": z * (z > 0), "tanh": np.tanh(z)}[activation]


def dense_grad(g, y, x, w, b, *, activation, all_three):
    """By loops over samples: each gives a share of every cotangent."""
    slope = {"": np.ones(y.shape), "relu": 1.0 * (y > 0), "tanh": 1 - y**2}[activation]
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(b.shape)
    for i, dz in enumerate(g * slope):
        dx[i] = w @ dz
        dw += np.outer(x[i], dz)
        db += dz
    return (dx, dw, db) if all_three else (dw, db)


def lstm_cell(z, c):
    h, carry = np.empty(c.shape), np.empty(c.shape)
    for at in np.ndindex(*c.shape):
        i, f, g, o = z[at[0], at[1] :: c.shape[1]]
        carry[at] = c[at] * scipy.special.expit(f) + scipy.special.expit(i) * math.tanh(g)
        h[at] = scipy.special.expit(o) * math.tanh(carry[at])
    return h, carry


def lstm_cell_grad(dh, dc, z, c):
    """By complex steps through one element at a time."""
    dz, dold, units = np.zeros(z.shape), np.zeros(c.shape), c.shape[1]
    for row, column in np.ndindex(*c.shape):
        given = np.array([*z[row, column::units], c[row, column]])
        for n in range(5):
            i, f, g, o, old = given + 1e-30j * (np.arange(5) == n)
            new = old / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
            out = np.tanh(new) / (1 + np.exp(-o))
            slope = (dh[row, column] * out + dc[row, column] * new).imag / 1e-30
            if n < 4:
                dz[row, column + n * units] = slope
            else:
                dold[row, column] = slope
    return dz, dold


def lstm_steps(x, kernel, h, c):
    made = []
    for given in x:
        z = given + h @ kernel
        h, c = lstm_cell(z, c)
        made.append((h, c, z))
    return tuple(np.array(parts) for parts in zip(*made, strict=True))


def lstm_steps_grad(dhs, dcs, dzs, kernel, h, c, hs, cs, zs):
    """By the chain rule over whole steps: each is a function of its gates and the carry before."""
    dx, dkernel = np.zeros(zs.shape), np.zeros(kernel.shape)
    dh, dc = np.zeros(h.shape), np.zeros(c.shape)
    for t in range(len(zs) - 1, -1, -1):
        before, carry = (hs[t - 1], cs[t - 1]) if t else (h, c)
        dz, dc = lstm_cell_grad(dhs[t] + dh, dcs[t] + dc, zs[t], carry)
        dx[t] = dz + dzs[t]
        dkernel += np.einsum("bi,bj->ij", before, dx[t])
        dh = np.einsum("bj,ij->bi", dx[t], kernel)
    return dx, dkernel, dh, dc


REFERENCES = {
    "dense": dense,
    "dense_grad": dense_grad,
    "mean_sparse_cross_entropy": lambda x, labels: np.mean(sparse_cross_entropy(x, labels)),
    "mean_sparse_cross_entropy_grad": lambda dy, x, labels: sparse_cross_entropy_grad(
        np.full(labels.shape, dy / labels.size), x, labels
    ),
    "biased": biased,
    "biased_grad": biased_grad,
    "observed_moments": lambda x, *, axis: (
        np.mean(x, axis=axis, keepdims=True),
        np.var(x, axis=axis, keepdims=True),
    ),
    "rescaled": lambda x, scale, offset: x * scale + offset,
    "rescaled_grad": rescaled_grad,
    "lstm_cell": lstm_cell,
    "lstm_cell_grad": lstm_cell_grad,
    "lstm_steps": lstm_steps,
    "lstm_steps_grad": lstm_steps_grad,
    "scaled_where": lambda x, condition, *, scale: x * np.where(condition, scale, 0),
    "softmax_grad": softmax_grad,
    "among_largest": among_largest,
    "at_maximum": at_maximum,
    "convolve": convolve,
    "convolve_grad_w": convolve_grad_w,
    "convolve_grad_x": convolve_grad_x,
    "cross_entropy": cross_entropy,
    "is_class": is_class,
    "cross_entropy_grad": cross_entropy_grad,
    "depthwise_convolve": lambda x, w, *, geometry: convolve(x, spread(w), geometry=geometry),
    "depthwise_convolve_grad_w": depthwise_convolve_grad_w,
    "depthwise_convolve_grad_x": lambda dy, w, *, shape, geometry: convolve_grad_x(
        dy, spread(w), shape=shape, geometry=geometry
    ),
    "interpolate": interpolate,
    "log_softmax_along": log_softmax,
    "max_windows": max_windows,
    "max_windows_grad": max_windows_grad,
    "rectified_windows": rectified_windows,
    "rectified_windows_grad": rectified_windows_grad,
    "mean_windows": mean_windows,
    "mean_windows_grad": mean_windows_grad,
    "sigmoid_cross_entropy": sigmoid_cross_entropy,
    "softmax_along": softmax,
    "sparse_cross_entropy": sparse_cross_entropy,
    "sparse_cross_entropy_grad": sparse_cross_entropy_grad,
    "standardize": standardize,
    "standardize_grad": standardize_grad,
}
