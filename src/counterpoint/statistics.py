"""Where batch norm's running statistics come from: a choice of its own, for every method.

After a merge the averaged running statistics do not fit the averaged weights, and a good part of
what looks like a method's weakness is only that. So the source is named in every result:

=============  ====================================================================================
averaged       running means and variances travel and are averaged like weights (FedAvg)
local          they stay at the site (FedBN, SiloBN, PRR-FL)
recalibrated   they stay, and are estimated anew on the site's training images after each merge,
               without labels
batch          there are none: every batch is normalised by itself, in training and in evaluation
               (as HarmoFL was released; scores then depend on the batch size)
group          there are none: group norm stands in the place of every batch norm, and each image is
               normalised by itself (another network, of as many weights)
=============  ====================================================================================
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from counterpoint.layers import batch_norms

Statistics = Literal["averaged", "local", "recalibrated", "batch", "group"]

GROUP = 16
"""Fewest channels in a group of group norm, where a layer has as many."""


def drop_running_statistics(network: nn.Module) -> None:
    """Make every batch norm of ``network`` use the statistics of the batch, always (``batch``)."""
    for layer in batch_norms(network):
        layer.track_running_stats = False
        layer.running_mean = layer.running_var = layer.num_batches_tracked = None


def put_group_norms(network: nn.Module) -> None:
    """Put group norm (Wu and He, ECCV 2018) in the place of every batch norm (``group``).

    Groups are of 16 channels or a few more; the paper finds them as good as 32 groups.

    >>> network = nn.Sequential(nn.Conv2d(3, 40, 3), nn.BatchNorm2d(40))
    >>> put_group_norms(network)
    >>> network[1].num_groups, network[1].num_channels
    (2, 40)
    """
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, _BatchNorm):
                channels = layer.num_features
                fit = range(1, max(1, channels // GROUP) + 1)
                groups = max(count for count in fit if channels % count == 0)
                setattr(parent, name, nn.GroupNorm(groups, channels, layer.eps, layer.affine))


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Run networks as they are written: compiled, each momentum would be compiled by itself."""
    if any(module._compiled_call_impl is not None for module in model.modules()):
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Estimate the running statistics anew as their mean over ``batches``, at the present weights.

    Only batch norm is in training mode meanwhile: dropout stays off. Without a batch norm layer,
    nothing is computed.

    >>> net = nn.Sequential(nn.BatchNorm1d(1))
    >>> recalibrate(net, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])])
    >>> net[0].running_mean, net[0].running_var
    (tensor([4.]), tensor([2.]))
    """
    layers = [layer for layer in batch_norms(model) if layer.track_running_stats]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    was_training = model.training
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    try:
        with uncompiled(model):
            for number, images in enumerate(batches, start=1):
                for layer in layers:
                    layer.momentum = 1 / number  # a plain average over the batches
                model(images)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.train(was_training)
