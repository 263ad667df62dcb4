"""A torch.export program (.pt2): a graph that PyTorch runs without our code."""

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from counterpoint.errors import StateError, first_line
from counterpoint.exporting.format import Card, Format, Run
from counterpoint.exporting.portable import Portable
from counterpoint.prediction.chosen import Chosen


def captured(predictor: nn.Module, example: Tensor) -> ExportedProgram:
    """The model as a graph for any number of images.

    Raises:
        StateError: if its network can't be captured.
    """
    shapes = {"images": {0: Dim("batch", min=1)}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            portable = Portable(predictor).eval()
            return torch.export.export(portable, (example,), dynamic_shapes=shapes)
    except Exception as error:  # whatever a network may do that no graph can
        first = first_line(error)
        raise StateError(
            f"this network can't be captured as a graph ({type(error).__name__}: {first}); export "
            "it as safetensors, or as torchscript"
        ) from error


def write(chosen: Chosen, example: Tensor, card: Card) -> bytes:
    """The program; the card is in it as ``counterpoint.json``."""
    buffer = io.BytesIO()
    program = captured(chosen.predictor, example)
    extra = {"counterpoint.json": json.dumps(card, ensure_ascii=False)}
    torch.export.save(program, buffer, extra_files=extra)
    return buffer.getvalue()


def load(path: Path) -> Run:
    """Read it as anyone with PyTorch would."""
    with open(path, "rb") as file:  # by its name it would have to end in .pt2
        module = torch.export.load(file).module()

    @torch.no_grad()
    def run(images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        logits, probabilities = module(torch.from_numpy(images))
        return logits.numpy(), probabilities.numpy()

    return run


PROGRAM = Format(
    "program",
    ".pt2",
    write,
    load,
    """\
import torch

model = torch.export.load("{file}").module()
logits, probabilities = model(images)""",
)
