"""Which tensor of a network belongs to which kind of layer, decided by module type.

Deciding by name is a known trap: ``'bn' in name`` finds no layer of a stock DenseNet121 or U-Net,
and a FedBN built on it silently is FedAvg.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch  # noqa: F401  (in examples)
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

NORMALISATION = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
"""Normalisation layers: batch and instance norms, group, layer and RMS norm, and subclasses."""

SPECTRAL = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Layers whose weight has a spectrum to mix. Subclasses count, transposed convolutions do not."""


def _names(prefix: str, tensors: Iterator[tuple[str, Tensor]]) -> list[str]:
    return [f"{prefix}.{name}" if prefix else name for name, _ in tensors]


def normalisation_parameters(network: nn.Module) -> set[str]:
    """Names of the affine parameters of normalisation layers.

    >>> sorted(normalisation_parameters(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))))
    ['1.bias', '1.weight']
    """
    return {
        name
        for prefix, module in network.named_modules()
        if isinstance(module, NORMALISATION)
        for name in _names(prefix, module.named_parameters(recurse=False))
    }


def running_statistics(network: nn.Module) -> dict[str, Tensor]:
    """Running means and variances of batch and instance norm, by name.

    >>> list(running_statistics(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))))
    ['1.running_mean', '1.running_var']
    """
    return {
        name: buffer
        for prefix, module in network.named_modules()
        if isinstance(module, NORMALISATION)
        for name, buffer in zip(
            _names(prefix, module.named_buffers(recurse=False)),
            module.buffers(recurse=False),
            strict=True,
        )
        if buffer.is_floating_point()
    }


def batch_counters(network: nn.Module) -> list[str]:
    """Names of the numbers of batches that normalisation layers have seen.

    >>> batch_counters(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    ['1.num_batches_tracked']
    """
    return [
        name
        for prefix, module in network.named_modules()
        if isinstance(module, _NormBase)
        for name in _names(prefix, module.named_buffers(recurse=False))
        if name.endswith("num_batches_tracked")
    ]


def other_buffers(network: nn.Module) -> dict[str, Tensor]:
    """Floating-point buffers that travel with the state and are no running statistics, by name."""
    statistics = running_statistics(network)
    others = {
        name: buffer
        for name, buffer in network.named_buffers()
        if name not in statistics and buffer.is_floating_point()
    }
    persistent = network.state_dict(keep_vars=True) if others else {}
    return {name: buffer for name, buffer in others.items() if name in persistent}


def spectral_weights(network: nn.Module) -> set[str]:
    """Names of the convolution and linear weights.

    >>> spectral_weights(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    {'0.weight'}
    """
    return {
        f"{prefix}.weight" if prefix else "weight"
        for prefix, module in network.named_modules()
        if isinstance(module, SPECTRAL)
    }


def head_name(network: nn.Module) -> str:
    """Name of the last layer with weights, which gives the outputs, in the order of registration.

    Raises:
        ValueError: if no layer has weights that could be a head.

    >>> head_name(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3), nn.BatchNorm1d(3)))
    '2'
    """
    layers = [n for n, m in network.named_modules() if isinstance(m, (*SPECTRAL, _ConvTransposeNd))]
    if not layers:
        raise ValueError("this network has no linear or convolution layer, so it has no head")
    return str(layers[-1])


def head_parameters(network: nn.Module) -> set[str]:
    """Names of the head's parameters; see :func:`head_name`.

    >>> sorted(head_parameters(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3))))
    ['2.bias', '2.weight']
    """
    name = head_name(network)
    return set(_names(name, network.get_submodule(name).named_parameters()))


@contextmanager
def watched_features(network: nn.Module) -> Iterator[Callable[[], Tensor]]:
    """Give a function that returns what entered the head in the last forward pass, (N, F, ...).

    >>> network = nn.Sequential(nn.Identity(), nn.Linear(2, 3))
    >>> with watched_features(network) as features:
    ...     _ = network(torch.ones(1, 2))
    ...     features()
    tensor([[1., 1.]])
    """
    seen: list[Tensor] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[:] = inputs[:1]

    hook = network.get_submodule(head_name(network)).register_forward_pre_hook(watch)
    try:
        yield lambda: seen[0]
    finally:
        hook.remove()


def batch_norms(network: nn.Module) -> list[_NormBase]:
    """Layers that normalise with statistics of the batch and may keep running ones."""
    return [module for module in network.modules() if isinstance(module, _NormBase)]


def mixes_images(network: nn.Module) -> bool:
    """Whether, in evaluation, what an image gives depends on those that it is given with.

    >>> mixes_images(nn.BatchNorm2d(1, track_running_stats=False))
    True
    >>> mixes_images(nn.BatchNorm2d(1)), mixes_images(nn.InstanceNorm2d(1))
    (False, False)
    """
    return any(
        layer.running_mean is None and not isinstance(layer, _InstanceNorm)
        for layer in batch_norms(network)
    )


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Let a training-mode pass use batch statistics without moving the running ones.

    The second pass of weight perturbation sees the same images again, at other weights; it must
    not count twice. Other layers that gather statistics of what passes through them carry an
    attribute ``statistics_frozen`` and are told by it.
    """
    gathering = [layer for layer in network.modules() if hasattr(layer, "statistics_frozen")]
    kept = [
        (layer, layer.running_mean, layer.running_var, layer.num_batches_tracked)
        for layer in batch_norms(network)
        if layer.track_running_stats
    ]
    for layer, *_ in kept:
        layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    for gatherer in gathering:
        gatherer.statistics_frozen = True  # type: ignore[assignment]
    try:
        yield
    finally:
        for gatherer in gathering:
            gatherer.statistics_frozen = False  # type: ignore[assignment]
        for layer, mean, variance, count in kept:
            layer.running_mean, layer.running_var, layer.num_batches_tracked = mean, variance, count
