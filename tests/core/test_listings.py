"""Programs like those of an introduction to TensorFlow, as they are; their output is checked."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np


def run(program: str) -> str:
    """Standard output of a program that starts with the import."""
    code = "import distgrad as tf\n" + textwrap.dedent(program)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_dictionary_of_sources():
    """Sources as a dict: the gradients have the same keys, and print as TensorFlow's tensors."""
    out = run(
        """
        x = tf.Variable(2.0)
        y = tf.Variable(3.0)
        with tf.GradientTape() as t:
            z = x**2 + tf.math.tanh(y**2)
        grad = t.gradient(z, {'x': x, 'y': y})
        print(sorted(grad))
        print(grad['x'])
        print(grad['y'])
        print(float(grad['y']))
        """
    ).splitlines()
    assert out[0] == "['x', 'y']"
    assert out[1] == "tf.Tensor(4.0, shape=(), dtype=float32)"
    assert out[2].startswith("tf.Tensor(") and out[2].endswith(", shape=(), dtype=float32)")
    exact = 2 * 3 * (1 - np.tanh(9.0) ** 2)
    assert 0.0 <= float(out[3]) <= 4 * exact  # tanh(9) is 1 or the float32 below it


def test_second_derivative():
    """Nested tapes: the inner gradient is taken inside the outer block."""
    out = run(
        """
        x = tf.Variable(1.0)
        with tf.GradientTape() as t2:
            with tf.GradientTape() as t1:
                y = x * x * x
            dy_dx = t1.gradient(y, x)
        d2y_dx2 = t2.gradient(dy_dx, x)
        print(dy_dx.numpy())
        print(d2y_dx2.numpy())
        """
    )
    assert out == "3.0\n6.0\n"


def test_persistent_tape_over_a_linear_layer():
    """A Python list as the left operand of @, and a list of two gradients."""
    out = run(
        """
        w = tf.Variable(tf.random.normal((7, 2)), name='w')
        b = tf.Variable(tf.zeros(2, dtype=tf.float32), name='b')
        x = [[1., 2., 3., 4., 5., 6., 7.]]
        with tf.GradientTape(persistent=True) as tape:
            y = tf.math.tanh(x @ w + b)
            loss = tf.reduce_mean(y**2)
        [dl_dw, dl_db] = tape.gradient(loss, [w, b])
        print(w.shape)
        print(dl_dw.shape)
        print(dl_dw[0, :].shape)
        import numpy as np
        exact = np.outer(x[0], 1 - y.numpy()[0]**2) * y.numpy()
        print(np.allclose(dl_dw, exact, atol=1e-6), np.allclose(dl_db, exact[0], atol=1e-6))
        print(w.name, b.name)
        """
    )
    assert out == "(7, 2)\n(7, 2)\n(2,)\nTrue True\nw:0 b:0\n"


def test_gradient_of_a_gradient_norm_through_a_layer():
    """The inner tape watches only x; the outer one the layer's variables."""
    out = run(
        """
        import numpy as np
        tf.random.set_seed(1)
        x = tf.random.normal([7, 7])
        layer = tf.keras.layers.Dense(10, activation=tf.nn.relu)
        with tf.GradientTape() as t2:
            with tf.GradientTape(watch_accessed_variables=False) as t1:
                t1.watch(x)
                y = layer(x)
                out = tf.reduce_sum(layer(x)**2)
            g1 = t1.gradient(out, x)
            g1_mag = tf.norm(g1)
        g2 = t2.gradient(g1_mag, layer.trainable_variables)
        print(g2)
        print(len(g2), g2[0].shape, g2[1].shape)

        kernel, bias = (v.numpy().astype(float) for v in layer.trainable_variables)
        x = x.numpy().astype(float)

        def norm(kernel, bias):
            return np.linalg.norm(2 * np.maximum(x @ kernel + bias, 0) @ kernel.T)

        direction = np.random.default_rng(0).normal(size=kernel.shape)
        numeric = (norm(kernel + 1e-6 * direction, bias) - norm(kernel - 1e-6 * direction, bias))
        print(np.isclose(np.sum(g2[0] * direction), numeric / 2e-6, rtol=1e-3))
        direction = np.random.default_rng(1).normal(size=bias.shape)
        numeric = (norm(kernel, bias + 1e-6 * direction) - norm(kernel, bias - 1e-6 * direction))
        print(np.isclose(np.sum(g2[1] * direction), numeric / 2e-6, rtol=1e-3))
        """
    )
    assert out.startswith("[<tf.Tensor: shape=(7, 10), dtype=float32, numpy=\narray([[")
    assert "<tf.Tensor: shape=(10,), dtype=float32, numpy=" in out
    assert out.endswith("2 (7, 10) (10,)\nTrue\nTrue\n")
