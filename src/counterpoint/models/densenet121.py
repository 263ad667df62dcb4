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

    def normalised(self, x: Tensor) -> Tensor:
        """Maps behind the first batch norm and ReLU."""
        norm, relu, *_ = self.layers
        maps: Tensor = relu(norm(x))
        return maps

    def new_channels(self, maps: Tensor) -> Tensor:
        """The new channels, of maps that are normalised."""
        _, _, *rest = self.layers
        for module in rest:
            maps = module(maps)
        return maps

    @property
    def normalises_like_any(self) -> bool:
        """Whether its first batch norm has nothing of its own: no weights and no statistics."""
        norm = self.layers[0]
        plain = isinstance(norm, nn.BatchNorm2d) and norm.weight is None
        return plain and norm.running_mean is None


def dense_block(layers: list[DenseLayer], x: Tensor) -> Tensor:
    """``x`` and, behind it, what each layer adds.

    Every layer normalises all maps that are there by then. As HarmoFL was released, without scale,
    shift and running statistics, a map comes out the same every time: it is normalised once, and
    the layers are not called as wholes.
    """
    if not all(layer.normalises_like_any for layer in layers):
        for layer in layers:
            x = layer(x)
        return x
    first, *others = layers
    normalised = first.normalised(x)
    maps = [x, first.new_channels(normalised)]
    for layer in others:
        normalised = torch.cat([normalised, layer.normalised(maps[-1])], dim=1)
        maps.append(layer.new_channels(normalised))
    return torch.cat(maps, dim=1)


class Features(nn.Sequential):
    """Modules one after the other, of which neighbouring dense layers work as a block."""

    def forward(self, x: Tensor) -> Tensor:
        """What the last module gives."""
        block: list[DenseLayer] = []
        for module in self:
            if isinstance(module, DenseLayer):
                block.append(module)
                continue
            if block:
                x, block = dense_block(block, x), []
            x = module(x)
        return dense_block(block, x) if block else x


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
        self.features: nn.Sequential = Features(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits
