"""A run as a landscape needs it: its models, and its sites' images."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from counterpoint import data as readers
from counterpoint.api import moved, read_data, task_of
from counterpoint.client import Client, ClientData
from counterpoint.crew import choose_device
from counterpoint.data.batches import batches, scored_at_once
from counterpoint.data.site import Federation, SiteData
from counterpoint.errors import SettingsError, StateError
from counterpoint.federation import input_shape
from counterpoint.first import laid_out
from counterpoint.landscape.view import View
from counterpoint.landscape.walk import loss_on
from counterpoint.layers import batch_norms, mixes_images
from counterpoint.predictor import Predictor
from counterpoint.runs import Run
from counterpoint.seeds import generator
from counterpoint.settings import Settings, from_dict, read_file
from counterpoint.tasks import make_task

Weights = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Scene:
    """A run with its settings and its decoded sites, by name."""

    run: Run
    settings: Settings
    federation: Federation
    sites: Mapping[str, SiteData]
    device: torch.device

    def model(self, site: str) -> Predictor:
        """The model that a site uses."""
        axes = self.federation.form.dimensions + 2
        return laid_out(self.run.result.model(site), axes).to(self.device)

    @cached_property
    def weights(self) -> Weights:
        """Parameters of the global model.

        Raises:
            SettingsError: if the sites' models differ by more than statistics.
        """
        first, *others = [weights_of(self.model(site)) for site in self.sites]
        if any(not torch.equal(other[name], first[name]) for other in others for name in first):
            raise SettingsError(
                f"{self.run.result.path} ({self.run.method}) has no global model, and so no plane "
                "around it; give runs that have one, such as fedavg or harmofl, or use --shape "
                "surface"
            )
        return first

    def trained_on(self, site: str) -> Weights:
        """Where one more round at a site takes the global model: the optimum that it pulls to.

        At the learning rate of the first round; that of the last ones may be too small to go
        anywhere.
        """
        settings, method = self.settings, self.settings.method
        shape = input_shape(self.federation, settings)
        task = task_of(settings, self.federation)
        client = Client(method, task, shape, settings.seed, self.device)
        client.take_up(ClientData(site, (self.sites[site],)), None)
        for model in client.models.values():
            model.load_state_dict(self.model(site).state_dict())
        round, epochs = method.schedule.rounds + 1, method.schedule.local_epochs
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            for _ in client.train(client.training(round, {}, epochs), round, epochs):
                pass
        return weights_of(client.models[method.local.predicts])

    def loss(self, model: Predictor, site: str, view: View) -> tuple[Callable[[], float], str]:
        """The loss of a model on a site's images, as a function, and whose statistics it takes.

        It is the task's usual loss, whatever the run was trained with, in the run's precision.
        Images are harmonised once.
        """
        task = make_task(self.federation.task, self.federation.classes)
        kind = source_of_statistics(model, view.statistics)
        schedule = self.settings.method.schedule
        most = scored_at_once(math.prod(self.sites[site].part("train").images.shape[2:]))
        mixed = self.settings.method.statistics == "batch"
        size = schedule.batch_size if mixed else most
        with torch.no_grad():
            seen = [
                (model.prepare(x), y) for x, y in self.images(site, view.split, view.images, size)
            ]
            large = self.images(site, "train", view.images, max(schedule.batch_size, most))
            calibration = [model.prepare(x) for x, _ in large] if kind == "recalibrated" else []
        precision: torch.dtype = getattr(torch, self.settings.method.schedule.precision)
        return loss_on(model.network, seen, task, calibration, precision), kind

    def images(
        self, site: str, split: str, count: int, size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """So many images of a part of a site, the same for all runs, in batches of ``size``.

        Of fewer, where the run has a limit to what the device works on at a time.
        """
        part = self.sites[site].part(split)
        order = generator("landscape", site, split)
        kept = torch.randperm(len(part), generator=order)[:count].numpy()
        some = dataclasses.replace(
            part, rows=part.rows[kept], labels=part.labels[kept], cases=part.cases[kept]
        )
        at_once = self.settings.method.schedule.at_once(size)
        for batch in batches([some], at_once, self.device):
            yield batch.images, batch.target


def scenes(
    runs: Sequence[Run], root: Path | None, progress: Callable[[str, int, int], None]
) -> Iterator[Scene]:
    """Load and decode the data of runs, which must be those that they were trained on.

    Raises:
        CounterpointError: if data are missing or have changed, or settings can't be read.
    """
    for run in runs:
        settings = from_dict(read_file(run.result.path / "settings.yaml"))
        if root is not None:
            settings = moved(settings, root)
        federation, decoded = readers.decode(
            read_data(settings),
            settings.method.schedule.image_size,
            skip_bad=settings.data.skip_bad,
            progress=lambda done, total: progress("decoding images", done, total),
        )
        if federation.fingerprint != run.result.results["data_fingerprint"]:
            raise StateError(
                f"the data are not those that {run.result.path} was trained on (images, labels or "
                "splits changed); a landscape is drawn on the same data only"
            )
        training = decoded[: len(federation.sites)]
        device = choose_device(settings.machine.device)
        yield Scene(run, settings, federation, {site.name: site for site in training}, device)


def weights_of(model: Predictor) -> Weights:
    """A copy of the network's parameters."""
    return {name: p.detach().clone() for name, p in model.network.named_parameters()}


def source_of_statistics(model: Predictor, wanted: str) -> str:
    """Whose statistics a model's batch norm normalises with: "none" without a batch norm."""
    if any(layer.track_running_stats for layer in batch_norms(model.network)):
        return wanted
    return "batch" if mixes_images(model.network) else "none"
