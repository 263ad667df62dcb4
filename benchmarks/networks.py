"""Small networks for benchmarks, found by their import path."""

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Four layers for images of 32x32: two convolutions, two linear layers (545,098 parameters).

    >>> sum(p.numel() for p in SmallCNN(10).parameters())
    545098
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 8 * 8, 128),
            nn.ReLU(),
            nn.Linear(128, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes)."""
        logits: Tensor = self.layers(images)
        return logits


class TinyCNN(nn.Module):
    """A network of 5,000 weights for thousands of clients."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes)."""
        logits: Tensor = self.layers(images)
        return logits


class Large(nn.Module):
    """25 million weights in one layer: much to send, little to train.

    >>> sum(p.numel() for p in Large(3).parameters()) // 10**6
    25
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(8),
            nn.Flatten(),
            nn.Linear(3 * 8 * 8, 5000),
            nn.ReLU(),
            nn.Linear(5000, 4810),
            nn.ReLU(),
            nn.Linear(4810, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes)."""
        logits: Tensor = self.layers(images)
        return logits
