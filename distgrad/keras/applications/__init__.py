"""The networks of ``keras.applications``, with random weights, those of ImageNet or of a file."""

from distgrad.core.later import later

# Where each network, loaded at its first use, is built.
_NETWORKS = {
    "convnext": "ConvNeXtBase ConvNeXtLarge ConvNeXtSmall ConvNeXtTiny ConvNeXtXLarge",
    "densenet": "DenseNet121 DenseNet169 DenseNet201",
    "efficientnet": " ".join(f"EfficientNetB{size}" for size in range(8)),
    "efficientnet_v2": " ".join(
        f"EfficientNetV2{size}" for size in ["B0", "B1", "B2", "B3", "L", "M", "S"]
    ),
    "imagenet_utils": "",
    "inception_resnet_v2": "InceptionResNetV2",
    "inception_v3": "InceptionV3",
    "mobilenet": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3": "MobileNetV3Large MobileNetV3Small",
    "nasnet": "NASNetLarge NASNetMobile",
    "resnet": "ResNet101 ResNet152 ResNet50",
    "resnet50": "",
    "resnet_v2": "ResNet101V2 ResNet152V2 ResNet50V2",
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "xception": "Xception",
}
_LATER = {module: f".{module}" for module in _NETWORKS}
_LATER.update({name: f".{home}" for home, names in _NETWORKS.items() for name in names.split()})

__all__ = list(_LATER)

__getattr__, __dir__ = later(__name__, globals(), _LATER)
