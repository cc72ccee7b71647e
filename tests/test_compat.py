"""``tf.compat``: what scripts of several TensorFlows call."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf

compat, v1 = tf.compat, tf.compat.v1


def test_the_old_where_takes_a_vector_that_chooses_rows():
    x, y = np.arange(6.0).reshape(3, 2), -np.ones((3, 2))
    chosen = [[0.0, 1.0], [-1.0, -1.0], [4.0, 5.0]]
    np.testing.assert_array_equal(v1.where([True, False, True], x, y), chosen)
    np.testing.assert_array_equal(v1.where([[True], [False], [True]], x, y), chosen)
    np.testing.assert_array_equal(v1.where([True, False, True]), [[0], [2]])


def test_texts_and_bytes():
    assert [compat.as_str(each) for each in ("a", b"a", np.str_("a"))] == ["a"] * 3
    assert compat.as_text(b"\xe9", "latin1") == "\xe9"
    assert [compat.as_bytes(each) for each in ("é", "é".encode(), bytearray(b"q"))] == [
        *["é".encode()] * 2,
        b"q",
    ]
    assert [compat.as_str_any(each) for each in (5, b"x", "y")] == ["5", "x", "y"]
    for wrong in (compat.as_bytes, compat.as_text):
        with pytest.raises(TypeError, match="got 5"):
            wrong(5)
    assert compat.path_to_str(Path("x/y")) == "x/y" and compat.path_to_str(b"x") == b"x"
    assert compat.dimension_value(tf.ones((2, 3)).shape[1]) == 3


def test_the_names_of_version_2_are_those_of_the_package():
    import distgrad.compat.v2 as v2

    assert v2 is compat.v2 and v2.GradientTape is tf.GradientTape and v2.keras is tf.keras
    assert {"keras", "matmul"} <= set(dir(v2))
    with pytest.raises(AttributeError, match="there are no graphs"):
        v2.Graph  # noqa: B018


def test_what_is_so_already_is_taken():
    for enable in (v1.enable_eager_execution, v1.enable_v2_behavior, v1.reset_default_graph):
        assert enable() is None
    assert v1.executing_eagerly()
    v1.set_random_seed(3)
    first = tf.random.uniform([2])
    tf.random.set_seed(3)
    np.testing.assert_array_equal(tf.random.uniform([2]), first)


def test_the_log(caplog):
    log, before = v1.logging, tf.get_logger().level
    try:
        log.set_verbosity(log.WARN)
        assert log.get_verbosity() == tf.get_logger().level == logging.WARNING
        log.info("not %s", "shown")
        log.warn("number %d", 3)
        assert [record.getMessage() for record in caplog.records] == ["number 3"]
    finally:
        tf.get_logger().setLevel(before)


def test_options_by_which_the_memory_of_a_gpu_grows_change_nothing():
    from distgrad.compat.v1.keras.backend import set_session

    config = v1.ConfigProto(allow_soft_placement=True)
    config.gpu_options.allow_growth = True
    config.gpu_options.per_process_gpu_memory_fraction = 0.5
    config.log_device_placement = config.allow_soft_placement
    session = v1.InteractiveSession(config=config)
    assert set_session(session) is v1.keras.backend.set_session(session) is None
    options = v1.GPUOptions(per_process_gpu_memory_fraction=0.3)
    assert v1.ConfigProto(gpu_options=options).gpu_options.per_process_gpu_memory_fraction == 0.3
    with v1.Session(config=config) as session, pytest.raises(RuntimeError, match="graph is empty"):
        session.run(tf.ones(2))
    session.close()
    assert isinstance(v1.keras.backend.get_session(), v1.Session)
    assert v1.keras.layers is tf.keras.layers and v1.keras.backend.floatx() == "float32"
    with pytest.raises(AttributeError, match="no_such"):
        _ = v1.keras.no_such


def test_graphs_are_refused_with_what_to_do():
    with pytest.raises(AttributeError, match=r"compat\.v1.*leave it out"):
        v1.disable_eager_execution()
    with pytest.raises(AttributeError, match="no TensorFlow 1 here"):
        _ = v1.train.AdamOptimizer
