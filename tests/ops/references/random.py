"""Random draws: Philox written out, and what draws of other distributions must have.

``PROPERTIES`` are functions of the value and the sample that assert.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.stats

from distgrad.core.primitive import registry

MASK = 2**64 - 1


def philox(key, blocks):
    """Words of Philox4x64-10 (Salmon et al., 2011), its counter's high words from the key too."""
    words = []
    for block in range(1, blocks + 1):
        c = [block, 0, int(key[2]), int(key[3])]
        k0, k1 = int(key[0]), int(key[1])
        for _ in range(10):
            product0, product1 = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
            c = [
                (product1 >> 64) ^ c[1] ^ k0,
                product1 & MASK,
                (product0 >> 64) ^ c[3] ^ k1,
                product0 & MASK,
            ]
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
        words += c
    return words


def uniform(key, *, shape, dtype):
    count = math.prod(shape)
    words = philox(key, -(-count // 4))[:count]
    return np.array([(w >> 11) * 2.0**-53 for w in words], dtype).reshape(shape)


def drawn(name, key, **params):
    return registry[name].kernel(np, key, **params)


def depends_on_the_key_alone(name, value, key, params):
    assert np.array_equal(drawn(name, key, **params), value)
    for word in range(4):
        other = key.copy()
        other[word] += 1
        assert not np.array_equal(drawn(name, other, **params), value)


def normal(value, key, *, shape, dtype):
    assert value.shape == shape and value.dtype == dtype
    depends_on_the_key_alone("random_normal", value, key, {"shape": shape, "dtype": dtype})
    many = drawn("random_normal", key, shape=(20_000,), dtype=dtype)
    assert scipy.stats.kstest(many, "norm").pvalue > 1e-3


def truncated_normal(value, key, *, shape, dtype):
    assert value.shape == shape and value.dtype == dtype
    depends_on_the_key_alone(
        "random_truncated_normal", value, key, {"shape": shape, "dtype": dtype}
    )
    many = drawn("random_truncated_normal", key, shape=(20_000,), dtype=dtype)
    assert np.abs(many).max() <= 2
    assert scipy.stats.kstest(many, scipy.stats.truncnorm(-2, 2).cdf).pvalue > 1e-3


def integers(value, key, *, low, high, shape, dtype):
    assert value.shape == shape and value.dtype == dtype
    params = {"low": low, "high": high, "dtype": dtype}
    depends_on_the_key_alone("random_integers", value, key, {**params, "shape": shape})
    many = drawn("random_integers", key, shape=(20_000,), **params)
    assert set(many.tolist()) == set(range(low, high))
    assert scipy.stats.chisquare(np.bincount(many - low)).pvalue > 1e-3


def permutation(value, key, *, n):
    assert value.dtype == np.int64 and sorted(value.tolist()) == list(range(n))
    depends_on_the_key_alone(
        "random_permutation", drawn("random_permutation", key, n=50), key, {"n": 50}
    )


def gamma(value, key, alpha, *, shape, dtype):
    assert value.shape == shape and value.dtype == dtype
    many = drawn("random_gamma", key, alpha=alpha, shape=(20_000, len(alpha)), dtype=dtype)
    for column, a in zip(many.T, alpha, strict=True):
        assert scipy.stats.kstest(column, scipy.stats.gamma(a).cdf).pvalue > 1e-3
    depends_on_the_key_alone(
        "random_gamma", value, key, {"alpha": alpha, "shape": shape, "dtype": dtype}
    )


def counts_like(many, distribution):
    """Whether the frequencies of small numbers are those of a discrete distribution."""
    low, high = int(distribution.ppf(0.001)), int(distribution.ppf(0.999))
    inside = many[(many >= low) & (many <= high)].astype(int)
    chances = distribution.pmf(np.arange(low, high + 1))
    expected = chances / chances.sum() * len(inside)
    found = np.bincount(inside - low, minlength=high - low + 1)
    return scipy.stats.chisquare(found, expected).pvalue


def poisson(value, key, lam, *, shape, dtype):
    assert value.shape == shape and value.dtype == dtype
    many = drawn("random_poisson", key, lam=lam, shape=(20_000, len(lam)), dtype=dtype)
    for column, mean in zip(many.T, lam, strict=True):
        assert counts_like(column, scipy.stats.poisson(mean)) > 1e-3
    wide = {"lam": lam, "shape": (9, len(lam)), "dtype": dtype}
    depends_on_the_key_alone("random_poisson", drawn("random_poisson", key, **wide), key, wide)


def binomial(value, key, counts, probs, *, shape, dtype):
    assert value.shape == shape and value.dtype == dtype
    params = {"counts": counts, "probs": probs, "dtype": dtype}
    many = drawn("random_binomial", key, shape=(20_000, len(counts)), **params)
    for column, n, p in zip(many.T, counts, probs, strict=True):
        assert counts_like(column, scipy.stats.binom(n, p)) > 1e-3
    wide = {**params, "shape": (9, len(counts))}
    depends_on_the_key_alone("random_binomial", drawn("random_binomial", key, **wide), key, wide)


def candidates(value, key, cumulative, *, count, unique):
    *found, draws = value.tolist()
    assert value.dtype == np.int64 and len(found) == count and draws >= count
    assert len(set(found)) == count if unique else draws == count
    params = {"cumulative": cumulative, "unique": False}
    many = drawn("random_candidates", key, count=20_000, **params)[:-1]
    chances = np.diff(cumulative, prepend=0)
    counts = np.bincount(many, minlength=len(chances))
    assert scipy.stats.chisquare(counts, 20_000 * chances).pvalue > 1e-3
    wide = {**params, "count": 9}
    depends_on_the_key_alone(
        "random_candidates", drawn("random_candidates", key, **wide), key, wide
    )


def rows(keys, *, kernel, params):
    return np.stack([kernel(np, key, **params) for key in keys])


REFERENCES = {"random_uniform": uniform, "random_rows": rows}

PROPERTIES = {
    "random_normal": normal,
    "random_truncated_normal": truncated_normal,
    "random_integers": integers,
    "random_permutation": permutation,
    "random_candidates": candidates,
    "random_gamma": gamma,
    "random_poisson": poisson,
    "random_binomial": binomial,
}
