"""Small networks for tests."""

from torch import Tensor, nn


class Tiny(nn.Module):
    """Two convolutions with batch norm and a linear layer with a bias."""

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 8, 3, stride=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


class NoNorm(nn.Module):
    """Without any normalisation, and with dropout."""

    def __init__(self, num_classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


class Dense(nn.Module):
    """An answer for every pixel of an image or volume, with batch norm."""

    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int) -> None:
        super().__init__()
        three = spatial_dims == 3
        conv: type[nn.Module] = nn.Conv3d if three else nn.Conv2d
        self.body = conv(in_channels, 4, kernel_size=3, padding=1, bias=False)
        self.norm = (nn.BatchNorm3d if three else nn.BatchNorm2d)(4)
        self.head = conv(4, out_channels, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.body(images)).relu())
        return logits


class WrongShape(nn.Module):
    """Gives one number an image, whatever it is asked for."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3))[:, None]
