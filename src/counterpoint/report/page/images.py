"""The images behind a run, where they can be read; a page can do without."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

import counterpoint.data as readers
from counterpoint.api import read_data
from counterpoint.data.batches import take, take_target
from counterpoint.data.site import Federation, SiteData
from counterpoint.errors import CounterpointError
from counterpoint.methods import find_method
from counterpoint.report.page.runs import Run
from counterpoint.settings import Data, Settings


@dataclass(frozen=True, eq=False)
class Images:
    """The decoded sites of a run."""

    federation: Federation
    sites: dict[str, SiteData]

    def training(self, site: str, most: int) -> Tensor:
        """Training images (n, C, *space) of a site in 0..1, evenly spaced where they are many."""
        part = self.sites[site].part("train")
        places = np.unique(np.linspace(0, len(part) - 1, min(most, len(part))).astype(np.int64))
        return torch.from_numpy(take(part, places))

    def numbered_as(self, cases: pd.DataFrame, site: str) -> bool:
        """Whether a run's test cases of a site have the numbers that they have here."""
        return set(self.sites[site].part("test").cases.tolist()) == set(cases["case"])

    def case(self, site: str, number: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Images (n, C, *space) of one test case and their labels or masks."""
        part = self.sites[site].part("test")
        places = np.flatnonzero(part.cases == number).astype(np.int64)
        return take(part, places), take_target(part, places)


class Source:
    """A run's images, opened when they are first asked for; or the reason why they can't be."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @cached_property
    def opened(self) -> Images | str:
        """The images, or why there are none, in words."""
        try:
            return self._open()
        except CounterpointError as error:
            return f"the images can't be read here ({error})"

    def _open(self) -> Images | str:
        settings = self.run.settings
        data = {n[5:]: v for n, v in settings.items() if n.startswith("data.")}
        if not data.get("root") and str(data["name"]) == "":
            return "the run was given images that were made by hand"
        # which method it was is of no matter to its images
        chosen = Settings(find_method("local"), Data(**data), seed=self.run.seed)
        federation = read_data(chosen)
        federation, decoded = readers.decode(
            federation, int(settings["schedule.image_size"]), skip_bad=bool(data.get("skip_bad"))
        )
        if federation.fingerprint != self.run.values["data_fingerprint"]:
            return "the images found here are not those of the run, going by their fingerprint"
        return Images(federation, {site.name: site for site in decoded})


@torch.inference_mode()
def predict(model: nn.Module, images: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The class of every pixel (n, *space) of images (n, C, *space)."""
    pieces = [
        model(torch.from_numpy(images[i : i + 16])).argmax(1) for i in range(0, len(images), 16)
    ]
    answers: npt.NDArray[np.int64] = torch.cat(pieces).numpy()
    return answers
