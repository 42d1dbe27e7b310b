"""Initialisation shared by the VGG, ResNet and MobileNetV2 families."""

from torch import nn


def kaiming_normal_fan_out(network: nn.Module) -> None:
    """Reinitialise every convolution of `network` in place: normal, std ``sqrt(2 / fan_out)``; biases 0.

    ``fan_out`` is filters x kernel height x kernel width, regardless of the number of groups. Normalisation layers
    keep PyTorch's default scale 1 and shift 0. Source: He et al., "Delving Deep into Rectifiers", arXiv 1502.01852,
    section 2.2, backward case (equation 14).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def normal_linear(network: nn.Module, std: float = 0.01) -> None:
    """Reinitialise every linear layer of `network` in place: normal, standard deviation `std`; biases 0.

    Source: Simonyan and Zisserman, "Very Deep Convolutional Networks", arXiv 1409.1556, section 3.1
    (normal, mean 0, variance 1e-4).
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
