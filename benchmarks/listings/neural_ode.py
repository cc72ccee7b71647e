"""A neural ordinary differential equation: twenty Runge-Kutta steps, and the way back."""

import numpy as np
import tensorflow as tf

rng = np.random.default_rng(0)
w1 = tf.Variable(rng.normal(size=(2, 16)).astype("float32") * 0.3)
b1 = tf.Variable(tf.zeros(16))
w2 = tf.Variable(rng.normal(size=(16, 2)).astype("float32") * 0.3)
start = tf.constant(rng.normal(size=(20, 2)).astype("float32"))
target = tf.constant(rng.normal(size=(20, 2)).astype("float32"))
optimizer = tf.keras.optimizers.Adam(1e-2)


def slope(y):
    return tf.matmul(tf.tanh(tf.matmul(y**3, w1) + b1), w2)


@tf.function
def train_step(y, target):
    h = 0.05
    with tf.GradientTape() as tape:
        for _ in range(20):
            k1 = slope(y)
            k2 = slope(y + h / 2 * k1)
            k3 = slope(y + h / 2 * k2)
            k4 = slope(y + h * k3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        loss = tf.reduce_mean(tf.abs(y - target))
    variables = [w1, b1, w2]
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
    return loss


def step():
    return train_step(start, target)
