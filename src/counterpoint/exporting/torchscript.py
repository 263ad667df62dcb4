"""TorchScript, for programs that read nothing else: PyTorch itself has given it up for .pt2."""

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from counterpoint.errors import StateError, first_line
from counterpoint.exporting.format import Card, Format, Run
from counterpoint.exporting.portable import Portable
from counterpoint.prediction.chosen import Chosen


def write(chosen: Chosen, example: Tensor, card: Card) -> bytes:
    """The traced model; the card is in it as ``counterpoint.json``."""
    buffer = io.BytesIO()
    extra = {"counterpoint.json": json.dumps(card, ensure_ascii=False)}
    portable = Portable(chosen.predictor).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that it is deprecated is said in the documentation
        try:
            traced = torch.jit.trace(portable, example)  # type: ignore[no-untyped-call]
        except Exception as error:  # whatever a network may do that can't be traced
            first = first_line(error)
            raise StateError(
                f"this network can't be traced ({type(error).__name__}: {first}); export it as "
                "safetensors, or as a program"
            ) from error
        torch.jit.save(traced, buffer, _extra_files=extra)
    return buffer.getvalue()


def load(path: Path) -> Run:
    """Read it as anyone with PyTorch would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def run(images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        logits, probabilities = module(torch.from_numpy(images))
        return logits.numpy(), probabilities.numpy()

    return run


TORCHSCRIPT = Format(
    "torchscript",
    ".ts",
    write,
    load,
    """\
import torch

model = torch.jit.load("{file}")
logits, probabilities = model(images)""",
)
