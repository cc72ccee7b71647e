"""A physics-informed network for the heat equation: second derivatives by nested tapes."""

import numpy as np
import tensorflow as tf

rng = np.random.default_rng(0)
model = tf.keras.Sequential(
    [
        tf.keras.layers.Dense(32, activation="tanh"),
        tf.keras.layers.Dense(32, activation="tanh"),
        tf.keras.layers.Dense(1),
    ]
)
model.build((None, 2))
for variable in model.trainable_variables:
    variable.assign(rng.normal(size=variable.shape).astype("float32") * 0.3)
optimizer = tf.keras.optimizers.Adam(1e-3)
t = tf.constant(rng.random((256, 1), np.float32))
x = tf.constant(rng.random((256, 1), np.float32))
begin = tf.concat([tf.zeros_like(x), x], axis=1)


@tf.function
def train_step(t, x, begin):
    with tf.GradientTape() as tape:
        with tf.GradientTape() as second:
            second.watch(x)
            with tf.GradientTape(persistent=True) as first:
                first.watch([t, x])
                u = model(tf.concat([t, x], axis=1))
            u_t = first.gradient(u, t)
            u_x = first.gradient(u, x)
        u_xx = second.gradient(u_x, x)
        residual = tf.reduce_mean(tf.square(u_t - 0.1 * u_xx))
        initial = tf.reduce_mean(tf.square(model(begin) - tf.sin(np.pi * begin[:, 1:])))
        loss = residual + initial
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return loss


def step():
    return train_step(t, x, begin)
