"""Write a model in a format, with its card, after checking that it predicts as the model does."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from counterpoint.errors import SettingsError, nearest
from counterpoint.exporting.card import full_card, page
from counterpoint.exporting.compare import (
    difference,
    given_images,
    images_of_run,
    probabilities_in,
)
from counterpoint.exporting.format import Format
from counterpoint.exporting.onnx import ONNX
from counterpoint.exporting.program import PROGRAM
from counterpoint.exporting.tensors import SAFETENSORS
from counterpoint.exporting.torchscript import TORCHSCRIPT
from counterpoint.files import write_bytes, write_error, write_text
from counterpoint.prediction.chosen import Chosen, choose_model
from counterpoint.prediction.loop import Place

FORMATS: dict[str, Format] = {one.name: one for one in (SAFETENSORS, ONNX, TORCHSCRIPT, PROGRAM)}


@dataclass(frozen=True)
class Exported:
    """What was written, and how well it agrees with the model it was made of.

    Attributes:
        file: the model.
        card: its card for people, a Markdown page.
        random: largest difference of a probability on random images.
        real: the same on real images; None where there were none.
        images: how many real images (slices, patches) there were.
        precision: largest difference on the real images to the run's own numbers, where the run
            computed in another precision than float32, which is what all files compute in.
    """

    file: Path
    card: Path
    random: float
    real: float | None
    images: int
    precision: float | None


def export(
    model: Place | Chosen,
    out: Place,
    *,
    site: str | None = None,
    format: str | None = None,
    images: Place | Iterable[Place] | None = None,
) -> Exported:
    """Write a run's personal or global model as a file that goes elsewhere, with a model card.

    The file takes images (N, C, S, S), or (N, 1, S, S, S), float32 in 0..1, of any number N;
    harmonising and scaling are in it. It gives ``logits`` and ``probabilities``, both
    (N, classes) or (N, classes, *space). (Safetensors hold the weights instead, for
    `counterpoint.load_model`.) Beside it, ``NAME.md`` says where the model comes from.

    Before anything is left, the file is read again and compared with the model on random images
    and on real ones.

    Args:
        model: a run's folder, a model's ``.safetensors``, or what `choose_model` gave.
        out: the file to write; it must not exist.
        site: whose personal model; the global model where left out.
        format: safetensors, onnx, torchscript or program (torch.export); by the suffix of ``out``
            where left out: .safetensors, .onnx, .ts or .pt2.
        images: files or folders to compare on; where left out, test images of the run's data, if
            they are still there.

    Raises:
        SettingsError: if the format is unknown or its packages are missing, or ``out`` exists.
        StateError: if there is no such model, it can't be exported so, or what comes out differs
            from the model by more than 1e-4.
        DataError: if ``images`` can't be read.
    """
    chosen = model if isinstance(model, Chosen) else choose_model(model, site)
    chosen.predictor.cpu()
    out = Path(out)
    kind = _format(out, format)
    page_file = out.with_name(f"{out.name}.md")
    for file in (out, page_file):
        if file.exists():
            raise SettingsError(f"{file} exists already and is left as it is; choose another --out")
    shape = tuple(chosen.card["shape"])
    drawn = torch.Generator().manual_seed(1)
    # Where batch norm takes the images' own statistics, two or three small ones are nearly alike in
    # the deepest layers, and the model itself makes a hundred times as much of a rounding.
    counts = (8, 9) if chosen.card["statistics"] == "batch" else (2, 3)
    random = [torch.rand(n, *shape, generator=drawn).numpy() for n in counts]
    card = full_card(chosen)
    data = kind.write(chosen, torch.from_numpy(random[0]), card)
    real = images_of_run(chosen) if images is None else given_images(images, chosen)
    precision = None
    if real is not None and chosen.precision != torch.float32:
        full, own = (probabilities_in(p, chosen, real) for p in (torch.float32, chosen.precision))
        precision = float(np.abs(full - own).max())
    aside = out.with_name(f".{os.getpid()}.{out.name}")
    try:
        _put(aside, data, out)
        run = kind.load(aside)
        on_random = max(difference(chosen, run, one) for one in random)
        on_real = None if real is None else difference(chosen, run, real)
        count = 0 if real is None else len(np.unique(real, axis=0))
        done = Exported(out, page_file, on_random, on_real, count, precision)
        aside.unlink()
        write_bytes(out, data)
        try:
            write_text(page_file, page(chosen, card, kind, done))
        except BaseException:
            out.unlink()  # it is not left without its card
            raise
    finally:
        with suppress(OSError):  # as where its folder can't be made
            aside.unlink(missing_ok=True)
    return done


def _put(aside: Path, data: bytes, out: Path) -> None:
    """Write a file that is only to be read again, beside the one that is asked for."""
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(data)
    except OSError as error:
        raise write_error(out, error) from error


def _format(out: Path, name: str | None) -> Format:
    if name is None:
        found = next((one for one in FORMATS.values() if out.name.endswith(one.suffix)), None)
        if found is None:
            endings = ", ".join(f"{one.suffix} ({one.name})" for one in FORMATS.values())
            raise SettingsError(
                f"{out}: the suffix does not say which format is wanted; it may be {endings}, or "
                "name the format with --format"
            )
        return found
    if name not in FORMATS:
        raise SettingsError(
            f"unknown format '{name}'{nearest(name, list(FORMATS))}; known are {', '.join(FORMATS)}"
        )
    return FORMATS[name]
