"""Choose a model, of a run or a file of its own, with how it was given images in training."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from counterpoint.data.site import Form
from counterpoint.errors import SettingsError, StateError
from counterpoint.layers import mixes_images
from counterpoint.predictor import Together, load_model
from counterpoint.results import Result
from counterpoint.settings import read_file


@dataclass(frozen=True, eq=False)
class Chosen:
    """A model, and how it is given images.

    Attributes:
        file: where it is saved.
        predictor: in evaluation mode, on the CPU: a `Predictor`, or several that vote.
        card: what is saved beside it; see `counterpoint.load_model`.
        form: how images are read; None for models of volumes that do not say (saved before they
            did).
        precision: type in which the network computes.
        batch_size: of training.
        seed: of the run.
        run: the run's folder, where it is known.
    """

    file: Path
    predictor: nn.Module
    card: dict[str, Any]
    form: Form | None
    precision: torch.dtype
    batch_size: int
    seed: int
    run: Path | None

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return list(self.card["classes"])

    @property
    def dense(self) -> bool:
        """Whether every pixel has a class."""
        return bool(self.card["task"] == "segmentation")

    @property
    def size(self) -> int:
        """Side in pixels of the images that the network sees."""
        return int(self.card["shape"][-1])

    @property
    def needs_company(self) -> bool:
        """Whether an image's prediction depends on those that are predicted with it."""
        return mixes_images(self.predictor)


def choose_model(
    place: str | os.PathLike[str], site: str | None = None, *, together: bool = False
) -> Chosen:
    """Load the model that ``site`` uses out of a run's folder, or its global model.

    ``place`` may also be a model's own file (``.safetensors``); then there is no site to choose.
    ``together`` takes the personal models of all sites, whose class probabilities are averaged: as
    a site that was held out is scored.

    Raises:
        StateError: if there is no model, or it can't be read.
        SettingsError: if there is none of this site, or a site is named with a file or with
            ``together``.
    """
    place = Path(place)
    if not place.exists():
        raise StateError(f"{place} is not there; give a run's folder or a model's .safetensors")
    if together:
        return _together(place, site)
    if place.is_dir():
        file = Result(place).model_file(site)
        settings: dict[str, Any] = read_file(place / "settings.yaml")
    elif site is None:
        file, settings = place, {}
    else:
        raise SettingsError(
            f"{place} is a single model, so there is no site to choose; leave --site out, or give "
            "the run's folder"
        )
    predictor, card = load_model(file)
    schedule = settings.get("schedule", {})
    return Chosen(
        file,
        predictor,
        card,
        _form(card, settings.get("data", {})),
        getattr(torch, card.get("precision", schedule.get("precision", "float32"))),
        int(card.get("batch_size", schedule.get("batch_size", 16))),
        int(card.get("seed", settings.get("seed", 1))),
        place if place.is_dir() else None,
    )


def _together(run: Path, site: str | None) -> Chosen:
    """The personal models of all sites as one."""
    files = sorted(run.glob("models/personal/*.safetensors"))
    if site is not None or not files:
        raise SettingsError(
            "'together' (--together) asks all personal models of a run, so it goes with no --site "
            f"and with the folder of a run that has some; {run} has "
            f"{'one global model' if (run / 'models' / 'global.safetensors').is_file() else 'none'}"
        )
    each = [choose_model(run, str(load_model(file)[1]["site"])) for file in files]
    card = {name: value for name, value in each[0].card.items() if name != "site"}
    voters = Together([one.predictor for one in each]).eval()
    return replace(each[0], file=run, predictor=voters, card=card | {"together": len(files)})


def _form(card: dict[str, Any], data: dict[str, Any]) -> Form | None:
    """How images are read: as the card says, else the run's settings."""
    said = card.get("form")
    if said is None and data.get("volumes") is not None:
        said = {name: data.get(name) for name in ("volumes", "neighbours", "window")}
    if said is None:
        return None
    window = said.get("window")
    return Form(
        said["volumes"],
        bool(said.get("neighbours")),
        None if window is None else (float(window[0]), float(window[1])),
    )
