"""The U-Net of HarmoFL (7,763,074 parameters with 3 channels and 2 classes)."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

LEVELS = 4
LAYERS: dict[int, tuple[Callable[..., nn.Module], ...]] = {
    2: (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.MaxPool2d),
    3: (nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d, nn.MaxPool3d),
}


class UNet(nn.Module):
    """Four levels down to 16 times the features and up again, two convolutions a level.

    Images (N, in_channels, H, W), or volumes (N, in_channels, D, H, W) where ``spatial_dims`` is
    3, give logits (N, out_channels, ...) of the same sides, which must be multiples of 16.
    ``affine=False`` leaves batch norm without scale and shift, as HarmoFL was released.

    >>> sum(p.numel() for p in UNet(3, 2).parameters())
    7763074
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: int = 32,
        affine: bool = True,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        if spatial_dims not in LAYERS:
            raise ValueError(f"spatial_dims is {spatial_dims}; it must be 2 or 3")
        conv, deconv, norm, pool = LAYERS[spatial_dims]

        def block(inputs: int, outputs: int) -> nn.Module:
            layers: list[nn.Module] = []
            for width in (inputs, outputs):
                layers += [
                    conv(width, outputs, kernel_size=3, padding=1, bias=False),
                    norm(outputs, affine=affine),
                    nn.ReLU(),
                ]
            return nn.Sequential(*layers)

        widths = [features * 2**level for level in range(LEVELS + 1)]
        upwards = widths[-2::-1]
        self.pool = pool(2)
        self.down = nn.ModuleList(block(a, b) for a, b in pairwise([in_channels, *widths]))
        self.up = nn.ModuleList(deconv(2 * w, w, kernel_size=2, stride=2) for w in upwards)
        self.merge = nn.ModuleList(block(2 * width, width) for width in upwards)
        self.output = conv(features, out_channels, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, out_channels, H, W) or (N, out_channels, D, H, W).

        Raises:
            ValueError: if a side is no multiple of 16.
        """
        sides = tuple(images.shape[2:])
        if any(side % 2**LEVELS for side in sides):
            raise ValueError(f"the sides of a U-Net's images must be multiples of 16, not {sides}")
        x, skips = self.down[0](images), []
        for down in self.down[1:]:
            skips.append(x)
            x = down(self.pool(x))
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), skips.pop()], dim=1))
        logits: Tensor = self.output(x)
        return logits
