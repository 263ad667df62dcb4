"""The model that every site starts from."""

from pathlib import Path

import torch

from counterpoint.aggregation import Exchange
from counterpoint.aggregation.all import AllWeights
from counterpoint.data.batches import layout
from counterpoint.methods import Method
from counterpoint.payload import Payload
from counterpoint.predictor import Predictor, build_predictor
from counterpoint.privacy.records import require_images_apart
from counterpoint.tasks import Task
from counterpoint.weights import put_weights


def new_predictor(method: Method, task: Task, shape: tuple[int, ...]) -> Predictor:
    """Make a method's model with fresh weights; raise SettingsError if it can't be made."""
    predictor = build_predictor(
        method.schedule.model,
        method.schedule.model_options,
        task.outputs,
        shape,
        method.harmonise,
        method.statistics,
        dense=task.kind == "segmentation",
    )
    if method.privacy.kind == "records":
        require_images_apart(laid_out(predictor, len(shape) + 1).network, shape)
    return predictor


def laid_out(model: Predictor, axes: int) -> Predictor:
    """The model with its convolutions in the memory layout of batches with so many axes.

    ``Module.to`` refuses models for volumes that also have tensors of four axes.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dim() == axes:
            tensor.data = tensor.data.contiguous(memory_format=layout(axes))
    return model


def first_predictor(method: Method, task: Task, shape: tuple[int, ...], seed: int) -> Predictor:
    """The model that every site starts from: drawn by the seed, or from a file where that fits.

    Raises:
        SettingsError: if it can't be made, or nothing in the file fits it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        predictor = new_predictor(method, task, shape)
    if method.schedule.weights:
        put_weights(predictor.network, Path(method.schedule.weights))
    return predictor


def first_weights(method: Method, task: Task, shape: tuple[int, ...], seed: int) -> Payload:
    """Weights that every site starts from, by the names under which they are shared."""
    return AllWeights().share(first_predictor(method, task, shape, seed).network, Exchange())
