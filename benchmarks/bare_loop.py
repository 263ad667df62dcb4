"""A federated run against a hand-written loop that does the same steps and the same evaluations.

The loop holds all tensors and all sites' models in memory, saves nothing and writes nothing; it
shares the networks and the formulas with the library, none of its machinery. Both keep freed memory
(`counterpoint.allocator`), start from the same weights, see the same batches, and must have the
same validation loss after each of the first two rounds; later on, rounding has grown. What both
leave out of the time is start-up (imports, decoding, the first call) and the end (test, intervals,
figure), which is given separately.
"""

import copy
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import counterpoint
from benchmarks.measure import Times, arguments, table, write
from counterpoint.aggregation import ProgressiveFourier
from counterpoint.data import decode
from counterpoint.data.batches import split_into_batches
from counterpoint.data.site import Federation
from counterpoint.first import first_predictor
from counterpoint.layers import normalisation_parameters, running_statistics, spectral_weights
from counterpoint.local import DeputyTransfer
from counterpoint.seeds import generator
from counterpoint.settings import Settings, make_settings
from counterpoint.spectrum import amplitude_of, from_low_frequencies, low_frequencies
from counterpoint.tasks import make_task
from counterpoint.tasks.distillation import kl_divergence

LAYOUT = torch.channels_last


@dataclass
class Bare:
    """One site: its tensors, its models, their optimisers."""

    name: str
    images: dict[str, Tensor]
    targets: dict[str, Tensor]
    models: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)


def loss_of(outputs: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy; for masks (cross-entropy + soft Dice) / 2."""
    entropy = F.cross_entropy(outputs, target)
    if target.dim() == 1:
        return entropy
    p = outputs.softmax(1)
    truth = F.one_hot(target, p.shape[1]).movedim(-1, 1).float()
    both, all_ = (p * truth).sum((2, 3)), p.sum((2, 3)) + truth.sum((2, 3))
    return (entropy + (1 - (2 * both + 1e-5) / (all_ + 1e-5)).mean()) / 2


@torch.inference_mode()
def evaluate(site: Bare, part: str) -> dict[str, tuple[float, float]]:
    """Score (macro-F1, Dice) and loss of each model."""
    images, targets = site.images[part], site.targets[part]
    found = {}
    for role, model in site.models.items():
        model.eval()
        outputs = torch.cat(
            [
                model(images[i : i + 32].contiguous(memory_format=LAYOUT))
                for i in range(0, len(images), 32)
            ]
        )
        model.train()
        answers, k = outputs.argmax(1), outputs.shape[1]
        if targets.dim() == 1:
            counts = torch.bincount(targets * k + answers, minlength=k * k).view(k, k)
            both = counts.sum(0) + counts.sum(1)
            score = (2 * counts.diag()[both > 0] / both[both > 0]).mean()
            loss = loss_of(outputs, targets)
        else:
            inner, total = ((answers > 0) & (targets > 0)), ((answers > 0).int() + (targets > 0))
            dice = 2 * inner.sum((1, 2)) / total.sum((1, 2))
            score = dice[~dice.isnan()].mean()
            loss = torch.stack(
                [loss_of(z[None], y[None]) for z, y in zip(outputs, targets, strict=True)]
            ).mean()
        found[role] = (score.item(), loss.item())
    return found


def train(site: Bare, settings: Settings, round: int) -> None:
    """The local epochs of a round, scored after each."""
    schedule = settings.method.schedule
    order = generator(settings.seed, "train", site.name, round)
    images, targets = site.images["train"], site.targets["train"]
    stage = ""
    for epoch in range(schedule.local_epochs):
        if len(site.models) == 2:
            if epoch:
                phi = {role: of[0] for role, of in evaluate(site, "train").items()}
                stage = DeputyTransfer().next_stage(stage, phi["personal"], phi["deputy"])
            else:
                stage = "recover"
        shuffled = torch.randperm(len(images), generator=order)
        for cut in split_into_batches(len(images), schedule.batch_size):
            batch = images[shuffled[cut]].contiguous(memory_format=LAYOUT)
            target = targets[shuffled[cut]]
            outputs = {role: model(batch) for role, model in site.models.items()}
            for role, output in outputs.items():
                loss = loss_of(output, target)
                if role == "personal" and stage != "recover":
                    loss = loss + kl_divergence(outputs["deputy"], output)
                if role == "deputy" and stage != "sublimate":
                    loss = loss + kl_divergence(outputs["personal"], output)
                site.optimizers[role].zero_grad()
                loss.backward()
                site.optimizers[role].step()
        evaluate(site, "validation")


@torch.no_grad()
def average(sites: list[Bare]) -> None:
    """FedAvg: the mean of all weights and running statistics, summed as the server does."""
    networks = [site.models["model"] for site in sites]
    kept = [dict(n.named_parameters()) | running_statistics(n) for n in networks]
    for name in kept[0]:
        mean = torch.stack([of[name].double() for of in kept]).mean(0)
        for of in kept:
            of[name].copy_(mean)


@torch.no_grad()
def mix(sites: list[Bare], progress: float) -> None:
    """PFA: the mean of the low-frequency amplitudes."""
    deputies = [site.models["deputy"] for site in sites]
    radius = ProgressiveFourier().radius(progress)
    spectral, local = spectral_weights(deputies[0]), normalisation_parameters(deputies[0])
    for rows in zip(*(network.named_parameters() for network in deputies), strict=True):
        name, weights = rows[0][0], [weight for _, weight in rows]
        if name in local:
            continue
        if name not in spectral:
            mean = torch.stack(weights).mean(0)
            for weight in weights:
                weight.copy_(mean)
            continue
        cut = [low_frequencies(weight, radius) for weight in weights]
        bands = [band for band in cut if band is not None]
        if not bands:  # a side too short: nothing is shared
            continue
        sizes = [amplitude_of(band) for band in bands]
        mean = torch.stack(sizes).mean(0)
        for weight, band, size in zip(weights, bands, sizes, strict=True):
            weight.add_(from_low_frequencies(band * (mean / size - 1), weight.shape))


def bare_run(settings: Settings, sites: list[Bare]) -> list[float]:
    """All rounds; the validation loss after each, mean over the sites."""
    schedule, losses = settings.method.schedule, []
    for round in range(1, schedule.rounds + 2):
        if round > 1 and settings.method.name == "fedavg":
            average(sites)
        elif round > 1:
            mix(sites, (round - 2) / schedule.rounds)
        scored = []
        for site in sites:
            scored.append(evaluate(site, "validation")[settings.method.local.predicts][1])
            if round <= schedule.rounds:
                if not (schedule.keep_optimizer and site.optimizers):
                    site.optimizers = {r: optimizer(m, settings) for r, m in site.models.items()}
                train(site, settings, round)
        losses.append(sum(scored) / len(scored))
    return losses[1:]


def optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """The optimiser of the schedule."""
    schedule = settings.method.schedule
    decay = schedule.weight_decay
    if schedule.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=schedule.lr, weight_decay=decay)
    return torch.optim.SGD(model.parameters(), lr=schedule.lr, weight_decay=decay)


def bare_sites(settings: Settings, federation: Federation) -> list[Bare]:
    """The sites with all they need in memory."""
    schedule = settings.method.schedule
    federation, decoded = decode(federation, schedule.image_size)
    task = make_task(federation.task, federation.classes, schedule.loss)
    shape = (3, schedule.image_size, schedule.image_size)
    first = first_predictor(settings.method, task, shape, settings.seed).to(memory_format=LAYOUT)
    sites = []
    for one in decoded:
        images, targets = {}, {}
        for name in ("train", "validation"):
            part = one.part(name)
            images[name] = torch.from_numpy(part.images[part.rows]).float() / 255
            wanted = part.labels if part.targets is None else part.targets[part.rows]
            targets[name] = torch.from_numpy(wanted).long()
        models = {role: copy.deepcopy(first).train() for role in settings.method.local.roles}
        sites.append(Bare(one.name, images, targets, models))
    return sites


class Watch:
    """Takes the time of a run between its events: start-up, rounds, end."""

    def __init__(self) -> None:
        self.marks: dict[str, tuple[float, float]] = {}
        self.mark("called")

    def mark(self, name: str) -> None:
        """Note wall and processor time."""
        self.marks[name] = (time.perf_counter(), time.process_time())

    def __call__(self, event: dict[str, object]) -> None:
        """Hear what a run reports."""
        if "from" in event:
            self.mark("rounds begin")
        if "validation" in event:
            self.mark("rounds end")

    def between(self, start: str, end: str) -> tuple[float, float]:
        """Wall and processor seconds."""
        a, b = self.marks[start], self.marks[end]
        return b[0] - a[0], b[1] - a[1]


def measure(method: str, options: dict[str, Any], turns: int) -> list[object]:
    """One line of the table."""
    federation = counterpoint.load(
        "phantom", train_limit=options["train_limit"], task=options["task"]
    )
    settings = make_settings(method, "phantom", options)
    mine, bare, ends = Times([], []), Times([], []), []
    for turn in range(turns):

        def federated() -> list[float]:
            with tempfile.TemporaryDirectory() as folder:
                watch = Watch()
                result = counterpoint.run(
                    method, "phantom", out=Path(folder) / "run", report=watch, settings=options
                )
                watch.mark("returned")
                for kept, value in zip(
                    (mine.wall, mine.processor),
                    watch.between("rounds begin", "rounds end"),
                    strict=True,
                ):
                    kept.append(value)
                ends.append(watch.between("rounds end", "returned")[0])
                rows = result.scores
                rows = rows[(rows["moment"] == "merged") & (rows["split"] == "validation")]
                rows = rows[rows["model"] == settings.method.local.predicts]
                return rows.groupby("round")["loss"].mean().tolist()

        def by_hand() -> list[float]:
            sites = bare_sites(settings, federation)
            wall, processor = time.perf_counter(), time.process_time()
            losses = bare_run(settings, sites)
            bare.wall.append(time.perf_counter() - wall)
            bare.processor.append(time.process_time() - processor)
            return losses

        sides: list[Callable[[], list[float]]] = [federated, by_hand]
        losses = [side() for side in (sides if turn % 2 else sides[::-1])]
        for one, other in list(zip(*losses, strict=True))[:2]:
            assert abs(one - other) < 5e-3, losses  # the same work; rounding grows
    return [
        mine.median,
        bare.median,
        f"{mine.ratio(bare):.3f}",
        f"{mine.ratio(bare, 'processor'):.3f}",
        sorted(ends)[len(ends) // 2],
    ]


SAID = """\
4 sites, 2 local epochs. What a visit costs beside its training does not grow with the images:
reading, hashing and writing the site's state and model, so that a killed run goes on. It is 93 MB a
model for the U-Net, with Adam's moments. In the first three rounds these files are new, which takes
longest; later on they are written over those of earlier rounds."""
CASES = [
    ("fedavg", "classification", 48, 2),
    ("fedavg", "classification", 200, 1),
    ("prrfl", "classification", 48, 2),
    ("fedavg", "segmentation", 24, 6),
    ("prrfl", "segmentation", 24, 6),
]
"""Method, task, most training images a site, rounds."""
MANY = [("fedavg", "segmentation", 96, 1), ("prrfl", "segmentation", 96, 1)]
"""With --many: what a visit writes is the same, and its training takes longer."""
HEAD = [
    "run",
    "images a site",
    "rounds",
    "s",
    "s by hand",
    "ratio",
    "ratio of CPU time",
    "s for test and the rest",
    "wanted ratio",
]


def main() -> None:
    """FedAvg and PRR-FL, classification and segmentation."""
    logging.disable()
    chosen = arguments(__doc__, "--many")
    rows, size = [], 32 if chosen.quick else 128
    turns = 1 if chosen.quick else chosen.turns or 3
    for method, task, images, rounds in MANY if chosen.many else CASES:
        options = {
            "task": task,
            "rounds": min(rounds, 2) if chosen.quick else rounds,
            "local_epochs": 2,
            "image_size": size,
            "batch_size": 16,
            "augmentation": "none",
            "train_limit": 8 if chosen.quick else images,
            "workers": 1,
            "threads": chosen.threads,
        }
        found = measure(method, options, turns)
        model = "slim VGG16" if task == "classification" else "U-Net"
        limit = f"{options['train_limit']} or fewer"
        row = [f"{method}, {model} {size}x{size}", limit, options["rounds"]]
        rows.append([*row, *found, "at most 1.03"])
        text = table(HEAD, rows) + f"\n\nMedians of {turns} turn(s); " + SAID
        name = "bare_loop_many" if chosen.many else "bare_loop"
        write(name, "A run against a hand-written loop of the same work", text)


if __name__ == "__main__":
    main()
