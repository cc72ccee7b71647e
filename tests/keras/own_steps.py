"""A model with a step of its own, as Keras's guide writes it, and samples for it."""

from __future__ import annotations

import numpy as np

import distgrad as tf

keras, layers = tf.keras, tf.keras.layers
rng = np.random.default_rng(0)
X = rng.normal(size=(40, 4)).astype(np.float32)
Y = (X.sum(axis=1, keepdims=True) > 0.3).astype(np.float32)
WEIGHT = rng.random((40, 1)).astype(np.float32)


class Guide(keras.Model):
    """Gives targets and predictions to whatever metrics there are."""

    def train_step(self, data):
        x, y, weight = data if len(data) == 3 else (*data, None)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred, sample_weight=weight)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return self._tell(loss, y, y_pred, weight)

    def test_step(self, data):
        x, y = data
        y_pred = self(x, training=False)
        return self._tell(self.compute_loss(y=y, y_pred=y_pred), y, y_pred, None)

    def _tell(self, loss, y, y_pred, weight):
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred, sample_weight=weight)
        return {m.name: m.result() for m in self.metrics}


def made(kind):
    inputs = keras.Input((4,))
    hidden = layers.Dense(3, activation="tanh")(inputs)
    model = kind(inputs, layers.Dense(1, activation="sigmoid")(hidden))
    values = np.random.default_rng(1)
    model.set_weights([values.normal(size=w.shape) for w in model.get_weights()])
    return model
