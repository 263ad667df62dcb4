"""What local updates, losses and prototypes compute in a step, derived by hand."""

import copy
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from counterpoint import run
from counterpoint.aggregation import AllWeights, Exchange, Normalised
from counterpoint.data.batches import Batch, in_parts
from counterpoint.errors import PayloadError
from counterpoint.files import read_tensors
from counterpoint.harmonise import AmplitudeNormalisation
from counterpoint.local import (
    Alternating,
    Contrastive,
    DeputyTransfer,
    Ditto,
    Plain,
    PrototypeDeputy,
    Proximal,
    Training,
)
from counterpoint.local.adapted import blend_into
from counterpoint.local.contrastive import contrast
from counterpoint.local.prototypes import (
    COUNTS,
    PRESENT,
    SUMS,
    aligned,
    class_features,
    log_pressure,
)
from counterpoint.local.training import evaluate
from counterpoint.perturbation import Perturbation
from counterpoint.predictor import build_predictor
from counterpoint.server import WeightedMean
from counterpoint.server_update import AddToControl, NormalisedMean
from counterpoint.tasks import Classification, Scorer, make_task
from counterpoint.tasks.distillation import squared_difference
from counterpoint.tasks.losses import balanced
from tests.points import pull
from tests.running import SHORT, TINY


def near(*numbers: float) -> object:
    return pytest.approx(list(numbers), abs=2e-6)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# MOON


class Featured(nn.Module):
    """Two weights are the features of every image; the head gives them back."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 0.0]))
        self.head = nn.Linear(2, 2, bias=False)
        nn.init.eye_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.w.expand(len(images), -1))
        return logits


def test_moon_in_two_rounds() -> None:
    """The point is (-1, 2), the learning rate 1/2; only w is trained.

    Round 1: no contrast, as there is no earlier model. From (1, 0) half of the way, to (0, 1).

    Round 2: the server sends (1, 0) back. With z = z_glob = (1, 0) and z_prev = (0, 1), their
    cosine s is 0; l_con = log(1 + e^{(s - cos(z, z_glob)) / tau}) has the gradient
    sigmoid(-1 / tau) / tau * ds/dz, ds/dz = (0, 1), as cos(z, z_glob) is at its largest. With
    tau = 1/2 and mu = 3: 6 sigmoid(-2) (0, 1). The task's gradient is (2, -2), so that w becomes
    (1 - 1, 0 + 1 - 3 sigmoid(-2)).
    """
    model = Featured()
    points = torch.tensor([[-1.0, 2.0]])
    update = Contrastive(mu=3.0, temperature=0.5)

    def in_a_round(memory: dict[str, Tensor]) -> Training:
        training = Training(
            models={"model": model},
            optimizers={"model": torch.optim.SGD([model.w], lr=0.5)},
            task=Classification(("a", "b"), partial(pull, points=points)),
            batches=lambda: iter([(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))]),
            plain_batches=lambda: iter([]),
            memory=memory,
        )
        assert list(update.train(training)) == [""]
        return training

    first = in_a_round({})
    assert model.w.tolist() == near(0, 1)
    assert first.memory["w"].tolist() == near(0, 1)
    model.w.data = torch.tensor([1.0, 0.0])
    second = in_a_round(first.memory)
    assert model.w.tolist() == near(0, 1 - 3 * sigmoid(-2))
    assert second.memory["w"].tolist() == model.w.tolist()


def test_contrast() -> None:
    """Cosines 0.6 and 0.8 at tau = 1/2: log(1 + e^{(0.8 - 0.6) / (1/2)}); lengths do not matter."""
    z = torch.tensor([[10.0, 0.0], [10.0, 0.0]])
    near_ones = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    far_ones = torch.tensor([[4.0, 3.0], [1.0, 0.0]])
    first, second = math.log(1 + math.exp(0.4)), math.log(1 + math.exp(2))
    loss = contrast(z, near_ones, far_ones, temperature=0.5)
    assert loss.item() == pytest.approx((first + second) / 2)


# FedRep


class Product(nn.Module):
    """Gives body * head."""

    def __init__(self, body: float, head: float) -> None:
        super().__init__()
        self.body, self.head = (nn.Linear(1, 1, bias=False) for _ in range(2))
        nn.init.constant_(self.body.weight, body)
        nn.init.constant_(self.head.weight, head)

    def forward(self, images: Tensor) -> Tensor:
        product: Tensor = self.head(self.body(images))
        return product


@pytest.mark.parametrize("perturbation", [None, Perturbation(0.3), Perturbation(0.3, True)])
@pytest.mark.parametrize("kind", [Plain, Proximal, Ditto, DeputyTransfer, Alternating])
def test_a_batch_in_parts_takes_the_same_steps(kind, perturbation) -> None:
    """Without batch norm the gradients of the parts add up to the batch's.

    But the perturbation is then each part's own (m-sharpness, Foret et al.): the same only where
    all parts have the same gradient, as here, where every part holds the same images.
    """
    generator = torch.Generator().manual_seed(5)
    same = torch.randn(4, 3, generator=generator)
    x = torch.cat([same] * 3) if perturbation else torch.randn(12, 3, generator=generator)
    y = torch.tensor([0, 1, 1, 0] * 3)
    way = kind()

    def trained(most: int | None) -> Training:
        torch.manual_seed(1)
        models = {role: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)) for role in way.roles}
        training = Training(
            models=models,
            optimizers={r: torch.optim.Adam(m.parameters(), 0.05) for r, m in models.items()},
            task=Classification(("a", "b")),
            batches=lambda: batches(),
            plain_batches=lambda: iter([Batch(x, y, torch.arange(12))]),
            perturbation=perturbation,
            epochs=3,
            start={n: p.detach().clone() for n, p in models[way.shared].named_parameters()},
        )

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for part in in_parts(12, most):
                training.share = (part.stop - part.start) / 12
                training.complete = part.stop == 12
                yield x[part], y[part]

        for _ in way.train(training):
            pass
        return training

    whole, parts = trained(None), trained(4)
    assert whole.steps == parts.steps
    assert whole.gradients == parts.gradients
    for role in way.roles:
        assert parts.epoch_loss(role) == pytest.approx(
            whole.epoch_loss(role), rel=1e-5, nan_ok=True
        )
        for one, other in zip(
            whole.models[role].parameters(), parts.models[role].parameters(), strict=True
        ):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_parts_of_a_batch_count_by_their_images() -> None:
    """Of five images in parts of 2 and 3, two pull to 0 and three to 10; the learning rate is 1/2.

    Whole: the mean of the points is 6, half of the way is 3. Of the first part both pull to 10 and
    of the second one does: 2/5 * 10 + 3/5 * 10/3 = 6, where parts that count alike give 20/3.
    """
    model = Product(1, 0)
    y = torch.tensor([1, 1, 0, 0, 1])

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for part in in_parts(5, 3):
            training.share = (part.stop - part.start) / 5
            training.complete = part.stop == 5
            yield torch.ones(len(y[part]), 1), y[part]

    training = Training(
        models={"model": model},
        optimizers={"model": torch.optim.SGD([model.head.weight], 0.5)},
        task=Classification(("a", "b"), partial(pull, points=torch.tensor([[0.0], [10.0]]))),
        batches=batches,
        plain_batches=lambda: iter([]),
    )
    assert list(Plain().train(training)) == [""]
    assert model.head.weight.item() == pytest.approx(3)


@pytest.mark.usefixtures("quick")
def test_a_run_in_parts_that_are_not_equal_ends_where_a_whole_one_does(tmp_path: Path) -> None:
    """Batches of eight come as 2, 3 and 3 images; nothing in the network depends on company."""
    settings = SHORT | {"model": "tests.networks:NoNorm", "model_options": {"dropout": 0.0}}
    weights = []
    for most in (None, 3):
        chosen = settings | {"rounds": 1, "lr": 0.1, "max_batch": most}
        out = run("fedavg", "phantom", out=tmp_path / str(most), settings=chosen).path
        weights.append(read_tensors(out / "models" / "global.safetensors"))
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=1e-5, rtol=0)


def test_scoring_leaves_every_model_in_the_mode_that_it_was_in() -> None:
    models = {"a": nn.Linear(2, 2).eval(), "b": nn.Linear(2, 2).train()}
    batch = Batch(torch.zeros(2, 2), torch.tensor([0, 1]), torch.arange(2))
    evaluate(models, [batch], Classification(("a", "b")))
    assert not models["a"].training
    assert models["b"].training


@pytest.mark.parametrize(
    ("stage", "personal", "deputy", "following"),
    [
        ("recover", 1.0, 0.5, "exchange"),
        ("recover", 0.0, 0.0, "exchange"),
        ("exchange", 1.0, 0.75, "sublimate"),
    ],
)
def test_a_stage_begins_at_its_limit(
    stage: str, personal: float, deputy: float, following: str
) -> None:
    update = DeputyTransfer(exchange=0.5, sublimate=0.75)
    assert update.next_stage(stage, personal, deputy) == following


def test_scores_in_passing_are_of_the_last_epoch_and_of_each_image_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two batches of three images; the first of four epochs needs no scores."""
    models = {role: nn.Linear(2, 2) for role in ("personal", "deputy")}
    training = Training(
        models=models,
        optimizers={r: torch.optim.SGD(m.parameters(), 0.1) for r, m in models.items()},
        task=Classification(("a", "b")),
        batches=lambda: iter([(torch.ones(3, 2), torch.tensor([0, 1, 0]))] * 2),
        plain_batches=lambda: iter([]),
        epochs=4,
    )
    cases = []

    def scores(passed: dict[str, Scorer]) -> dict[str, float]:
        cases.append({role: scorer.statistics()[0] for role, scorer in passed.items()})
        return {"personal": 0.5, "deputy": 0.5}

    monkeypatch.setattr(training, "training_scores", scores)
    list(DeputyTransfer(stage_scores="passing").train(training))
    assert cases == [{"personal": list(range(6)), "deputy": list(range(6))}] * 3


@pytest.mark.parametrize("kind", [DeputyTransfer, PrototypeDeputy])
def test_stages_in_passing_are_the_exact_ones_where_weights_stand_still(kind) -> None:
    """Scores in passing differ from exact ones only in augmentation and in weights on the move."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(40, 2, generator=generator)
    y = (x[:, 0] > 0).long()
    passes = []

    def plain_batches() -> Iterator[Batch]:
        passes.append(1)
        return iter([Batch(x, y, torch.arange(40))])

    def stages(stage_scores: str, tilt: float) -> list[str]:
        models = {role: nn.Linear(2, 2, bias=False) for role in ("personal", "deputy")}
        nn.init.eye_(models["personal"].weight)
        models["personal"].weight.data = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
        models["deputy"].weight.data = torch.tensor([[-1.0, tilt], [1.0, -tilt]])
        training = Training(
            models=models,
            optimizers={r: torch.optim.SGD(m.parameters(), 1e-30) for r, m in models.items()},
            task=Classification(("a", "b")),
            batches=lambda: zip(x.split(10), y.split(10), strict=True),
            plain_batches=plain_batches,
            epochs=4,
        )
        passes.clear()
        return list(kind(stage_scores=stage_scores).train(training))

    found = [stages("exact", tilt) for tilt in (0.0, 0.3, 2.0, 9.0)]
    exact_passes = len(passes)
    assert len({tuple(way) for way in found}) > 1  # the tilts do make a difference
    assert [stages("passing", tilt) for tilt in (0.0, 0.3, 2.0, 9.0)] == found
    assert exact_passes - len(passes) == 3


@pytest.mark.parametrize("epochs", [1, 2])
def test_fedrep_trains_the_head_first(epochs: int) -> None:
    """Loss 1/2 (body head - 4)^2, learning rate 1/2, from body 1, head 2.

    Head: gradient (2 - 4) * 1 = -2, to 3, and the body stays. Body, with the new head: gradient
    (3 - 4) * 3 = -3, to 5/2. (The body first would have given 3, and then the head -1.) In two
    epochs the head has one and the body the other; in a single one they share each batch.
    """
    model = Product(1, 2)
    training = Training(
        models={"model": model},
        optimizers={"model": torch.optim.SGD(model.parameters(), 0.5, weight_decay=0.0)},
        task=Classification(("a",), partial(pull, points=torch.tensor([[4.0]]))),
        batches=lambda: iter([(torch.ones(2, 1), torch.zeros(2, dtype=torch.int64))]),
        plain_batches=lambda: iter([]),
        epochs=epochs,
    )
    stages = []
    for stage in Alternating(body_epochs=1).train(training):
        stages.append(stage)
        if stage == "head":
            assert (model.head.weight.item(), model.body.weight.item()) == (3, 1)
    assert stages == (["head", "body"] if epochs == 2 else ["head and body"])
    assert (model.head.weight.item(), model.body.weight.item()) == (3, 2.5)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert training.steps == {"model": 2}


def test_fedrep_leaves_what_the_network_has_frozen() -> None:
    """A pretrained stem, say: it is not trained, and is as frozen afterwards."""
    model = nn.Sequential(Product(1, 2), nn.Linear(1, 1, bias=False))
    model[0].body.weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=1.0)
    training = Training(
        models={"model": model},
        optimizers={"model": optimizer},
        task=Classification(("a",), partial(pull, points=torch.tensor([[4.0]]))),
        batches=lambda: iter([(torch.ones(2, 1), torch.zeros(2, dtype=torch.int64))]),
        plain_batches=lambda: iter([]),
        epochs=2,
    )
    before = {name: p.item() for name, p in model.named_parameters()}
    assert list(Alternating(body_epochs=1).train(training)) == ["head", "body"]
    changed = {name for name, p in model.named_parameters() if p.item() != before[name]}
    assert changed == {"0.head.weight", "1.weight"}
    assert [p.requires_grad for p in model.parameters()] == [False, True, True]


def test_fedrep_leaves_what_is_fixed_untouched_by_momentum_and_decay() -> None:
    """Weight decay 1 and momentum from an epoch of the body do not move it in the head's epoch."""
    model = Product(1, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1.0)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    body = model.body.weight.item()
    training = Training(
        models={"model": model},
        optimizers={"model": optimizer},
        task=Classification(("a",), partial(pull, points=torch.tensor([[4.0]]))),
        batches=lambda: iter([(torch.ones(2, 1), torch.zeros(2, dtype=torch.int64))] * 3),
        plain_batches=lambda: iter([]),
        epochs=2,
        perturbation=Perturbation(0.5),
    )
    epochs = Alternating().train(training)
    head = model.head.weight.item()
    next(epochs)
    assert model.body.weight.item() == body
    moved = model.head.weight.item()
    assert moved != head
    next(epochs)
    assert model.head.weight.item() == moved
    assert model.body.weight.item() != body


# perturbation


def test_perturbation_over_all_weights_together() -> None:
    """g = (3) and (0, 4) of two weights: |g| = 5, delta = rho g / 5.

    Adaptive, with w = (0.99) and (-0.49, 1.99): t = (1) and (0.5, 2), t g = (3) and (0, 8),
    |t g| = sqrt 73, delta = rho (3) / sqrt 73 and rho (0, 16) / sqrt 73.
    """
    weights = [torch.tensor([0.99]), torch.tensor([-0.49, 1.99])]
    gradients = [torch.tensor([3.0]), torch.tensor([0.0, 4.0])]
    plain = Perturbation(0.1).of(weights, gradients)
    assert torch.cat(plain).tolist() == near(0.06, 0, 0.08)
    adaptive = Perturbation(0.1, adaptive=True).of(weights, gradients)
    root = math.sqrt(73)
    assert torch.cat(adaptive).tolist() == near(0.3 / root, 0, 1.6 / root)


# FedNova and SCAFFOLD, the server's part


def test_fednova_takes_layers_with_the_weights_they_started_from() -> None:
    """x = 10, y = 4 after 3 steps: d = 2; the server goes (3 + 1) / 2 times (2 + 6) / 2 down."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 4.0)
    exchange = Exchange(start={"weight": torch.tensor([[10.0]])}, steps=3)
    sent = Normalised().share(network, exchange)
    assert {name: tensor.item() for name, tensor in sent.items()} == {
        "direction.weight": 2,
        "steps": 3,
    }
    mean = WeightedMean()
    mean.add("A", sent)
    mean.add("B", {"direction.weight": torch.tensor([[6.0]]), "steps": torch.tensor(1.0)})
    down, kept = NormalisedMean().update(mean.result(), dict(exchange.start), {}, 1.0)
    assert {name: tensor.item() for name, tensor in down.items()} == {"weight": 10 - 2 * 4}
    assert kept == {}
    with pytest.raises(PayloadError, match="needs the aggregation 'normalised'"):
        NormalisedMean().update(AllWeights().share(network, exchange), {}, {}, 1.0)


def test_fednova_gives_what_is_not_trained_no_direction() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.register_buffer("scale", torch.tensor([7.0]))
    sent = Normalised().share(network, Exchange(start={"weight": torch.ones(1, 1)}, steps=3))
    assert sent["direction.scale"].item() == 0


def test_fednova_without_a_step_goes_nowhere() -> None:
    network = nn.Linear(1, 1, bias=False)
    start = {"weight": network.weight.detach().clone()}
    sent = Normalised().share(network, Exchange(start=start, momentum=0.9))
    assert {name: tensor.item() for name, tensor in sent.items()} == {
        "direction.weight": 0,
        "steps": 1,
    }


def test_common_control_moves_by_the_share_that_took_part() -> None:
    """3 of 4 sites, mean change 4: c goes from 1 to 1 + 3/4 * 4 = 4, at first from 0 to 3."""
    mean = {"w": torch.tensor(7.0), "local.control.w": torch.tensor(4.0)}
    before = {"w": torch.tensor(0.0), "local.control.w": torch.tensor(1.0)}
    for known, expected in ((before, 4), ({}, 3)):
        down, _ = AddToControl().update(mean, known, {}, 0.75)
        assert (down["w"].item(), down["local.control.w"].item()) == (7, expected)


# PRR-FL's journal version


def test_pressure_on_rarer_classes() -> None:
    """Of 16, 4 and 1 images, beta = 1/2: s_cj = sqrt(N_j / N_c) where c has more, else 1."""
    s = log_pressure(torch.tensor([16.0, 4.0, 1.0]), beta=0.5).exp()
    assert s.flatten().tolist() == near(1, 1 / 2, 1 / 4, 1, 1, 1 / 2, 1, 1, 1)
    # the mean over four sites says the same
    mean = log_pressure(torch.tensor([4.0, 1.0, 0.25]), beta=0.5).exp()
    assert mean.flatten().tolist() == near(1, 1 / 2, 1 / 4, 1, 1, 1 / 2, 1, 1, 1)


def test_aligned_loss() -> None:
    """Equal logits, s as above for 16, 4 and 1, g = (1, 2, 4).

    Class 0: -log 1 / (1 + 1/2 + 1/4); class 2: -4 log 1/3; an image that does not count: nothing.
    """
    shift = log_pressure(torch.tensor([16.0, 4.0, 1.0]), beta=0.5)
    target = torch.tensor([0, 2, -1])
    loss = aligned(torch.zeros(3, 3), target, shift, torch.tensor([1.0, 2.0, 4.0]))
    assert loss.item() == pytest.approx((math.log(1.75) + 4 * math.log(3)) / 2)
    # the same two pixels of an image
    pixels = torch.zeros(1, 3, 1, 3)
    again = aligned(pixels, target.view(1, 1, 3), shift, torch.tensor([1.0, 2.0, 4.0]))
    assert again.item() == pytest.approx(loss.item())


def features_are_the_images() -> nn.Module:
    head = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(head.weight)
    return nn.Sequential(nn.Identity(), head)


def prototypes(
    images: list[list[float]], labels: list[int], received: dict[str, Tensor], rounds: int
) -> Training:
    """A site in its round ``rounds`` + 1."""

    def batches() -> Iterator[Batch]:
        x, y = torch.tensor(images), torch.tensor(labels)
        yield Batch(x, y, torch.arange(len(y)))

    models = {role: features_are_the_images() for role in ("personal", "deputy")}
    return Training(
        models=models,
        optimizers={r: torch.optim.SGD(m.parameters(), lr=0.0) for r, m in models.items()},
        task=Classification(("a", "b")),
        batches=lambda: ((batch.images, batch.target) for batch in batches()),
        plain_batches=batches,
        received=received,
        memory={"rounds": torch.tensor(float(rounds))} if rounds else {},
    )


def test_prototypes_of_a_network_that_ends_in_a_convolution() -> None:
    """As SqueezeNet does: an image's feature is the mean over its places."""
    network = nn.Sequential(
        nn.Identity(), nn.Conv2d(2, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    images = torch.tensor([[1.0, 3.0], [5.0, 7.0]])[:, :, None, None] * torch.tensor([0.0, 2.0])
    training = prototypes([], [], {}, 0)
    training.models["deputy"] = network
    training.plain_batches = lambda: iter([Batch(images, torch.tensor([1, 0]), torch.arange(2))])
    counts, sums = class_features(training, 2)
    assert counts.tolist() == [1, 1]
    assert sums.tolist() == [[5, 7], [1, 3]]


def test_prototypes_of_a_class_that_a_site_lacks() -> None:
    """A has (1, 0) and (3, 0) of class a; B has (0, 2) of class a and (0, 4) of class b.

    A sends the prototypes (2, 0) and nothing for b, present (1, 0); B (0, 2) and (0, 4), present
    (1, 1). The federation's prototype of a is (1, 1), that of b is B's, (0, 4), not half of it.

    In round warm_up + 1, tau = 3: A's cosine for a is 1 / sqrt 2, so that g_a = 4 / (3 + 0.707107);
    it has no b, g_b = 1. B's are 1 / sqrt 2 for a and 1 for b, so that g_b = 4/4. Of a there are 3
    images and of b one: s_ab = (1/3)^beta, here with beta = 1.
    """
    update = PrototypeDeputy(beta=1.0, tau=3.0, warm_up=1)
    sites: dict[str, tuple[list[list[float]], list[int]]] = {
        "A": ([[1.0, 0.0], [3.0, 0.0]], [0, 0]),
        "B": ([[0.0, 2.0], [0.0, 4.0]], [0, 1]),
    }
    mean = WeightedMean()
    for name, (images, labels) in sites.items():
        training = prototypes(images, labels, {}, rounds=0)
        assert list(update.train(training)) == ["exchange"]
        assert training.memory["rounds"].item() == 1
        mean.add(name, training.outgoing)
    received = mean.result()
    assert received[SUMS].tolist() == [[1, 1], [0, 2]]
    assert received[PRESENT].tolist() == [1, 0.5]
    assert received[COUNTS].tolist() == [1.5, 0.5]

    g = 4 / (3 + math.sqrt(0.5))
    for name, (images, labels) in sites.items():
        for rounds, expected in ((0, (1.0, 1.0)), (1, (g, 1.0))):
            training = prototypes(images, labels, received, rounds)
            epochs = update.train(training)
            next(epochs)
            found = training.task.criterion.keywords  # type: ignore[attr-defined]
            assert found["weights"].tolist() == near(*expected), name
            assert found["shift"].exp().flatten().tolist() == near(1, 1 / 3, 1, 1)
            # equal logits: -g log 1 / (1 + 1/3) for an image of a, -log 1/2 for one of b
            a, b = expected[0] * math.log(4 / 3), math.log(2)
            loss = training.task.loss(torch.zeros(2, 2), torch.tensor(labels))
            assert loss.item() == pytest.approx((2 * a if name == "A" else a + b) / 2)
            list(epochs)
            assert training.task.criterion is Classification(("a", "b")).criterion


def test_squared_distillation() -> None:
    """Teacher (1/2, 1/2), student (3/4, 1/4): mean((1/4)^2, (1/4)^2) = 1/16; the teacher is fixed.

    With weight 10 the student's loss for class 0 is -log 3/4 + 10/16, the personal model's -log 1/2
    alone as long as it only teaches.
    """
    teacher = torch.zeros(1, 2, requires_grad=True)
    student = torch.tensor([[math.log(3), 0.0]], requires_grad=True)
    assert squared_difference(teacher, student).item() == pytest.approx(1 / 16)
    update = DeputyTransfer(distillation="mse", weight=10.0)
    outputs, target = {"personal": teacher, "deputy": student}, torch.tensor([0])
    losses = update.losses(Classification(("a", "b")), "recover", outputs, target)
    deputy = losses["deputy"](student)
    assert deputy.item() == pytest.approx(-math.log(0.75) + 10 / 16)
    assert losses["personal"](teacher).item() == pytest.approx(math.log(2))
    deputy.backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None
    # a pixel counts as an image does
    masks = squared_difference(teacher.view(1, 2, 1, 1), student.view(1, 2, 1, 1))
    assert masks.item() == pytest.approx(1 / 16)


def test_balanced_loss() -> None:
    """Three images of class a, one of b: equal logits give p = (3/4, 1/4)."""
    task = make_task("classification", ("a", "b"), "balanced")
    fitted = task.fitted(torch.tensor([0, 0, 0, 1]).numpy())
    for label, p in ((0, 0.75), (1, 0.25)):
        loss = fitted.loss(torch.zeros(1, 2), torch.tensor([label]))
        assert loss.item() == pytest.approx(-math.log(p))


@pytest.mark.parametrize(("strength", "odds"), [(0.0, 1.0), (0.5, math.sqrt(3)), (1.0, 3.0)])
def test_balanced_loss_of_any_strength(strength: float, odds: float) -> None:
    """Of three images of class a and one of b, equal logits say a to b as 3^strength to 1."""
    task = Classification(("a", "b"), balanced, strength).fitted(np.array([0, 0, 0, 1]))
    loss = task.loss(torch.zeros(1, 2), torch.tensor([1]))
    assert loss.item() == pytest.approx(math.log(1 + odds))


def test_balanced_loss_of_a_class_that_a_site_lacks_is_finite() -> None:
    """It counts as one image of a million."""
    task = Classification(("a", "b", "c"), balanced).fitted(np.array([0, 1, 1]))
    loss = task.loss(torch.zeros(1, 3), torch.tensor([2]))
    assert loss.item() == pytest.approx(math.log(1e6 + 1))


def test_a_blended_model_keeps_the_amplitude_of_its_images() -> None:
    """In the first round the merged model has none yet: half of it would be no amplitude at all."""
    model = build_predictor(
        "tests.networks:Tiny", {}, 3, (3, 8, 8), AmplitudeNormalisation(), "averaged"
    )
    personal, merged = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    model.train()(torch.rand(4, 3, 8, 8))
    for parameter in model.parameters():
        parameter.data += 1
    blend_into(personal, merged, model, 0.5)
    assert model.harmonise.amplitude.max() > 0
    assert torch.equal(personal.harmonise.amplitude, model.harmonise.amplitude)
    for name, parameter in personal.named_parameters():
        assert torch.allclose(parameter, merged[name] + 0.5)


def test_a_personal_model_is_calibrated_on_batches_as_large_as_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large images few are scored at a time, and one alone has no variance to estimate."""
    seen: list[int] = []
    monkeypatch.setattr("counterpoint.client.scored_at_once", lambda pixels: 1)
    monkeypatch.setattr(
        "counterpoint.local.adapted.recalibrate",
        lambda model, batches: seen.extend(len(images) for images in batches),
    )
    run("counterpoint", "phantom", out=tmp_path / "run", settings=SHORT | TINY | {"rounds": 1})
    assert seen
    assert min(seen) > 1
