"""The data sets that Keras users load by name."""

from distgrad.keras.datasets import cifar10 as cifar10
from distgrad.keras.datasets import cifar100 as cifar100
from distgrad.keras.datasets import fashion_mnist as fashion_mnist
from distgrad.keras.datasets import mnist as mnist
