"""An epoch of Keras's variational autoencoder, which has a train_step of its own."""

import numpy as np
import tensorflow as tf

keras, layers = tf.keras, tf.keras.layers
rng = np.random.default_rng(0)
images = rng.random((320, 28 * 28), np.float32)


class Sampling(layers.Layer):
    def call(self, inputs):
        mean, log_var = inputs
        return mean + tf.exp(0.5 * log_var) * tf.random.normal(tf.shape(mean))


class VAE(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(64, activation="relu")
        self.mean, self.log_var, self.sampling = layers.Dense(2), layers.Dense(2), Sampling()
        self.decoder = keras.Sequential(
            [layers.Dense(64, activation="relu"), layers.Dense(28 * 28, activation="sigmoid")]
        )
        self.loss_tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        return [self.loss_tracker]

    def call(self, x):
        hidden = self.hidden(x)
        mean, log_var = self.mean(hidden), self.log_var(hidden)
        return mean, log_var, self.decoder(self.sampling([mean, log_var]))

    def train_step(self, data):
        with tf.GradientTape() as tape:
            mean, log_var, reconstruction = self(data)
            error = keras.losses.binary_crossentropy(data, reconstruction)
            divergence = -0.5 * (1 + log_var - tf.square(mean) - tf.exp(log_var))
            loss = tf.reduce_mean(784 * error + tf.reduce_sum(divergence, axis=1))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights))
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}


model = VAE()
model.compile(optimizer="adam")


def step():
    return model.fit(images, batch_size=32, epochs=1, verbose=0).history["loss"][0]
