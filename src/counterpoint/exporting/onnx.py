"""ONNX, for ONNX Runtime and what else reads it."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from counterpoint.errors import SettingsError
from counterpoint.exporting.format import Card, Format, Run
from counterpoint.exporting.program import captured
from counterpoint.prediction.chosen import Chosen


def write(chosen: Chosen, example: Tensor, card: Card) -> bytes:
    """One file with all weights; the card is in its metadata, as ``counterpoint``."""
    require_packages()
    program = captured(chosen.predictor, example)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns that torchvision's operators are not there
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                program,
                dynamo=True,
                input_names=["images"],
                output_names=["logits", "probabilities"],
                dynamic_shapes={"images": {0: "batch"}},
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert made is not None
    proto = made.model_proto
    proto.producer_name = "counterpoint"
    entry = proto.metadata_props.add()
    entry.key, entry.value = "counterpoint", json.dumps(card, ensure_ascii=False)
    data: bytes = proto.SerializeToString()
    return data


def load(path: Path) -> Run:
    """Read it with ONNX Runtime, on the CPU."""
    require_packages()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        logits, probabilities = session.run(["logits", "probabilities"], {"images": images})
        return logits, probabilities

    return run


def require_packages() -> None:
    """Raise SettingsError if what ONNX needs is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"ONNX needs the package {error.name}; pip install 'counterpoint[export]'"
        ) from error


ONNX = Format(
    "onnx",
    ".onnx",
    write,
    load,
    """\
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
logits, probabilities = session.run(["logits", "probabilities"], {{"images": images}})""",
)
