"""The side of the federation that works inside a hospital.

A round, at each site: merge the mean, score (just after communication), train the local epochs,
score (just before the next communication), share.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from counterpoint.aggregation.all import merge_plainly
from counterpoint.data.augment import AUGMENTATIONS
from counterpoint.data.batches import batches
from counterpoint.data.site import SiteData
from counterpoint.errors import TrainingError
from counterpoint.layers import running_statistics
from counterpoint.local import Training
from counterpoint.local.training import predict
from counterpoint.methods import Method
from counterpoint.payload import Payload
from counterpoint.predictor import Predictor, build_predictor
from counterpoint.statistics import recalibrate
from counterpoint.tasks import Classification

EVALUATION_BATCH = 64

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


@dataclass
class Visit:
    """What a round at a site gives: what leaves it, its scores, and its state till next time."""

    site: str
    rows: list[Row] = field(default_factory=list)
    payload: Payload = field(default_factory=dict)
    state: Payload = field(default_factory=dict)
    candidate: Payload = field(default_factory=dict)
    """The predicting model just after the merge."""
    weight: float = 1.0
    gradients: int = 0
    """Images that a gradient was computed for."""


def derive_seed(*parts: object) -> int:
    """A seed for each purpose: equal parts give equal seeds, on any machine, in any order.

    >>> derive_seed(1, "A", 3) == derive_seed(1, "A", 3) != derive_seed(1, "B", 3)
    True
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded by :func:`derive_seed`; the CPU's, so that devices agree."""
    return torch.Generator().manual_seed(derive_seed(*parts))


class Client:
    """Live models that one site after another takes up: memory does not grow with the sites.

    Between rounds a site is only its state, a flat mapping of names to tensors. All randomness
    comes from generators seeded by run, site and round, so a state is all that is needed to go on.
    """

    def __init__(
        self, method: Method, task: Classification, seed: int, device: torch.device
    ) -> None:
        self.method, self.task, self.seed, self.device = method, task, seed, device
        self.schedule = method.schedule
        self.precision: torch.dtype = getattr(torch, self.schedule.precision)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first = new_predictor(method, task.outputs)
        initial = first.state_dict()
        # All models of all sites start from the same weights.
        self.models: dict[str, Predictor] = {}
        for role in method.local.roles:
            model = first if not self.models else new_predictor(method, task.outputs)
            model.load_state_dict(initial)
            # channels_last is the faster layout for convolutions on every device
            self.models[role] = model.to(memory_format=torch.channels_last).to(device)  # type: ignore[call-overload]
        self._initial = {name: tensor.clone() for name, tensor in initial.items()}
        self.shared = self.models[method.local.shared]
        self.optimizers = {role: self._optimizer(model) for role, model in self.models.items()}
        self.data = ClientData("", ())

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
            if round <= self.schedule.rounds:
                for row in self.train(round, visit):
                    visit.rows.append(row)
                    yield row
                visit.payload = self.share(round)
        visit.state = self.put_down()
        if self.schedule.weighting == "images":
            visit.weight = float(data.images)
        yield visit

    def take_up(self, data: ClientData, state: Payload | None) -> None:
        """Make the live models those of a site."""
        self.data = data
        for role, model in self.models.items():
            prefix = f"model/{role}/"
            own = self._initial if state is None else _below(prefix, state)
            model.load_state_dict(own)
            self.optimizers[role] = self._optimizer(model)
            if state is not None and self.schedule.keep_optimizer:
                _load_optimizer(self.optimizers[role], _below(f"optimizer/{role}/", state))

    def put_down(self) -> Payload:
        """The site's state, on the CPU."""
        state: Payload = {}
        for role, model in self.models.items():
            state |= {f"model/{role}/{n}": t for n, t in model.state_dict().items()}
            if self.schedule.keep_optimizer:
                tensors = _optimizer_tensors(self.optimizers[role])
                state |= {f"optimizer/{role}/{name}": tensor for name, tensor in tensors.items()}
        return _copied(state)

    def predictor(self) -> Payload:
        """The predicting model's state, on the CPU."""
        return _copied(self.models[self.method.local.predicts].state_dict())

    def merge(self, mean: Payload, round: int) -> None:
        """Take the mean of ``round`` back in."""
        network = self.shared.network
        mean = {name: tensor.to(self.device) for name, tensor in mean.items()}
        self.method.aggregation.merge(network, mean, self._progress(round))
        for model in self.models.values():
            self.method.harmonise.merge(model.harmonise, mean)
        if self.method.statistics == "averaged":
            merge_plainly(network, {n: mean[n] for n in running_statistics(network) if n in mean})
        if self.method.statistics == "recalibrated" and mean:
            images = self._in_order("train", batch_size=self.schedule.batch_size)
            recalibrate(self.shared, (batch for batch, _ in images))

    def share(self, round: int) -> Payload:
        """What leaves the site after ``round``."""
        network = self.shared.network
        payload = self.method.aggregation.share(network, self._progress(round))
        if not payload:
            return {}
        if self.method.statistics == "averaged":
            payload |= {n: t.detach().float() for n, t in running_statistics(network).items()}
        return _copied(payload | self.method.harmonise.share(self.shared.harmonise))

    def train(self, round: int, visit: Visit) -> Iterator[Row]:
        """Train the local epochs of a round; yields the scores after each."""
        schedule = self.schedule
        order = generator(self.seed, "train", self.data.name, round)
        parts = [site.part("train") for site in self.data.sites]
        for role, optimizer in self.optimizers.items():
            self.models[role].train()
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr_at(round)
        training = Training(
            models=self.models,
            optimizers=self.optimizers,
            task=self.task,
            batches=lambda: batches(
                parts,
                schedule.batch_size,
                self.device,
                order=order,
                augment=AUGMENTATIONS[schedule.augmentation],
            ),
            plain_batches=lambda: self._in_order("train"),
            alpha=self.method.perturbation,
            precision=self.precision,
            epochs=schedule.local_epochs,
            start={n: p.detach().clone() for n, p in self.shared.named_parameters()},
        )
        for epoch in range(1, schedule.local_epochs + 1):
            self.method.local.epoch(training)
            losses = {role: training.epoch_loss(role) for role in self.models}
            for row in self.score("validation"):
                for loss in (losses[str(row["model"])], row["loss"]):
                    self._require_finite(loss, f"round {round}, local epoch {epoch}", row)
                yield (
                    {"round": round, "moment": "epoch", "epoch": epoch}
                    | row
                    | {"stage": training.stage, "train_loss": losses[str(row["model"])]}
                )
        visit.gradients = training.gradients

    def _require_finite(self, loss: object, when: str, row: Row) -> None:
        if not math.isfinite(float(str(loss))):
            raise TrainingError(
                f"{when}, site '{row['site']}': the loss of the {row['model']} is {loss}. Nothing "
                f"of this round was kept; a lower learning rate than {self.schedule.lr:g} (--lr) "
                "may help"
            )

    def score(self, split: str, roles: Iterable[str] | None = None) -> Iterator[Row]:
        """Scores of the models (of all roles) on one part of every site at hand."""
        models = {role: self.models[role] for role in roles or self.models}
        for site in self.data.sites:
            outputs, labels = predict(models, self._in_order(split, (site,)), self.precision)
            for role, logits in outputs.items():
                row: Row = {"site": site.name, "model": role, "split": split}
                yield row | self.task.scores(logits, labels)

    def test(self, data: ClientData, candidate: Payload) -> list[Row]:
        """Scores of a chosen predicting model on the test images of every site at hand."""
        self.data = data
        role = self.method.local.predicts
        self.models[role].load_state_dict(candidate)
        return list(self.score("test", roles=[role]))

    def _in_order(
        self,
        split: str,
        sites: tuple[SiteData, ...] | None = None,
        batch_size: int = EVALUATION_BATCH,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Images as they are, in an order that is mixed but always the same.

        Tables are often sorted by class; where batch norm uses the statistics of the batch, that
        would make every batch a special case.
        """
        parts = [site.part(split) for site in sites or self.data.sites]
        if self.method.statistics == "batch":
            batch_size = self.schedule.batch_size
        order = generator(self.seed, "evaluate", split)
        return batches(parts, batch_size, self.device, order=order)

    def _progress(self, round: int) -> float:
        return (round - 1) / self.schedule.rounds

    def _optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        schedule = self.schedule
        if schedule.optimizer == "adam":
            return torch.optim.Adam(
                model.parameters(), lr=schedule.lr, weight_decay=schedule.weight_decay
            )
        return torch.optim.SGD(
            model.parameters(),
            lr=schedule.lr,
            momentum=schedule.momentum,
            weight_decay=schedule.weight_decay,
        )


def new_predictor(method: Method, outputs: int) -> Predictor:
    """Make a method's model with fresh weights; raise SettingsError if it can't be made."""
    return build_predictor(
        method.schedule.model,
        method.schedule.model_options,
        outputs,
        method.schedule.image_size,
        method.harmonise,
        method.statistics,
    )


def _below(prefix: str, state: Payload) -> Payload:
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def _copied(tensors: Payload) -> Payload:
    return {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> Payload:
    """Momenta and the like as named tensors: no pickle in a saved state."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        f"{index}/{name}": torch.as_tensor(value)
        for index, parameter in enumerate(parameters)
        for name, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Payload) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        parameter = parameters[int(index)]
        # Adam's step counter stays on the CPU.
        place = tensor.clone() if key == "step" else tensor.to(parameter.device, copy=True)
        optimizer.state[parameter][key] = place
