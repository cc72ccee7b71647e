"""One launch for the updates of many arrays, beside updates one by one and those of the CPU."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.backend import tables
from distgrad.core import dispatch
from distgrad.ops import optim

pytestmark = pytest.mark.usefixtures("on_gpu")

WORDS = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
SIZES = (0, 1, 3, 4, 1003, 1024, tables.MOST, tables.MOST + 1, 2 * tables.MOST + 4098)


class Launches(list):
    """The names of the kernels that are launched."""

    def __init__(self, launch):
        self._launch = launch

    def __call__(self, name, *args):
        self.append(name)
        self._launch(name, *args)

    def bound(self, name, *args):
        start = self._launch.bound(name, *args)
        return lambda *more: (self.append(name), start(*more))


@pytest.fixture
def launches(monkeypatch):
    own = dispatch.current().own
    made = Launches(own._launch)
    monkeypatch.setattr(own, "_launch", made)
    return made


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


def there(array, start=0):
    """A copy on the device, ``start`` elements behind where memory is taken."""
    return dispatch.current().asarray(np.pad(array, (start, 0)))[start:]


def states(dtype, sizes, starts=(0, 0, 0, 0)):
    """Values, both moments and gradients, on the host and on the device."""
    rng = np.random.default_rng(0)
    host = [[np.abs(rng.normal(size=n)).astype(dtype) for _ in range(4)] for n in sizes]
    return host, [[there(a, s) for a, s in zip(arrays, starts, strict=True)] for arrays in host]


def calls_of(rows, dtype, alpha=1e-3):
    return [(tuple(row[:3]), (*row, dtype.type(alpha))) for row in rows]


def update(host, dtype, alpha=1e-3):
    for p, m, s, g in host:
        optim.adam_update.kernel(np, p, m, s, g, dtype.type(alpha), **WORDS, out=(p, m, s))


def assert_same(rows, host):
    for arrays, wanted in zip(rows, host, strict=True):
        assert [a.get().tobytes() for a in arrays] == [a.tobytes() for a in wanted]


@pytest.mark.parametrize("blocks", [1, 8, tables.BLOCKS])  # for the largest chunks to the least
@pytest.mark.parametrize("starts", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 0, 1), (0, 4, 1, 0)])
def test_arrays_of_all_sizes_in_one_launch(monkeypatch, launches, dtype, starts, blocks):
    monkeypatch.setattr(tables, "BLOCKS", blocks)
    host, rows = states(dtype, SIZES, starts)
    one_by_one = [[a.copy() for a in row] for row in rows]
    for alpha in (1e-3, 1e-2):
        del launches[:]
        optim.adam_update.into_each(calls_of(rows, dtype, alpha), WORDS)
        assert launches == ["adam_each"]
        for out, args in calls_of(one_by_one, dtype, alpha):
            optim.adam_update.into(out, *args, **WORDS)
        update(host, dtype, alpha)
        assert_same(rows, host)
        assert_same(one_by_one, host)


def test_a_single_array_and_empty_ones(launches, dtype):
    host, rows = states(dtype, (5, 0, 0))
    optim.adam_update.into_each(calls_of(rows[:1], dtype), WORDS)
    assert launches == ["adam"]
    optim.adam_update.into_each(calls_of(rows[1:], dtype), WORDS)
    assert launches == ["adam"]
    update(host, dtype)
    assert_same(rows, host)


def test_a_table_is_made_where_arrays_lie_elsewhere(monkeypatch, launches, dtype):
    own = dispatch.current().own._tables
    monkeypatch.setattr(own, "_known", {})
    host, rows = states(dtype, (7, 40))
    for _ in range(2):
        optim.adam_update.into_each(calls_of(rows, dtype), WORDS)
        update(host, dtype)
    assert len(own._known) == 1
    held = []  # or another gradient would lie where one was
    for count in range(2, 30):
        held.append(rows[1][3])
        host[1][3] = host[1][3] * dtype.type(0.9)
        rows[1][3] = there(host[1][3])
        optim.adam_update.into_each(calls_of(rows, dtype), WORDS)
        update(host, dtype)
        assert len(own._known) == (count - 1) % 16 + 1
    assert_same(rows, host)
    assert launches == ["adam_each"] * 30


def test_what_one_launch_cannot_do_goes_one_by_one(launches, dtype):
    other = np.dtype("float64" if dtype == np.float32 else "float32")

    def gradient(change):
        host, rows = states(dtype, (6, 6))
        rows[1][3] = change(rows)
        host[1][3] = rows[1][3].get()
        del launches[:]
        optim.adam_update.into_each(calls_of(rows, dtype), WORDS)
        assert "adam_each" not in launches
        return host, rows

    for change in (
        lambda rows: there(np.arange(12, dtype=dtype))[::2],
        lambda rows: there(np.ones(6, other)),
    ):
        host, rows = gradient(change)
        update(host, dtype)
        assert_same(rows, host)
    # The second gradient is a value that the first update writes: it comes before.
    host, rows = gradient(lambda rows: rows[0][0])
    host[1][3] = host[0][0]
    update(host, dtype)
    assert_same(rows, host)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_goes_one_by_one(launches, name):
    half = getattr(tf, name).numpy_dtype
    rng = np.random.default_rng(0)
    host = [[np.abs(rng.normal(size=n)).astype(half) for _ in range(4)] for n in (5, 6)]
    together, apart = ([[there(a) for a in row] for row in host] for _ in range(2))
    optim.adam_update.into_each(calls_of(together, half), WORDS)
    for out, args in calls_of(apart, half):
        optim.adam_update.into(out, *args, **WORDS)
    assert "adam_each" not in launches
    assert_same(together, [[a.get() for a in row] for row in apart])


def test_a_table_belongs_to_a_stream(monkeypatch, launches, dtype):
    """On a stream that works late, gradients that nobody holds any more are read all the same."""
    backend = dispatch.current()
    own = backend.own._tables
    monkeypatch.setattr(own, "_known", {})
    host, rows = states(dtype, (7, 5000))
    optim.adam_update.into_each(calls_of(rows, dtype), WORDS)
    update(host, dtype)
    mark = backend.mark()
    with backend.stream("updates"):
        backend.after(mark)
        optim.adam_update.into_each(calls_of(rows, dtype), WORDS)
        update(host, dtype)
        assert len(own._known) == 2
        for factor in (0.5, 0.25):
            for wanted, row in zip(host, rows, strict=True):
                wanted[3] *= dtype.type(factor)
                row[3] = there(wanted[3])
            optim.adam_update.into_each(calls_of(rows, dtype), WORDS)
            update(host, dtype)
        own._known.clear()
        mark = backend.mark()
    backend.after(mark)
    assert_same(rows, host)


def test_an_optimizer_launches_once(launches):
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (4,), (), (0, 2), (130, 130)]
    values, gradients = ([rng.normal(size=s).astype(np.float32) for s in shapes] for _ in range(2))
    variables = [tf.Variable(v) for v in values]
    optimizer = tf.keras.optimizers.Adam(0.01)
    for _ in range(3):
        optimizer.apply_gradients(zip(map(tf.constant, gradients), variables, strict=True))
    assert launches == ["adam_each"] * 3
    with tf.device("/CPU:0"):
        on_cpu = [tf.Variable(v) for v in values]
        optimizer = tf.keras.optimizers.Adam(0.01)
        for _ in range(3):
            optimizer.apply_gradients(zip(map(tf.constant, gradients), on_cpu, strict=True))
    for found, wanted in zip(variables, on_cpu, strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted.numpy())


def test_arrays_that_stay_are_bound_once(launches, dtype):
    host, rows = states(dtype, (37,))
    run = optim.adam_update.bound(calls_of(rows, dtype), WORDS)
    for alpha in (1e-3, 1e-2):
        del launches[:]
        run([alpha])
        update(host, dtype, alpha)
        assert_same(rows, host)
        assert launches == ["adam"]
    for sizes in ((5, 6), (0,)):
        _, rows = states(dtype, sizes)
        assert optim.adam_update.bound(calls_of(rows, dtype), WORDS) is None


def test_copies_of_many_arrays_are_one_launch_for_each_dtype(launches):
    gpu, rng = dispatch.current(), np.random.default_rng(0)
    shapes = [(5,), (2, 3), (0,), (tables.MOST + 7,), ()]
    dtypes = ["float32", "float64", "int32"]
    sources = [rng.normal(size=s).astype(d) * 9 for s in shapes for d in dtypes]
    pairs = [(gpu.xp.zeros(a.shape, a.dtype), gpu.asarray(a)) for a in sources]
    gpu.copy_each(pairs)
    assert launches == ["copy_each"] * 2  # whole numbers go one by one
    for (target, _), source in zip(pairs, sources, strict=True):
        np.testing.assert_array_equal(target.get(), source)
    gpu.copy_each(pairs[:1])  # nothing to gather
    assert launches == ["copy_each"] * 2
