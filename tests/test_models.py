"""The papers' networks: shapes, sizes worked out by hand, gradients, and how weights start."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from counterpoint.errors import SettingsError
from counterpoint.layers import normalisation_parameters
from counterpoint.models import MODELS, build_network
from counterpoint.models.densenet121 import DenseNet121
from counterpoint.models.unet import UNet
from counterpoint.statistics import Statistics, drop_running_statistics, put_group_norms


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def unet_size(inputs: int, outputs: int, f: int, d: int, affine: bool) -> int:
    """Parameters of the U-Net, from its drawing: kernels of 3, of 2 on the way up, of 1 at last."""
    widths = [f, 2 * f, 4 * f, 8 * f, 16 * f]
    encoder = [(a, b) for a, b in itertools.pairwise([inputs, *widths])]
    decoder = [(2 * width, width) for width in widths[:4]]
    blocks = sum(3**d * (a * b + b * b) for a, b in encoder + decoder)
    upwards = sum(2**d * 2 * width * width + width for width in widths[:4])
    norms = sum(2 * 2 * b for _, b in encoder + decoder) if affine else 0
    return blocks + upwards + norms + f * outputs + outputs


def densenet_size(classes: int, affine: bool) -> int:
    """Parameters of DenseNet121: growth 32, bottlenecks of 128, transitions that halve."""
    weights, normalised, width = 7 * 7 * 3 * 64, 64, 64
    for block, depth in enumerate((6, 12, 24, 16)):
        for _ in range(depth):
            weights += width * 128 + 9 * 128 * 32
            normalised += width + 128
            width += 32
        normalised += width  # of the transition, or of the end
        if block < 3:
            weights += width * width // 2
            width //= 2
    return weights + width * classes + classes + 2 * affine * normalised


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("features", "dimensions"), [(32, 2), (4, 2), (4, 3)])
def test_unet_has_as_many_parameters_as_it_should(
    features: int, dimensions: int, affine: bool
) -> None:
    network = UNet(3, 2, features=features, affine=affine, spatial_dims=dimensions)
    assert count(network) == unet_size(3, 2, features, dimensions, affine)
    assert bool(normalisation_parameters(network)) == affine


def test_unet_has_the_well_known_size() -> None:
    assert unet_size(3, 1, 32, 2, affine=True) == 7763041  # of the brain segmentation U-Net
    assert count(UNet(3, 2, affine=False)) == 7757186


@pytest.mark.parametrize("shape", [(2, 3, 32, 48), (2, 1, 16, 32, 16)], ids=["image", "volume"])
def test_unet_gives_every_pixel_its_logits(shape: tuple[int, ...]) -> None:
    network = UNet(shape[1], 5, features=2, spatial_dims=len(shape) - 2)
    assert network(torch.rand(shape)).shape == (2, 5, *shape[2:])


@pytest.mark.parametrize("shape", [(1, 3, 32, 40), (1, 3, 8, 8)])
def test_unet_says_which_sides_will_do(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be multiples of 16, not"):
        UNet(3, 2, features=2)(torch.rand(shape))


def test_unet_of_four_dimensions() -> None:
    with pytest.raises(ValueError, match="spatial_dims is 4; it must be 2 or 3"):
        UNet(3, 2, spatial_dims=4)


def test_unet_looks_at_details_and_at_the_whole() -> None:
    # the level above the lowest is joined from both sides: a pixel far off still counts
    torch.manual_seed(0)
    network = UNet(1, 1, features=2).eval()
    images = torch.rand(1, 1, 64, 64, requires_grad=True)
    network(images)[0, 0, 32, 32].backward()
    assert images.grad is not None
    assert images.grad[0, 0, 31:34, 31:34].abs().min() > 0
    assert images.grad[0, 0, 2].abs().max() > 0


def test_densenet_has_as_many_parameters_as_it_should() -> None:
    assert densenet_size(1000, affine=True) == 7978856  # of the DenseNet121 of torchvision
    assert count(DenseNet121(2)) == densenet_size(2, affine=True) == 6955906
    plain = DenseNet121(2, affine=False)
    assert count(plain) == densenet_size(2, affine=False) == 6872258
    assert normalisation_parameters(plain) == set()


def test_densenet_sees_seven_by_seven_then_three_by_three() -> None:
    network = DenseNet121(2).eval()
    sides: list[int] = []
    for layer in network.features:
        if isinstance(layer, nn.AvgPool2d | nn.ZeroPad2d | nn.AdaptiveAvgPool2d):
            layer.register_forward_hook(lambda _, given, got: sides.append(given[0].shape[-1]))
    assert network(torch.rand(2, 3, 96, 96)).shape == (2, 2)
    assert sides == [24, 28, 14, 7, 3]
    assert network.features[:-4](torch.rand(2, 3, 96, 96)).shape == (2, 1024, 3, 3)
    assert network(torch.rand(2, 3, 13, 13)).shape == (2, 2)  # the smallest that it says


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("affine", "statistics", "once"),
    [
        (False, "batch", True),
        (True, "batch", False),
        (False, "averaged", False),
        (False, "group", False),
    ],
)
def test_densenet_normalises_once_what_comes_out_the_same(
    affine: bool, statistics: Statistics, once: bool, training: bool
) -> None:
    torch.manual_seed(0)
    network = DenseNet121(2, affine=affine).train(training).double()
    if statistics == "batch":
        drop_running_statistics(network)
    elif statistics == "group":
        put_group_norms(network)
    # one layer after the other, each with a norm of all maps: what the pictures of it show
    plain = copy.deepcopy(network)
    plain.features = nn.Sequential(*plain.features)
    channels: list[int] = []
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
            layer.register_forward_hook(lambda _, given, got: channels.append(given[0].shape[1]))
    images = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    outputs = [net(images) for net in (network, plain)]
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
    widths = {64: 6, 128: 12, 256: 24, 512: 16}  # before a block, and its layers
    fixed = 64 + 58 * 128 + (256 + 512 + 1024 + 1024)  # the stem, bottlenecks, behind the blocks
    of_new = sum(width + 32 * (depth - 1) for width, depth in widths.items())
    of_all = sum(width + 32 * layer for width, depth in widths.items() for layer in range(depth))
    assert sum(channels) == fixed + (of_new if once else of_all)
    for output in outputs:
        output.square().sum().backward()
    for (name, mine), (_, its) in zip(
        network.named_parameters(), plain.named_parameters(), strict=True
    ):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-8, atol=1e-10, msg=name)
    for (name, mine), (_, its) in zip(network.named_buffers(), plain.named_buffers(), strict=True):
        assert torch.equal(mine, its), name


def test_densenet_starts_as_released() -> None:
    torch.manual_seed(0)
    network = DenseNet121(2)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 30000:
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
    assert not network.classifier.bias.any()
    assert network.classifier.weight.abs().max() <= 1 / math.sqrt(1024)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", [DenseNet121, UNet])
def test_every_parameter_gets_a_gradient(kind: type[nn.Module], affine: bool) -> None:
    torch.manual_seed(0)
    if kind is UNet:
        network = UNet(3, 2, features=4, affine=affine)
    else:
        network = DenseNet121(2, affine=affine)
    network(torch.rand(3, 3, 32, 32)).square().mean().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert sum(bool(g.any()) for g in gradients if g is not None) == len(gradients)


def test_names_on_the_command_line() -> None:
    assert {"slim-vgg16", "unet", "densenet121"} <= set(MODELS)
    network = build_network("densenet121", {"affine": False}, outputs=4, shape=(3, 32, 32))
    assert isinstance(network, DenseNet121)
    assert network.classifier.out_features == 4
    with pytest.raises(SettingsError, match="must be multiples of 16"):
        build_network("unet", {"features": 2}, outputs=2, shape=(3, 24, 24), dense=True)
