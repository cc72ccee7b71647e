"""Module: which variables and modules it finds, and name scopes."""

from __future__ import annotations

import threading

import pytest

import distgrad as tf


class Dense(tf.Module):
    def __init__(self, name=None):
        super().__init__(name=name)
        self.w = tf.Variable(1.0, name="w")
        self.b = tf.Variable(2.0, name="b", trainable=False)


class Net(tf.Module):
    def __init__(self):
        super().__init__()
        self.parts = [Dense("one"), {"z": Dense("two"), "a": (tf.Variable(5.0, name="a"),)}]
        self.again = self.parts[0]
        self.me, self._hidden, self.text = self, tf.Variable(3.0, name="h"), "text"


def ids(items):
    return [id(item) for item in items]


def test_variables_in_the_order_of_attribute_names():
    """Attributes by name, a dict's values by key, each once; then those of modules within."""
    net = Net()
    one, two = net.parts[0], net.parts[1]["z"]
    a, h = net.parts[1]["a"][0], net._hidden
    assert ids(net.variables) == ids([h, a, one.b, one.w, two.b, two.w])
    assert ids(net.trainable_variables) == ids([h, a, one.w, two.w])
    assert ids(net.non_trainable_variables) == ids([one.b, two.b])
    assert ids(net.submodules) == ids([one, two])
    assert all(isinstance(v, tuple) for v in (net.variables, net.submodules))


def test_a_module_comes_before_what_lies_deeper_and_is_not_below_itself():
    top, middle = tf.Module(), tf.Module()
    top.a, top.b, top.z = middle, Dense(), tf.Variable(0.0)
    middle.deep, middle.x, middle.top = Dense(), tf.Variable(1.0), top
    deep = middle.deep
    expected = [top.z, middle.x, deep.b, deep.w, top.b.b, top.b.w]
    assert ids(top.variables) == ids(expected)
    assert ids(top.submodules) == ids([middle, top.b, deep])


def test_variables_of_layers():
    module = tf.Module()
    module.layer = tf.keras.layers.Dense(2)
    module.layer.build((None, 3))
    assert [v.shape for v in module.trainable_variables] == [(3, 2), (2,)]


def test_gradients_of_a_module():
    dense = Dense()
    with tf.GradientTape() as tape:
        y = dense.w * 3.0 + dense.b
    assert [float(g) for g in tape.gradient(y, dense.trainable_variables)] == [3.0]


def test_names():
    class MyNet2(tf.Module):
        pass

    class MyHTTPServer2(tf.Module):
        pass

    assert MyNet2().name == "my_net2" and Dense("foo").name == "foo"
    assert MyHTTPServer2().name == "my_http_server2"
    for bad in ("a b", "1a", ""):
        with pytest.raises(ValueError):
            tf.Module(name=bad)


def test_name_scope_of_a_module():
    """Variables made in the scope start with the module's name, whatever scope is around."""

    class Lazy(tf.Module):
        def __init__(self):
            super().__init__(name="lazy")
            with self.name_scope:
                self.w = tf.Variable(1.0, name="w")

        @tf.Module.with_name_scope
        def __call__(self, x):
            """Doc."""
            if not hasattr(self, "v"):
                self.v = tf.Variable(2.0, name="v")
            return x * self.v

    module = Lazy()
    with tf.name_scope("outer"):
        assert float(module(3.0)) == 6.0
    assert [v.name for v in module.variables] == ["lazy/v:0", "lazy/w:0"]
    assert module.name_scope.name == "lazy/" and Lazy.__call__.__doc__ == "Doc."


def test_the_name_scope_of_a_module_begins_with_that_in_which_it_was_made():
    class Inner(tf.Module):
        @tf.Module.with_name_scope
        def __call__(self):
            return tf.Variable(1.0, name="v").name

    class Outer(tf.Module):
        def __init__(self):
            super().__init__()
            with self.name_scope:
                self.inner = Inner()

    outer = Outer()
    assert (outer.name_scope.name, outer.inner.name_scope.name) == ("outer/", "outer/inner/")
    with outer.name_scope, outer.name_scope:
        assert outer.inner() == "outer/inner/v:0"
        assert tf.Variable(1.0).name == "outer/Variable:0"
    assert outer.inner.name == "inner" and tf.Variable(1.0).name == "Variable:0"


def test_name_scopes_nest():
    with tf.name_scope("a") as a:
        with tf.name_scope("b") as b:
            inner = tf.Variable(1.0, name="v")
        with tf.name_scope("c/") as c, pytest.raises(KeyError), tf.name_scope(""):
            outermost = tf.Variable(1.0)
            raise KeyError
        after = tf.Variable(1.0)
        others = []
        thread = threading.Thread(target=lambda: others.append(tf.Variable(1.0, name="t")))
        thread.start()
        thread.join()
    assert (a, b, c) == ("a/", "a/b/", "c/")
    names = [v.name for v in (inner, outermost, after, others[0], tf.Variable(1.0))]
    assert names == ["a/b/v:0", "Variable:0", "a/Variable:0", "t:0", "Variable:0"]
    with pytest.raises(ValueError, match="not 3"):
        tf.name_scope(3)
