"""The slim VGG16 with batch norm of PRR-FL (2,371,104 parameters with 3 classes)."""

from torch import Tensor, nn

BLOCKS = ((32, 32), (64, 64), (128, 128, 128), (128, 128, 128), (256, 256, 256))
FEATURES = 64


class SlimVGG16(nn.Module):
    """13 convolutions and 2 linear layers, batch norm after all but the last, no biases.

    Images (N, in_channels, H, W) with sides of at least 32 pixels give logits (N, classes).
    ``bias=True`` gives the last layer a bias (``--network vgg_b`` of the released script).

    >>> sum(p.numel() for p in SlimVGG16(3).parameters())
    2371104
    """

    def __init__(self, num_classes: int, in_channels: int = 3, bias: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = in_channels
        for block in BLOCKS:
            for out in block:
                layers += [
                    nn.Conv2d(width, out, kernel_size=3, padding=1, bias=False),
                    nn.BatchNorm2d(out),
                    nn.ReLU(),
                ]
                width = out
            layers.append(nn.MaxPool2d(2))
        self.convolutions = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.penultimate = nn.Sequential(
            nn.Linear(width, FEATURES, bias=False), nn.BatchNorm1d(FEATURES), nn.ReLU()
        )
        self.classifier = nn.Linear(FEATURES, num_classes, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes)."""
        logits: Tensor = self.classifier(self.penultimate(self.convolutions(images)))
        return logits
