"""Networks: the papers' own by name, any other by import path."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from counterpoint.errors import SettingsError, nearest
from counterpoint.models.densenet121 import DenseNet121
from counterpoint.models.slim_vgg16 import SlimVGG16
from counterpoint.models.unet import UNet

MODELS: dict[str, type[nn.Module]] = {
    "slim-vgg16": SlimVGG16,
    "densenet121": DenseNet121,
    "unet": UNet,
}

# Names under which the libraries of the field ask for the same things.
OUTPUTS = ("num_classes", "n_classes", "out_channels", "classes")
INPUTS = ("in_channels", "in_chans", "n_channels")
DIMENSIONS = ("spatial_dims",)


def find_model(name: str) -> type[nn.Module]:
    """Return the class behind a name or an import path ``package.module:Name``.

    Raises:
        SettingsError: if there is none.

    >>> find_model("torch.nn:Linear")
    <class 'torch.nn.modules.linear.Linear'>
    """
    if name in MODELS:
        return MODELS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise SettingsError(
            f"unknown model '{name}'{nearest(name, list(MODELS))}; known are {', '.join(MODELS)}, "
            "any other goes by its import path, such as monai.networks.nets:DenseNet121"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except AttributeError as error:
        known = [n for n in dir(importlib.import_module(module)) if not n.startswith("_")]
        hint = nearest(attribute, known)
        raise SettingsError(f"model '{name}': {module} has no '{attribute}'{hint}") from error
    except Exception as error:  # whatever a user's module may raise
        reason = f"{type(error).__name__}: {error}"
        raise SettingsError(f"model '{name}': can't import {module}: {reason}") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise SettingsError(
            f"model '{name}' is not a class of torch.nn.Module; put what makes a network into a "
            "class of your own, so that its models can be loaded"
        )
    return found


def build_network(
    name: str,
    options: Mapping[str, Any],
    outputs: int,
    shape: tuple[int, ...],
    dense: bool = False,
) -> nn.Module:
    """Make a network and try it on two empty images of ``shape`` (C, H, W) or (C, D, H, W).

    Arguments that go by well-known names (num_classes or out_channels, in_channels,
    spatial_dims) are filled in where ``options`` does not set them.

    Raises:
        SettingsError: if it can't be made, or does not give (2, outputs) for two images; where
            ``dense``, (2, outputs, *space): numbers for every pixel.

    >>> network = build_network("slim-vgg16", {}, outputs=3, shape=(3, 32, 32))
    """
    make = find_model(name)
    try:
        accepted = inspect.signature(make).parameters
    except ValueError:
        accepted = inspect.signature(lambda: None).parameters
    arguments: dict[str, Any] = {}
    for names, value in ((OUTPUTS, outputs), (INPUTS, shape[0]), (DIMENSIONS, len(shape) - 1)):
        arguments |= {known: value for known in names if known in accepted}
    arguments |= options
    try:
        network = make(**arguments)
    except Exception as error:
        raise SettingsError(f"model '{name}' can't be made with {arguments}: {error}") from error
    training = network.training
    try:
        with torch.no_grad():
            given = network.eval()(torch.zeros(2, *shape))
            found = tuple(given.shape) if isinstance(given, torch.Tensor) else type(given).__name__
    except Exception as error:
        sides = "x".join(str(side) for side in shape[1:])
        if len(shape) > 3 and not accepted.keys() & set(DIMENSIONS):
            raise SettingsError(
                f"model '{name}' is for images, not for volumes of {sides}; choose --model unet, "
                "monai.networks.nets:DenseNet121 or another that has them, or --volumes slices"
            ) from error
        raise SettingsError(
            f"model '{name}' can't take images of {shape[0]} channels and {sides} pixels: {error}"
        ) from error
    network.train(training)
    wanted = (2, outputs, *(shape[1:] if dense else ()))
    if found != wanted:
        raise SettingsError(
            f"model '{name}' gives outputs of shape {found} for two images; the task needs "
            f"{wanted}. Set its arguments with --model-options, or take another --model"
        )
    return network


__all__ = ["MODELS", "SlimVGG16", "build_network", "find_model"]
