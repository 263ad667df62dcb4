"""The side of the federation that works inside a hospital.

A round, at each site: merge the mean, score (just after communication), train the local epochs,
score (just before the next communication), share.
"""

import copy
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from counterpoint.aggregation import Exchange
from counterpoint.aggregation.all import merge_plainly
from counterpoint.data.augment import AUGMENTATIONS
from counterpoint.data.batches import Batch, batches, in_parts, scored_at_once
from counterpoint.data.site import SiteData
from counterpoint.errors import TrainingError
from counterpoint.first import first_predictor, laid_out
from counterpoint.layers import batch_counters, running_statistics
from counterpoint.local import Training
from counterpoint.local.training import evaluate, squared_distance
from counterpoint.methods import Method
from counterpoint.optimizer import load_optimizer, make_optimizer, optimizer_tensors
from counterpoint.payload import Payload
from counterpoint.perturbation import Perturbation
from counterpoint.predictor import Predictor, Together
from counterpoint.privacy import PayloadNoise, RecordNoise
from counterpoint.privacy.gaussian import Source, seeded
from counterpoint.privacy.payloads import known_to_all, protect, units_of, variances_from_zero
from counterpoint.privacy.records import (
    NOISED,
    Chance,
    NoisedGradient,
    image_by_image,
    steps_of,
)
from counterpoint.seeds import derive_seed, generator
from counterpoint.statistics import recalibrate
from counterpoint.tasks import Scorer, Task

STATISTICS = "statistics."

Row = dict[str, object]


@dataclass(frozen=True)
class ClientData:
    """The data that a client works on: its own site, or every site where training is pooled."""

    name: str
    sites: tuple[SiteData, ...]

    @property
    def images(self) -> int:
        """Number of training images."""
        return sum(len(site.part("train")) for site in self.sites)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Labels of the training images."""
        return np.concatenate([site.part("train").labels for site in self.sites])


@dataclass
class Visit:
    """What a round at a site gives: what leaves it, its scores, and its state till next time."""

    site: str
    rows: list[Row] = field(default_factory=list)
    payload: Payload = field(default_factory=dict)
    state: Payload = field(default_factory=dict)
    candidate: Payload = field(default_factory=dict)
    """The predicting model just after the merge."""
    common: bool = False
    """Whether there is nothing in it but the mean, and the weights that all sites start from."""
    weight: float = 1.0
    gradients: int = 0
    """Images that a gradient was computed for."""


class Client:
    """Live models that one site after another takes up: memory does not grow with the sites.

    Between rounds a site is only its state, a flat mapping of names to tensors. All randomness
    comes from generators seeded by run, site and round, so a state is all that is needed to go on.
    """

    def __init__(
        self, method: Method, task: Task, shape: tuple[int, ...], seed: int, device: torch.device
    ) -> None:
        self.method, self.task, self.seed, self.device = method, task, seed, device
        self.schedule = method.schedule
        self.precision: torch.dtype = getattr(torch, self.schedule.precision)
        first = first_predictor(method, task, shape, seed)
        # All models of all sites start from the same weights.
        self._initial = first.state_dict()
        self.models: dict[str, Predictor] = {
            role: laid_out(copy.deepcopy(first), len(shape) + 1).to(device)
            for role in method.local.roles
        }
        self.shared = self.models[method.local.shared]
        self.optimizers = {
            role: make_optimizer(model, self.schedule) for role, model in self.models.items()
        }
        self.perturbation = (
            Perturbation(method.perturbation, method.adaptive) if method.perturbation else None
        )
        self.pixels = math.prod(shape[1:])
        self.first_network = (
            copy.deepcopy(first.network) if method.privacy.kind == "payload" else None
        )
        self.data, self.site_task = ClientData("", ()), task
        self.memory: Payload = {}

    def visit(
        self, data: ClientData, state: Payload | None, mean: Payload | None, round: int
    ) -> Iterator[Row | Visit]:
        """Work one round at a site; yields a row for every score on the way, the visit at last.

        Args:
            data: the site's data.
            state: what the site's last visit left; None at the first.
            mean: the mean of the round before; None in the first round.
            round: counted from 1; one more than the schedule's rounds only merges and scores.

        Raises:
            TrainingError: if a loss is not finite, naming round, site and epoch.
        """
        visit = Visit(data.name)
        mean = None if mean is None else variances_from_zero(mean)
        self.take_up(data, state)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "layers", data.name, round))
            if mean is not None:
                self.merge(mean, round - 1)
            merged = {"round": round - 1, "moment": "merged" if round > 1 else "start", "epoch": 0}
            for row in self.score("validation"):
                self._require_finite(row["loss"], f"round {round - 1}, just after the merge", row)
                visit.rows.append(merged | row)
                yield visit.rows[-1]
            visit.candidate = self.predictor()
            visit.common = self.is_common(visit.candidate, mean or {})
            if visit.common:  # how many batches a site has seen is its own, and of no use here
                counters = batch_counters(self.models[self.method.local.predicts])
                visit.candidate |= {name: self._initial[name] for name in counters}
            last = round > self.schedule.rounds
            epochs = self.schedule.finetune_epochs if last else self.schedule.local_epochs
            if epochs:
                training = self.training(round, mean or {}, epochs)
                for row in self.train(training, round, epochs):
                    visit.rows.append(row)
                    yield row
                visit.gradients = training.gradients
                if training.noised:  # how many were drawn by chance is the site's own
                    visit.gradients = data.images * epochs * len(training.steps)
                if last:
                    visit.candidate, visit.common = self.predictor(), False
                else:
                    visit.payload = self.protected(self.share(round, training), round, mean or {})
                    visit.weight = self.weight(training)
        if not last:  # after it, nothing is gone on with
            visit.state = self.put_down(visit.payload or mean or {})
        yield visit

    def take_up(self, data: ClientData, state: Payload | None) -> None:
        """Make the live models those of a site."""
        self.data, self.site_task = data, self.task.fitted(data.labels)
        self.memory = {} if state is None else _below("memory/", state)
        for role, model in self.models.items():
            prefix = f"model/{role}/"
            model.load_state_dict(self._initial | _below(prefix, state or {}))
            self.optimizers[role] = make_optimizer(model, self.schedule)
            if state is not None and self.schedule.keep_optimizer:
                load_optimizer(self.optimizers[role], _below(f"optimizer/{role}/", state))

    def put_down(self, shared: Payload) -> Payload:
        """The site's state, on the CPU, without the tensors that the next mean overwrites."""
        state: Payload = {f"memory/{name}": tensor for name, tensor in self.memory.items()}
        brought = {f"network.{name.removeprefix(STATISTICS)}" for name in shared}
        for role, model in self.models.items():
            left_out = brought if role == self.method.local.shared else set()
            own = {n: t for n, t in model.state_dict().items() if n not in left_out}
            state |= {f"model/{role}/{name}": tensor for name, tensor in own.items()}
            if self.schedule.keep_optimizer:
                tensors = optimizer_tensors(self.optimizers[role])
                state |= {f"optimizer/{role}/{name}": tensor for name, tensor in tensors.items()}
        return _copied(state)

    def predictor(self) -> Payload:
        """The predicting model's state, on the CPU."""
        return _copied(self.models[self.method.local.predicts].state_dict())

    def is_common(self, model: Payload, mean: Payload) -> bool:
        """Whether every site that has the mean has this very model: nothing in it is the site's."""
        brought = {f"network.{name.removeprefix(STATISTICS)}": t for name, t in mean.items()}
        known = self._initial | mean | brought
        counters = batch_counters(self.models[self.method.local.predicts])
        return all(
            torch.equal(tensor, known[name].cpu().to(tensor.dtype))
            for name, tensor in model.items()
            if tensor.dtype != torch.bool and name not in counters  # flags turn with the merge
        )

    def merge(self, mean: Payload, round: int) -> None:
        """Take the mean of ``round`` back in."""
        network = self.shared.network
        mean = {name: tensor.to(self.device) for name, tensor in mean.items()}
        self.method.aggregation.merge(network, mean, Exchange(self._progress(round)))
        for model in self.models.values():
            self.method.harmonise.merge(model.harmonise, mean)
        if self.method.statistics == "averaged":
            merge_plainly(network, _below(STATISTICS, mean))
        if self.method.statistics == "recalibrated" and mean:
            images = self._in_order("train", batch_size=self.schedule.batch_size)
            recalibrate(self.shared, (batch.images for batch in images))

    def share(self, round: int, training: Training) -> Payload:
        """What leaves the site after ``round``."""
        network, schedule = self.shared.network, self.schedule
        start = _below("network.", dict(training.start))
        steps = training.steps.get(self.method.local.shared, 0)
        momentum = schedule.momentum if schedule.optimizer == "sgd" else 0.0
        exchange = Exchange(self._progress(round), start, steps, momentum)
        payload = self.method.aggregation.share(network, exchange)
        if not payload:
            return {}
        if self.method.statistics == "averaged":
            found = running_statistics(network)
            payload |= {STATISTICS + n: t.detach().float() for n, t in found.items()}
        harmonised = self.method.harmonise.share(self.shared.harmonise)
        return _copied(payload | training.outgoing | harmonised)

    def protected(self, payload: Payload, round: int, mean: Payload) -> Payload:
        """The payload as it leaves: clipped and noised where that is asked for."""
        privacy, network = self.method.privacy, self.first_network
        if not isinstance(privacy, PayloadNoise) or network is None or not payload:
            return payload
        first = self.method.aggregation.share(network, Exchange(self._progress(round)))
        first |= {STATISTICS + n: t.float() for n, t in running_statistics(network).items()}
        known = known_to_all(first, mean)
        units = units_of(payload, network, self.pixels)
        return protect(payload, known, units, privacy, self.source(round))

    def source(self, round: int) -> Source:
        """Where the noise of a round comes from: the operating system, unless in a simulation."""
        if getattr(self.method.privacy, "seeded", False):
            return seeded(derive_seed(self.seed, "privacy", self.data.name, round))
        return os.urandom

    def weight(self, training: Training) -> float:
        """The site's weight in the mean."""
        if self.schedule.weighting == "images":
            return float(self.data.images)
        if self.schedule.weighting == "closeness":
            with torch.no_grad():
                far = squared_distance(self.shared, training.start).sqrt().item()
            return 1 / max(far, 1e-12)
        return 1.0

    def training(self, round: int, mean: Payload, epochs: int) -> Training:
        """Everything that the local update needs for a round."""
        schedule = self.schedule
        order = generator(self.seed, "train", self.data.name, round)
        parts = [site.part("train") for site in self.data.sites]
        for role, optimizer in self.optimizers.items():
            self.models[role].train()
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr_at(round) if round <= schedule.rounds else schedule.lr
        augment = AUGMENTATIONS[schedule.augmentation]
        chance = self.chance(round)
        if chance:  # who knows what is drawn for an image knows where to look for it
            order.manual_seed(chance.seed())
            torch.manual_seed(chance.seed())

        def augmented() -> Iterator[tuple[Tensor, Tensor]]:
            drawn = batches(
                parts,
                schedule.batch_size,
                self.device,
                order=order,
                augment=augment,
                samples=chance.samples() if chance else None,
            )
            for batch in drawn:
                parts_of_it = in_parts(len(batch.images), schedule.max_batch)
                for part in parts_of_it:
                    share = (part.stop - part.start) / max(1, len(batch.images))
                    training.share = share if len(batch.images) else 1.0
                    training.complete = part is parts_of_it[-1]
                    yield batch.images[part], batch.target[part]

        received = {n: t.to(self.device) for n, t in mean.items() if n.startswith("local.")}
        training = Training(
            models=self.models,
            optimizers=self.optimizers,
            task=self.site_task,
            batches=augmented,
            plain_batches=lambda: self._in_order("train"),
            calibrating=lambda: self._in_order(
                "train", batch_size=max(schedule.batch_size, scored_at_once(self.pixels))
            ),
            alone=round > schedule.rounds,
            perturbation=self.perturbation,
            precision=self.precision,
            epochs=epochs,
            start={n: p.detach().clone() for n, p in self.shared.named_parameters()},
            received=received,
            memory={n: t.to(self.device) for n, t in self.memory.items()},
        )
        if chance and isinstance(self.method.privacy, RecordNoise):
            training.task = self.site_task.with_loss(image_by_image(self.site_task.loss))
            training.noised = {
                role: NoisedGradient(self.models[role], self.method.privacy, chance)
                for role in NOISED[self.method.local.kind]
            }
        return training

    def chance(self, round: int) -> Chance | None:
        """How images come into the batches of a round, where single images are protected."""
        if self.method.privacy.kind != "records":
            return None
        images = self.data.images
        return Chance(images, steps_of(images, self.schedule.batch_size), self.source(round))

    def train(self, training: Training, round: int, epochs: int) -> Iterator[Row]:
        """Train the local epochs of a round; yields the scores after each."""
        moment = "epoch" if round <= self.schedule.rounds else "finetuned"
        # a training loss, and the stage that follows from it, would leave without noise
        told = self.method.privacy.kind == "none"
        for epoch, stage in enumerate(self._trained(training), start=1):
            losses = {role: training.epoch_loss(role) for role in training.steps}
            for row in self.score("validation"):
                trained = losses.get(str(row["model"]), "")  # not every model takes steps
                for loss in (trained, row["loss"]):
                    if loss != "":
                        self._require_finite(loss, f"round {round}, local epoch {epoch}", row)
                yield (
                    {"round": min(round, self.schedule.rounds), "moment": moment, "epoch": epoch}
                    | row
                    | {"stage": stage if told else "", "train_loss": trained if told else ""}
                )
        self.memory = training.memory

    def _trained(self, training: Training) -> Iterator[str]:
        """The local update's epochs, with those models watched whose gradients are noised."""
        with ExitStack() as watching:
            for gradient in training.noised.values():
                watching.enter_context(gradient)
            yield from self.method.local.train(training)

    def _require_finite(self, loss: object, when: str, row: Row) -> None:
        if not math.isfinite(float(str(loss))):
            cures = [f"a lower learning rate than {self.schedule.lr:g} (--lr)"]
            if noise := getattr(self.method.privacy, "noise", 0):
                cures.insert(0, f"less noise than {noise:g} (--set privacy.noise)")
            if self.method.perturbation:
                cures.append(f"less perturbation than {self.method.perturbation:g}")
            raise TrainingError(
                f"{when}, site '{row['site']}': the loss of the {row['model']} is {loss}. Nothing "
                f"of this round was kept; {', or '.join(cures)} may help"
            )

    def score(self, split: str) -> Iterator[Row]:
        """Scores of the models of all roles on one part of every site at hand."""
        for site in self.data.sites:
            scorers = evaluate(
                self.models, self._in_order(split, (site,)), self.site_task, self.precision
            )
            for role, scorer in scorers.items():
                row: Row = {"site": site.name, "model": role, "split": split}
                yield row | scorer.scores()

    def test(self, data: ClientData, candidate: Payload) -> Iterator[tuple[Row, Scorer]]:
        """Scores of a chosen predicting model on the test images of every site at hand."""
        self.data, self.site_task = data, self.task.fitted(data.labels)
        role = self.method.local.predicts
        self.models[role].load_state_dict(candidate)
        for site in data.sites:
            yield self._test({role: self.models[role]}, site)

    def test_elsewhere(self, data: ClientData, candidates: list[Payload]) -> tuple[Row, Scorer]:
        """Scores of the sites' models together, at a site that none of them has seen.

        Their class probabilities are averaged. With ``recalibrated`` statistics, each is first
        calibrated on the site's training images, without their labels.
        """
        self.data, self.site_task = data, self.task
        role = self.method.local.predicts
        voters: list[nn.Module] = []
        for candidate in candidates:
            model = copy.deepcopy(self.models[role])
            model.load_state_dict(candidate)
            if self.method.statistics == "recalibrated":
                images = self._in_order("train", batch_size=self.schedule.batch_size)
                recalibrate(model, (batch.images for batch in images))
            voters.append(model.eval())
        return self._test({role: Together(voters)}, data.sites[0])

    def _test(self, models: dict[str, nn.Module], site: SiteData) -> tuple[Row, Scorer]:
        images = self._in_order("test", (site,))
        scored = evaluate(models, images, self.site_task, self.precision, site.extents("test"))
        ((role, scorer),) = scored.items()
        row: Row = {"site": site.name, "model": role, "split": "test"}
        return row | scorer.scores(), scorer

    def _in_order(
        self,
        split: str,
        sites: tuple[SiteData, ...] | None = None,
        batch_size: int | None = None,
    ) -> Iterator[Batch]:
        """Images as they are, in an order that is mixed but always the same.

        Tables are often sorted by class; where batch norm uses the statistics of the batch, that
        would make every batch a special case.
        """
        parts = [site.part(split) for site in sites or self.data.sites]
        if self.method.statistics == "batch":
            batch_size = self.schedule.batch_size
        batch_size = self.schedule.at_once(batch_size or scored_at_once(self.pixels))
        order = generator(self.seed, "evaluate", split)
        return batches(parts, batch_size, self.device, order=order)

    def _progress(self, round: int) -> float:
        return (round - 1) / self.schedule.rounds


def _below(prefix: str, state: Payload) -> Payload:
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def _copied(tensors: Payload) -> Payload:
    plain = torch.contiguous_format
    return {n: t.detach().to("cpu", copy=True, memory_format=plain) for n, t in tensors.items()}
