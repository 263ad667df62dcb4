"""What the shell may complete, without importing anything that takes time."""

import re
from collections.abc import Callable
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[1]

WORDS = {
    "task": ("classification", "segmentation"),
    "protocol": ("grouped", "published", "given", "patches"),
    "volumes": ("slices", "patches", "whole"),
    "augmentation": ("prrfl", "flips", "none"),
    "loss": (
        "default",
        "cross-entropy",
        "balanced",
        "joint",
        "dice-ce",
        "dice-focal",
    ),
    "optimizer": ("sgd", "adam"),
    "precision": ("float32", "bfloat16"),
    "statistics": ("averaged", "local", "recalibrated", "batch", "group"),
    "model": ("slim-vgg16", "densenet121", "unet"),
    "device": ("auto", "cpu", "cuda"),
    "log": ("tensorboard", "mlflow"),
    "train_limit": ("smallest",),
    "format": ("safetensors", "onnx", "torchscript", "program"),
    "source": ("prrfl", "harmofl"),
    "budget": ("gradients", "epochs"),
    "split of a table": ("test", "validation"),
    "figure": ("retrogress", "convergence", "landscape", "sweep", "ablation", "sites"),
    "against": ("rounds", "gradients", "bytes"),
    "shape": ("surface", "line", "plane"),
    "split": ("validation", "train"),
    "statistics of a landscape": ("recalibrated", "saved"),
}
"""Values that are fixed where they are read, in modules that take seconds to import."""

KIND = r'kind: ClassVar\[str\] = "([^"]+)"'
WRITTEN = {
    "method": ("methods/*.py", r'METHOD\b[^\0]*?\bname="([^"]+)"'),
    "data": ("data/sets/*.py", r'DATASET\b[^\0]*?\bname="([^"]+)"'),
    "local": ("local/*.py", KIND),
    "aggregation": ("aggregation/*.py", KIND),
    "server": ("server_update/*.py", KIND),
    "harmonise": ("harmonise.py", KIND),
    "privacy": ("privacy/choice.py", KIND),
    "download": ("data/downloads.py", r'\bname="([^"]+)"'),
}
"""Where the names of things are written, and how: one file a thing, so a new one is found."""


def names(what: str) -> list[str]:
    """The names that an option or argument may have.

    >>> "prrfl" in names("method"), "phantom" in names("data"), "pfa" in names("aggregation")
    (True, True, True)
    """
    if what in WORDS:
        return list(WORDS[what])
    files, pattern = WRITTEN[what]
    texts = (file.read_text(encoding="utf-8") for file in sorted(HOUSE.glob(files)))
    return sorted({name for text in texts for name in re.findall(pattern, text)})


def completes(what: str) -> Callable[[str], list[str]]:
    """The completion of a value, as typer's ``autocompletion`` takes it.

    Where no name fits, shells complete files and folders by themselves.

    >>> completes("optimizer")("s")
    ['sgd']
    """

    def fitting(incomplete: str) -> list[str]:
        return [name for name in names(what) if name.startswith(incomplete)]

    return fitting
