"""The data sets that Keras users load by name."""

from distgrad.keras.datasets import mnist as mnist
