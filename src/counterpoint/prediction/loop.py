"""Predict classes or masks of images: read, batch by batch through the network, write."""

import json
import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from counterpoint.cores import cores
from counterpoint.crew import Report, choose_device, memory_in_words
from counterpoint.data.batches import batches, scored_at_once
from counterpoint.data.masks import read_mask
from counterpoint.data.pixels import BadImageError
from counterpoint.data.saving import save_mask, save_probabilities, voxel_volume
from counterpoint.data.search import find_images
from counterpoint.data.site import Part
from counterpoint.data.volumes import geometry_of
from counterpoint.errors import DataError, SettingsError
from counterpoint.files import new_folder, write_text
from counterpoint.first import laid_out
from counterpoint.local.training import computing_in
from counterpoint.prediction.chosen import Chosen, choose_model
from counterpoint.prediction.naming import output_names
from counterpoint.prediction.reading import Words, chunks_of, form_of, read_as_trained
from counterpoint.prediction.restore import slices_of
from counterpoint.prediction.scratch import empty, stacked
from counterpoint.predictor import Predictor
from counterpoint.seeds import generator

Place = str | os.PathLike[str]
Floats = npt.NDArray[np.float32]
Row = dict[str, object]

_PIECES = {"slices": "slice", "patches": "patch", "whole": "volume"}


def predict(
    model: Place | Chosen,
    images: Place | Iterable[Place],
    *,
    site: str | None = None,
    together: bool = False,
    out: Place | None = None,
    probabilities: bool = False,
    skip_bad: bool = False,
    batch_size: int | None = None,
    device: str = "auto",
    report: Report = lambda event: None,
) -> pd.DataFrame:
    """Predict the classes of images, or of all their pixels.

    Images are read exactly as in training, so that the run's own test images get the run's own
    answers. What is done is done file by file: memory does not grow with their number.

    Args:
        model: a run's folder, a model's ``.safetensors``, or what `choose_model` gave.
        images: image files (photographs, NIfTI, DICOM), folders that are searched for them, or
            CSV files with a column ``image``; where such a table has a column ``fov``, masks are
            background outside of that field of view.
        site: whose personal model; the global model where left out.
        together: by the personal models of all sites, whose class probabilities are averaged: for
            a hospital that did not train.
        out: new folder for ``predictions.csv``, ``model.json`` (the model's card), for
            segmentation ``masks/``, and ``left_out.csv`` if files were left out; nothing is
            written where there is none.
        probabilities: write each pixel's class probabilities, too (segmentation).
        skip_bad: leave out files that can't be read, or that a table names and that are not there;
            a warning names each.
        batch_size: images that pass the network together, for less or more memory. Predictions
            do not depend on it, but for models without running statistics (statistics "batch").
        device: auto, cpu, cuda, cuda:1.
        report: is told how many files are done, and notes.

    Returns:
        The table of ``predictions.csv``. Classification: ``image``, ``predicted`` and ``p_CLASS``
        a class; files with several slices or patches have a row each, numbered from 0.
        Segmentation: ``image``, ``mask``, and for every class but the background ``pixels_CLASS``
        and, where the voxels' size is known, ``ml_CLASS``.

    Raises:
        StateError: if there is no such model or the output can't be written.
        SettingsError: if an option does not fit, or ``out`` exists.
        DataError: if there are no images, or one can't be read (unless ``skip_bad``).
        TrainingError: if there is too little memory.
    """
    chosen = model if isinstance(model, Chosen) else choose_model(model, site, together=together)
    least = 2 if chosen.needs_company else 1
    if batch_size is not None and batch_size < least:
        raise SettingsError(f"batch_size is {batch_size}; it must be {least} or more")
    if probabilities and not chosen.dense:
        raise SettingsError(
            "probabilities are in predictions.csv already; to write them by pixel is for models "
            "that segment"
        )
    left_out = _LeftOut(report) if skip_bad else None
    places = [images] if isinstance(images, str | os.PathLike) else images
    files = find_images(places, left_out.missing if left_out else None)
    place = choose_device(device)
    with nullcontext() if out is None else new_folder(Path(out)) as folder:
        work = _Work(chosen, files, folder, probabilities, left_out, batch_size, place, report)
        with memory_in_words("a smaller --batch-size, or --device cpu"):
            table = pd.DataFrame(list(work.rows()))
        if folder:
            write_text(folder / "predictions.csv", table.to_csv(index=False))
            if left_out and left_out.rows:
                write_text(folder / "left_out.csv", pd.DataFrame(left_out.rows).to_csv(index=False))
            write_text(folder / "model.json", json.dumps(chosen.card, indent=1, ensure_ascii=False))
    return table


class _LeftOut:
    """The files that are left out, and why; a warning names each."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.rows: list[Row] = []

    def add(self, path: str, why: str, said: str) -> None:
        """Note a file."""
        self.rows.append({"image": path, "why": why})
        self.report({"warning": f"{said}; left out"})

    def missing(self, image: str, path: str, line: str) -> None:
        """Note an image that a table names, of which a file is not there."""
        self.add(image, f"{path} is not there ({line})", f"{line}: {path} is not there")


@dataclass(frozen=True, eq=False)
class _Work:
    """All that stays the same from file to file."""

    chosen: Chosen
    files: dict[str, str]
    folder: Path | None
    probabilities: bool
    left_out: _LeftOut | None
    batch_size: int | None
    device: torch.device
    report: Report

    def rows(self) -> Iterator[Row]:
        """Give the table's rows, and write the masks on the way."""
        names = dict(zip(self.files, output_names(list(self.files)), strict=True))
        for model in self.chosen.predictor.modules():
            if isinstance(model, Predictor):
                laid_out(model, len(self.chosen.card["shape"]) + 1).to(self.device)
        chunks = list(chunks_of(list(self.files)))
        together = [chunks] if self.chosen.needs_company else [[chunk] for chunk in chunks]
        done = 0
        for some in together:
            counts: dict[str, int] = {}
            images = stacked(self._images(some, counts))
            if images is None:  # all of them were bad
                continue
            found = self._probabilities(images)
            start = 0
            for path, count in counts.items():
                yield from self._answer(path, names[path], found[start : start + count])
                start += count
                done += 1
                self.report({"predicted": done, "of": len(self.files)})
        if not done:
            raise DataError("none of the images can be read; nothing was predicted")

    def _images(self, chunks: list[list[str]], counts: dict[str, int]) -> Iterator[Words]:
        """Give each good file's images (k, C, S, ...), and note how many they are."""
        with ThreadPoolExecutor(cores()) as pool:
            for chunk in chunks:
                for path, images in zip(chunk, pool.map(self._try_to_read, chunk), strict=True):
                    if isinstance(images, str):
                        self._complain(path, images)
                    else:
                        counts[path] = len(images)
                        yield images

    def _try_to_read(self, path: str) -> Words | str:
        """Read a file's images, or say why they can't be read."""
        try:
            if self.files[path] and self.chosen.dense:
                read_mask(self.files[path], "", path, 2)  # so that a bad one is found early
            return read_as_trained(path, self.chosen)
        except (BadImageError, DataError) as error:
            return str(error)

    def _complain(self, path: str, why: str) -> None:
        what = why if path in why else f"{path} can't be read: {why}"
        if self.left_out is None:
            raise DataError(
                f"{what}. Nothing was written; take this file out, or leave all such files out "
                "with skip_bad=True (--skip-bad)"
            )
        self.left_out.add(path, why, what)

    @torch.inference_mode()
    def _probabilities(self, images: Words) -> Floats:
        """Class probabilities (n, classes, ...) of images, in the batches of training's scores."""
        chosen, count = self.chosen, len(images)
        size, order = self.batch_size or scored_at_once(math.prod(chosen.card["shape"][1:])), None
        if chosen.needs_company:
            if count < 2:
                raise DataError(
                    "this model normalises images by the statistics of those that are predicted "
                    "together (statistics 'batch'), so that one image alone can't be; give several"
                )
            self.report(
                {
                    "note": "this model normalises images by those that are predicted together "
                    "(statistics 'batch'): predictions depend on which images are given"
                }
            )
            size = self.batch_size or chosen.batch_size
            order = generator(chosen.seed, "evaluate", "test")  # the run's own for its test images
        numbers = np.arange(count, dtype=np.int64)
        part = Part(images, rows=numbers, labels=numbers, cases=numbers)
        found: Floats | None = None
        for batch in batches([part], size, self.device, order=order):
            with computing_in(chosen.precision, batch.images):
                logits = chosen.predictor(batch.images)
            answer = logits.float().softmax(1).cpu().numpy()
            if found is None:
                found = empty((count, *answer.shape[1:]))
            found[batch.target.cpu().numpy()] = answer
        assert found is not None  # there are images
        return found

    def _answer(self, path: str, name: str, found: Floats) -> Iterator[Row]:
        """Give the rows of a file, and write its mask."""
        if self.chosen.dense:
            yield {"image": path} | self._mask(path, name, found)
            return
        classes = self.chosen.classes
        piece = _PIECES[form_of(self.chosen, path).volumes]
        for number, one in enumerate(found):
            row: Row = {"image": path}
            if len(found) > 1:
                row[piece] = number
            row["predicted"] = classes[int(one.argmax())]
            yield row | {f"p_{c}": round(float(p), 6) for c, p in zip(classes, one, strict=True)}

    def _mask(self, path: str, name: str, found: Floats) -> Row:
        """Write a file's mask, and count what is in it."""
        shape = geometry_of(path).shape
        mask = np.empty(shape, dtype=np.uint8)
        kept = []
        for number, one in enumerate(slices_of(found, shape, form_of(self.chosen, path))):
            mask[number] = one.argmax(0)
            if self.probabilities and self.folder:
                kept.append(one)
        if self.files[path]:
            mask[read_mask(self.files[path], "", path, 2) == 0] = 0
        row: Row = {}
        if self.folder:
            row["mask"] = self._save(save_mask, "masks", name, path, mask)
        if kept:
            row["probabilities"] = self._save(save_probabilities, "probabilities", name, path, kept)
        volume = voxel_volume(path)
        for index, label in enumerate(self.chosen.classes[1:], start=1):
            count = int((mask == index).sum())
            row[f"pixels_{label}"] = count
            if volume is not None:
                row[f"ml_{label}"] = round(count * volume, 6)
        return row

    def _save(self, save: Any, kind: str, name: str, path: str, values: Any) -> str:
        """Write a file below the folder and return its path there."""
        assert self.folder is not None
        stem = self.folder / kind / name
        stem.parent.mkdir(parents=True, exist_ok=True)
        return str(save(stem, path, values).relative_to(self.folder).as_posix())
