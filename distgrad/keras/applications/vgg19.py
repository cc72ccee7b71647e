"""VGG19. Source: Simonyan and Zisserman, "Very Deep Convolutional Networks"."""

from __future__ import annotations

from distgrad.keras.applications.building import Network, application
from distgrad.keras.applications.imagenet_utils import decode_predictions
from distgrad.keras.applications.vgg16 import preprocess_input, vgg
from distgrad.keras.models.functional import Functional

__all__ = ["VGG19", "decode_predictions", "preprocess_input"]

_HASHES = ("cbe5617147190e668d6c5d5026f83318", "253f8cb515780f3b799900260a226db6")


@application("vgg19")
def VGG19(network: Network) -> Functional:
    """VGG of 19 layers, for images of 224 x 224; they are at least of 32 x 32."""
    return vgg(network, "vgg19", (2, 2, 4, 4, 4), _HASHES)
