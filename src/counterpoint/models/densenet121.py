"""The DenseNet121 of HarmoFL (6,955,906 parameters with 2 classes)."""

import torch
from torch import Tensor, nn

BLOCKS = (6, 12, 24, 16)
STEM, GROWTH, BOTTLENECK = 64, 32, 128


def normalise_and_convolve(inputs: int, outputs: int, kernel: int, affine: bool) -> list[nn.Module]:
    """Batch norm, ReLU and a convolution without bias that keeps the sides."""
    return [
        nn.BatchNorm2d(inputs, affine=affine),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
    ]


class DenseLayer(nn.Module):
    """Adds 32 channels to those that it is given: (N, C, H, W) gives (N, C + 32, H, W)."""

    def __init__(self, inputs: int, affine: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *normalise_and_convolve(inputs, BOTTLENECK, 1, affine),
            *normalise_and_convolve(BOTTLENECK, GROWTH, 3, affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x`` and, behind it, the new channels."""
        return torch.cat([x, self.layers(x)], dim=1)


class DenseNet121(nn.Module):
    """DenseNet121 with two pixels of zeros around the maps after the first dense block.

    The zeros are HarmoFL's, and keep maps of 3x3 pixels at the end for its images of 96x96.
    Images (N, in_channels, H, W) with sides of at least 13 pixels give logits (N, num_classes).
    ``affine=False`` leaves batch norm without scale and shift, as HarmoFL was released.
    Convolutions start by Kaiming's rule, the classifier's bias at 0.

    >>> sum(p.numel() for p in DenseNet121(2).parameters())
    6955906
    """

    def __init__(self, num_classes: int, in_channels: int = 3, affine: bool = True) -> None:
        super().__init__()
        width = STEM
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, width, kernel_size=7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width, affine=affine),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        ]
        for block, depth in enumerate(BLOCKS):
            if block:  # a transition: half the channels, half the sides
                layers += normalise_and_convolve(width, width // 2, 1, affine)
                layers.append(nn.AvgPool2d(2))
                width //= 2
            for _ in range(depth):
                layers.append(DenseLayer(width, affine))
                width += GROWTH
            if block == 0:
                layers.append(nn.ZeroPad2d(2))
        layers += [nn.BatchNorm2d(width, affine=affine), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits
