"""A network with what stands before it, as it is trained, saved and loaded again."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from counterpoint.errors import StateError
from counterpoint.files import read_metadata, read_tensors
from counterpoint.harmonise import HARMONISERS, Harmoniser
from counterpoint.models import build_network
from counterpoint.statistics import Statistics, drop_running_statistics, put_group_norms

FORMAT = "counterpoint-model-2"
INPUT_RANGE = (-1.0, 1.0)
"""What 0 and 1 become before the network; models from elsewhere may have learnt another range."""


class Predictor(nn.Module):
    """Images (N, C, S, S) in 0..1, or volumes, harmonised, moved to ``input_range``, then the net.

    Harmonising comes before the shift to -1..1: the sign of an image's mean belongs to its
    phase, and should not depend on whether the image is brighter than mid-grey.
    """

    def __init__(
        self,
        harmonise: nn.Module,
        network: nn.Module,
        input_range: tuple[float, float] = INPUT_RANGE,
    ) -> None:
        super().__init__()
        self.harmonise = harmonise
        self.network = network
        self.input_range = input_range

    def prepare(self, images: Tensor) -> Tensor:
        """What the network is given: harmonised images in ``input_range``."""
        low, high = self.input_range
        harmonised: Tensor = self.harmonise(images)
        return harmonised * (high - low) + low

    def forward(self, images: Tensor) -> Tensor:
        """The network's output: logits (N, classes), for segmentation (N, classes, *space)."""
        output: Tensor = self.network(self.prepare(images))
        return output


def build_predictor(
    model: str,
    model_options: Mapping[str, Any],
    outputs: int,
    shape: tuple[int, ...],
    harmonise: Harmoniser,
    statistics: Statistics,
    dense: bool = False,
    input_range: tuple[float, float] = INPUT_RANGE,
) -> Predictor:
    """Make a predictor with fresh weights for images of ``shape`` (C, H, W) or (C, D, H, W).

    Raises:
        SettingsError: if the network can't be made or does not fit the task.
    """
    network = build_network(model, model_options, outputs, shape, dense)
    if statistics == "batch":
        drop_running_statistics(network)
    if statistics == "group":
        put_group_norms(network)
    return Predictor(harmonise.layer(shape), network, input_range)


def model_card(
    model: str,
    model_options: Mapping[str, Any],
    task: str,
    classes: tuple[str, ...],
    shape: tuple[int, ...],
    harmonise: Harmoniser,
    statistics: Statistics,
    **facts: object,
) -> dict[str, str]:
    """What is saved beside a model's weights, so that it can be loaded again.

    Of ``facts``, which are free, some have a meaning: ``input_range`` (see `Predictor`), and for
    `counterpoint.predict` ``form`` (how images are read, see `counterpoint.data.site.Form`),
    ``precision``, ``batch_size`` and ``seed``.
    """
    card = {
        "format": FORMAT,
        "model": model,
        "model_options": dict(model_options),
        "task": task,
        "classes": list(classes),
        "shape": list(shape),
        "input": f"images (N, {', '.join(str(side) for side in shape)}), values 0 to 1",
        "harmonise": {"kind": harmonise.kind} | asdict(harmonise),  # type: ignore[call-overload]
        "statistics": statistics,
    }
    return {"counterpoint": json.dumps(card | facts, ensure_ascii=False)}


def load_model(path: str | Path) -> tuple[Predictor, dict[str, Any]]:
    """Load a model that a run has left in its ``models`` folder.

    Nothing is unpickled. A network that goes by an import path is imported from what is installed
    here, and made only if it is a class of ``torch.nn.Module``; so load a model from elsewhere
    only where you would import the module that its card names.

    A model with ``statistics`` "batch" normalises by the images that it is given together: its
    answers depend on them, and one image alone may not be enough.

    Returns:
        The predictor, in evaluation mode, and its card: task, classes, shape, method, round, site.

    Raises:
        StateError: if the file is no model of a run.
        SettingsError: if its network can't be made here.
    """
    path = Path(path)
    try:
        card: dict[str, Any] = json.loads(read_metadata(path)["counterpoint"])
        if card["format"] != FORMAT:
            raise StateError(f"{path} has format {card['format']}, this version reads {FORMAT}")
        harmonise = dict(card["harmonise"])
        part = HARMONISERS[harmonise.pop("kind")]
        low, high = card.get("input_range", INPUT_RANGE)
        predictor = build_predictor(
            card["model"],
            card["model_options"],
            len(card["classes"]),
            tuple(card["shape"]),
            part(**harmonise),
            card["statistics"],
            dense=card["task"] == "segmentation",
            input_range=(float(low), float(high)),
        )
        predictor.load_state_dict(read_tensors(path))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise StateError(f"{path} is not a model that a run has left: {error}") from error
    return predictor.eval(), card


class Together(nn.Module):
    """Several models as one: the log of their mean class probabilities."""

    def __init__(self, voters: list[nn.Module]) -> None:
        super().__init__()
        self.voters = nn.ModuleList(voters)

    def forward(self, images: Tensor) -> Tensor:
        """Log-probabilities (N, classes, ...)."""
        votes = torch.stack([voter(images).float().log_softmax(1) for voter in self.voters])
        return votes.logsumexp(0) - math.log(len(self.voters))
