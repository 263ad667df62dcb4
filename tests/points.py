"""A federation whose every number can be derived by hand.

A network is two numbers w, whatever the image. All images of site A say: be at the point a; those
of site B: be at b. The loss is 1/2 |w - point|^2 with gradient w - point, so that a step of SGD
with learning rate 1/2 goes half of the way. Where a test says nothing else, w begins at (0, 0),
a = (4, 0), b = (0, 2), and a site has two images, which are one batch: one step a local epoch.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from counterpoint.data.site import Federation, Site, SiteData
from counterpoint.federation import federate
from counterpoint.folder import Notebook, RunFolder
from counterpoint.payload import Payload
from counterpoint.results import Result
from counterpoint.settings import make_settings
from counterpoint.tasks import Classification

POINTS = ((4.0, 0.0), (0.0, 2.0))
SITES = ("A", "B")
SETTINGS = {
    "local_epochs": 1,
    "batch_size": 2,
    "image_size": 8,
    "model": "tests.points:Point",
    "model_options": {},
    "augmentation": "none",
    "schedule.lr": 0.5,
    "lr_decay": 1.0,
    "weight_decay": 0.0,
    "select_last": 0.01,  # the model of the last round
    "workers": 1,
    "threads": 1,
}


class Point(nn.Module):
    """Two weights; the logits of every image are the weights."""

    def __init__(self, num_classes: int, start: tuple[float, float] = (0.0, 0.0)) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start))

    def forward(self, images: Tensor) -> Tensor:
        return self.w.expand(len(images), -1)


class BodyAndHead(nn.Module):
    """The first number is the weight of a body, the second that of a head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body, self.head = (nn.Linear(1, 1, bias=False) for _ in range(2))
        for layer in (self.body, self.head):
            nn.init.zeros_(layer.weight)

    def forward(self, images: Tensor) -> Tensor:
        one = torch.ones(len(images), 1)
        return torch.cat([self.body(one), self.head(one)], dim=1)


class BodyAndNorm(nn.Module):
    """The second number is the shift of a batch norm.

    It sees an image's mean, which is 1 at A and -1 at B; in training it takes it off again.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body, self.norm = nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1)
        nn.init.zeros_(self.body.weight)

    def forward(self, images: Tensor) -> Tensor:
        one = torch.ones(len(images), 1)
        return torch.cat([self.body(one), self.norm(images.mean((2, 3))[:, :1])], dim=1)


def pull(outputs: Tensor, target: Tensor, points: Tensor) -> Tensor:
    """1/2 |w - point|^2, the mean over the images."""
    return (outputs - points[target]).square().sum(1).mean() / 2


def pulling(points: tuple[tuple[float, float], ...] = POINTS) -> Classification:
    """The task: images of class 0 pull to the first point, those of class 1 to the second."""
    return Classification(("a", "b"), partial(pull, points=torch.tensor(points)))


@dataclass
class Played:
    """What is left of a whole run."""

    result: Result
    folder: RunFolder
    notebook: Notebook

    def model(self, site: str, name: str = "w") -> list[float]:
        """A tensor of a site's network, of the model that was chosen, as numbers."""
        found: list[float] = self.result.model(site).network.state_dict()[name].flatten().tolist()
        return found

    def down(self, name: str = "w") -> list[float]:
        """A tensor of what went down at last."""
        assert self.notebook.mean
        found: list[float] = self.notebook.mean.read(self.folder.state)[name].flatten().tolist()
        return found

    def state(self, site: str) -> Payload:
        """What a site keeps after its last training."""
        page = self.folder.state / f"round-{self.notebook.round - 1:05d}.json"
        trained = Notebook.parse(page.read_text().partition("\n")[2])
        return trained.states[site].read(self.folder.state)

    def sent(self) -> set[str]:
        """Names of what has left a site."""
        log = pd.read_csv(self.result.path / "payloads.csv")
        return set(log[log["direction"] == "up"]["name"])


def play(
    out: Path,
    method: str,
    rounds: int,
    images: tuple[int, int] = (2, 2),
    points: tuple[tuple[float, float], ...] = POINTS,
    **settings: object,
) -> Played:
    """Run a whole federation of the sites A and B with so many training images each."""
    chosen = make_settings(method, "points", SETTINGS | {"rounds": rounds} | settings)
    out.mkdir(parents=True, exist_ok=True)
    sites = []
    for label, (name, count) in enumerate(zip(SITES, images, strict=True)):
        array, total = out / f"{name}.npy", count + 2
        np.save(array, np.full((total, 3, 8, 8), 255 * (1 - label), dtype=np.uint8))
        splits = np.array(["train"] * count + ["validation", "test"])
        number = np.arange(total)
        sites.append(SiteData(name, array, np.full(total, label), splits, number, number))
    federation = Federation(
        "points", ("a", "b"), tuple(Site(name, pd.DataFrame()) for name in SITES), "given"
    )
    task = pulling(points)
    folder = RunFolder.create(out / "run", chosen, task.metrics, {})
    result = federate(folder, chosen, federation, task, sites, report=lambda event: None)
    return Played(result, folder, folder.latest()[0])
