"""REINFORCE on a small network: the returns of an episode, and one update of the policy."""

import numpy as np
import tensorflow as tf

rng = np.random.default_rng(0)
states = tf.constant(rng.normal(size=(200, 4)).astype("float32"))
actions = tf.constant(rng.integers(0, 2, 200))
rewards = tf.constant(rng.random(200, np.float32))
policy = tf.keras.Sequential(
    [tf.keras.layers.Dense(64, activation="relu"), tf.keras.layers.Dense(2)]
)
optimizer = tf.keras.optimizers.Adam(1e-2)


def discounted(rewards, gamma=0.99):
    returns = tf.scan(
        lambda total, reward: reward + gamma * total, tf.reverse(rewards, [0]), tf.constant(0.0)
    )
    returns = tf.reverse(returns, [0])
    return (returns - tf.reduce_mean(returns)) / (tf.math.reduce_std(returns) + 1e-6)


@tf.function
def train_step(states, actions, rewards):
    returns = discounted(rewards)
    with tf.GradientTape() as tape:
        logits = policy(states)
        chosen = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=actions, logits=logits)
        loss = tf.reduce_mean(chosen * returns)
    gradients = tape.gradient(loss, policy.trainable_variables)
    optimizer.apply_gradients(zip(gradients, policy.trainable_variables))
    return loss


def step():
    return train_step(states, actions, rewards)
