"""Safetensors: weights and card, read again by `counterpoint.load_model`."""

import json
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from safetensors.torch import save
from torch import Tensor

from counterpoint.errors import StateError
from counterpoint.exporting.format import Card, Format, Run
from counterpoint.files import read_tensors
from counterpoint.prediction.chosen import Chosen
from counterpoint.predictor import load_model


def write(chosen: Chosen, example: Tensor, card: Card) -> bytes:
    """The model's own tensors, with the card as metadata."""
    if not chosen.file.is_file():
        raise StateError("only a single model can be exported, not several that vote")
    text = json.dumps(card, ensure_ascii=False)
    return save(read_tensors(chosen.file), metadata={"counterpoint": text})


def load(path: Path) -> Run:
    """Read it as `counterpoint.load_model` does."""
    predictor, _ = load_model(path)

    @torch.no_grad()
    def run(images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        logits = predictor(torch.from_numpy(images))
        return logits.numpy(), logits.softmax(1).numpy()

    return run


SAFETENSORS = Format(
    "safetensors",
    ".safetensors",
    write,
    load,
    """\
import counterpoint

model, card = counterpoint.load_model("{file}")
probabilities = model(images).softmax(1)
counterpoint.predict("{file}", "folder/with/images", out="predictions")""",
)
