"""Differential privacy: the mathematics by hand, what leaves a site, and what is refused."""

import math
import os
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm as normal
from torch import Tensor, nn

from counterpoint import load, resume, run
from counterpoint.client import Client, ClientData
from counterpoint.data.batches import split_into_batches
from counterpoint.errors import SettingsError, TrainingError
from counterpoint.files import read_tensors
from counterpoint.first import first_weights
from counterpoint.local import LOCAL_UPDATES, DeputyTransfer, Training
from counterpoint.privacy import PayloadNoise, RecordNoise, epsilon_of_run
from counterpoint.privacy.account import account
from counterpoint.privacy.gaussian import (
    clipped,
    epsilon_of,
    gaussian,
    noised,
    norm,
    seeded,
    uniform,
)
from counterpoint.privacy.payloads import known_to_all, protect, units_of
from counterpoint.privacy.records import (
    NOISED,
    Chance,
    NoisedGradient,
    clipped_sum,
    epsilon_of_steps,
    image_by_image,
    require_images_apart,
)
from counterpoint.remote.plan import Plan, plan_without_data
from counterpoint.report.page import write_report
from counterpoint.settings import make_settings
from counterpoint.spectrum import low_frequencies
from counterpoint.tasks import make_task
from tests.running import SHORT, TINY, Stopped, assert_same, call, content, stop_in

QUICK = SHORT | TINY | {"rounds": 2}
MUCH = {"privacy": "payload", "clip": 1e30, "noise": 0.0}


@pytest.fixture
def opacus() -> None:
    pytest.importorskip("opacus", reason="the extra 'privacy' (Opacus) is not installed")


# The mathematics.


def test_a_common_norm_is_cut_and_directions_stay() -> None:
    change = {"a": torch.tensor([[2.0, 4.0]]), "b": torch.tensor(4.0)}  # norm 6
    assert norm(change) == 6
    cut = clipped(change, 3.0)
    assert cut["a"].tolist() == [[1.0, 2.0]]
    assert cut["b"].item() == 2.0
    assert clipped(change, 7.0)["a"].tolist() == [[2.0, 4.0]]
    assert norm(clipped({"a": torch.zeros(2)}, 1.0)) == 0


def test_noise_is_gaussian_of_the_right_size_and_independent() -> None:
    count = 200_000
    zeros = {"a": torch.zeros(count), "b": torch.zeros(2, count // 2)}
    found = noised(zeros, 0.3, os.urandom)
    a, b = (found[name].flatten().numpy() / 0.3 for name in "ab")
    for sample in (a, b):  # each bound is five standard errors
        assert abs(sample.mean()) < 5 / math.sqrt(count)
        assert abs(sample.var() - 1) < 5 * math.sqrt(2 / count)
        assert abs((sample**4).mean() - 3) < 5 * math.sqrt(96 / count)
        assert abs((sample[1:] * sample[:-1]).mean()) < 5 / math.sqrt(count)
    assert abs((a * b).mean()) < 5 / math.sqrt(count)


def test_what_leaves_is_a_whole_multiple_of_a_grid_whatever_the_value() -> None:
    values = torch.tensor([1 / 3, math.pi, 1e-7], dtype=torch.float64)
    grid = 2.0 ** (math.floor(math.log2(0.3)) - 30)
    multiples = noised({"a": values}, 0.3, seeded(1))["a"] / grid
    assert torch.equal(multiples, multiples.round())


def test_the_grid_is_so_fine_that_noise_is_never_twice_the_same() -> None:
    assert len(noised({"a": torch.zeros(1000)}, 1.0, seeded(1))["a"].unique()) == 1000


def test_random_numbers_are_of_52_bits_and_never_0_or_1() -> None:
    low, high = uniform(1, lambda n: b"\x00" * n)[0], uniform(1, lambda n: b"\xff" * n)[0]
    assert 0 < low < 1e-15
    assert 1 - 1e-15 < high < 1
    assert torch.isfinite(gaussian((1,), lambda n: b"\xff" * n)).all()
    assert len(set(uniform(1000, os.urandom).tolist())) == 1000


@pytest.mark.parametrize(("mu", "delta"), [(1.0, 1e-5), (0.1, 1e-5), (3.0, 1e-3), (20.0, 1e-6)])
def test_epsilon_of_gaussians_is_where_the_integral_says(mu: float, delta: float) -> None:
    """Delta is the most by which a probability exceeds e^epsilon times the other one."""
    epsilon = epsilon_of([mu], delta)
    threshold = epsilon / mu + mu / 2  # where p(x) = e^epsilon q(x), p = N(mu, 1), q = N(0, 1)
    exceeds = quad(
        lambda x: normal.pdf(x, mu) - math.exp(epsilon + normal.logpdf(x)),
        threshold,
        threshold + 20,
        epsabs=1e-16,
    )[0]
    assert exceeds == pytest.approx(delta, rel=1e-4)


def test_epsilon_of_gaussians_at_its_ends() -> None:
    assert epsilon_of([math.inf], 1e-5) == math.inf
    assert epsilon_of([], 1e-5) == 0
    assert epsilon_of([1e-9], 1e-5) == 0
    # sigma 3.730 is what epsilon 1 takes by the analytic Gaussian mechanism
    assert epsilon_of([1 / 3.730], 1e-5) == pytest.approx(1, abs=1e-3)


@pytest.mark.usefixtures("opacus")
def test_epsilon_of_steps_against_what_is_published_and_by_hand() -> None:
    # Abadi et al. 2016, section 3: q = 0.01, sigma = 4, 10,000 steps: 1.26 (a looser conversion)
    published = epsilon_of_steps(4.0, 0.01, 10_000, 1e-5)
    assert 0.9 < published < 1.26

    def by_hand(order: int, q: float, sigma: float, steps: int, delta: float) -> float:
        terms = [
            math.comb(order, k)
            * (1 - q) ** (order - k)
            * q**k
            * math.exp((k * k - k) / 2 / sigma**2)
            for k in range(order + 1)
        ]
        renyi = steps * math.log(sum(terms)) / (order - 1)
        return renyi + math.log((order - 1) / order) - math.log(delta * order) / (order - 1)

    best = min(by_hand(order, 0.1, 1.5, 40, 1e-5) for order in range(2, 33))
    assert epsilon_of_steps(1.5, 0.1, 40, 1e-5) == pytest.approx(best, rel=5e-3)
    # with all images in every batch it is a Gaussian, whose exact epsilon is a little less
    exact = epsilon_of([1 / 2.0] * 10, 1e-5)
    assert exact < epsilon_of_steps(2.0, 1.0, 10, 1e-5) < 1.1 * exact
    assert epsilon_of_steps(0.0, 0.1, 1, 1e-5) == math.inf
    assert epsilon_of_steps(1.0, 0.1, 0, 1e-5) == 0


# A payload against what all know.


def test_only_the_change_from_the_mean_is_clipped() -> None:
    known = {"w": torch.tensor([10.0, 20.0]), "v": torch.tensor([5.0])}
    payload = {"w": torch.tensor([13.0, 24.0]), "v": torch.tensor([5.0])}  # change of norm 5
    out = protect(payload, known, {}, PayloadNoise(clip=2.5, noise=0), seeded(1))
    assert out["w"].tolist() == [11.5, 22.0]
    assert out["v"].tolist() == [5.0]
    assert out["w"].dtype == torch.float32


def test_noise_is_in_the_units_of_a_tensor() -> None:
    payload = {"w": torch.zeros(50_000), "x": torch.zeros(50_000)}
    out = protect(payload, payload, {"x": 100.0}, PayloadNoise(clip=2, noise=3), seeded(1))
    assert out["w"].std().item() == pytest.approx(6, rel=0.02)
    assert out["x"].std().item() == pytest.approx(600, rel=0.02)


def test_a_band_that_grows_is_counted_from_the_mean_inside_and_the_first_weights_outside() -> None:
    weight = torch.randn(16, 16, generator=torch.Generator().manual_seed(1))
    narrow, wide = (low_frequencies(weight, radius) for radius in (0.5, 0.9))
    assert narrow is not None
    assert wide is not None
    mean = {"w.amplitude": narrow.abs() + 1}
    known = known_to_all({"w.amplitude": wide.abs()}, mean)["w.amplitude"]
    change = known - wide.abs()
    assert int((change.abs() > 0.5).sum()) == narrow.numel()
    rows, columns = narrow.shape
    top = (wide.shape[0] - rows) // 2
    assert torch.allclose(change[top : top + rows, :columns], torch.ones_like(narrow.abs()))


def test_changes_of_a_control_are_counted_from_zero() -> None:
    mean = {"local.control.w": torch.ones(2), "local.prototypes": torch.ones(2)}
    assert list(known_to_all({}, mean)) == ["local.prototypes"]


def test_a_spectrum_is_measured_as_the_weight_that_it_is_of() -> None:
    layer = nn.Linear(40, 60)
    spectrum = torch.fft.fft2(layer.weight.detach())
    unit = units_of({"weight.amplitude": spectrum.abs(), "bias": layer.bias}, layer, 1)
    assert list(unit) == ["weight.amplitude"]
    whole = spectrum.abs() / unit["weight.amplitude"]
    assert whole.norm().item() == pytest.approx(layer.weight.norm().item(), rel=1e-5)
    assert units_of({"harmonise.amplitude": whole}, layer, 64) == {"harmonise.amplitude": 64.0}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("method", ["fedavg", "prrfl", "harmofl", "scaffold"])
def test_without_noise_and_with_a_huge_clip_a_method_is_as_without(
    method: str, tmp_path: Path
) -> None:
    """What each method sends is taken apart and put together again."""
    plain = run(method, "phantom", out=tmp_path / "plain", **QUICK)
    wide = run(method, "phantom", out=tmp_path / "wide", **QUICK, **MUCH)
    for file in sorted((tmp_path / "plain" / "models").rglob("*.safetensors")):
        same = read_tensors(tmp_path / "wide" / file.relative_to(tmp_path / "plain"))
        for name, tensor in read_tensors(file).items():
            assert torch.allclose(tensor.float(), same[name].float(), rtol=1e-4, atol=1e-5), name
    assert wide.results["mean"]["macro_f1"] == pytest.approx(plain.results["mean"]["macro_f1"])
    assert set(wide.results["privacy"]["epsilon"].values()) == {None}
    assert "privacy" not in plain.results


@pytest.mark.usefixtures("quick")
def test_what_a_round_moves_the_mean_is_clip_at_most(tmp_path: Path) -> None:
    settings = QUICK | {"rounds": 1, "lr": 0.1}
    far = []
    for clip in (1e30, 0.01):
        out = tmp_path / str(clip)
        chosen = make_settings("fedavg", "phantom", settings)
        run("fedavg", "phantom", out=out, **settings, privacy="payload", clip=clip, noise=0.0)
        classes = ("a", "b", "c")
        first = first_weights(chosen.method, make_task("classification", classes), (3, 32, 32), 1)
        mean = read_tensors(out / "state" / "mean-00001.safetensors")
        far.append(norm({name: mean[name] - tensor for name, tensor in first.items()}))
    assert far[0] > 0.02
    assert 0 < far[1] <= 0.01 + 1e-6


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["payload", "records"])
def test_noise_is_repeated_only_where_it_is_seeded(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = QUICK | {"privacy": kind, "statistics": "group"}
    if kind == "records":
        request.getfixturevalue("opacus")
    free = [run("fedavg", "phantom", out=tmp_path / f"free{i}", **settings) for i in range(2)]
    assert free[0].results["privacy"]["noise_from"] == "the operating system"
    assert len({str(content(one.path)["scores.csv"]) for one in free}) == 2
    settings |= {"privacy.seeded": True}
    seeded_run = partial(run, "fedavg", "phantom", settings=settings)
    once = seeded_run(out=tmp_path / "once")
    with pytest.raises(Stopped):
        seeded_run(out=tmp_path / "again", report=stop_in(2))
    resume(tmp_path / "again")
    assert_same(tmp_path / "again", tmp_path / "once")
    assert "seed" in once.results["privacy"]["not_covered"][0]
    assert once.scores["train_loss"].isna().all()


# What it is worth.


@pytest.mark.usefixtures("quick")
def test_epsilon_of_payloads_counts_rounds_and_who_was_there(tmp_path: Path) -> None:
    result = run(
        "fedavg", "phantom", out=tmp_path / "run", **QUICK, privacy="payload", participation=0.5
    )
    told = result.results["privacy"]
    sent = result.scores[result.scores["moment"] == "epoch"].groupby("site")["round"].nunique()
    for site, epsilon in told["epsilon"].items():
        rounds = int(sent.get(site, 0))
        assert epsilon == pytest.approx(epsilon_of([2.0] * rounds, 1e-5), abs=1e-4)
        # two of four sites take part, so that one other site hides a site from a third
        assert told["epsilon_of_means"][site] == epsilon
    code, out, _ = call("show", tmp_path / "run")
    assert code == 0
    assert "epsilon" in out


@pytest.mark.usefixtures("quick", "opacus")
def test_epsilon_of_records_counts_steps_and_models(tmp_path: Path) -> None:
    settings = QUICK | {"privacy": "records", "statistics": "group", "finetune_epochs": 1}
    found = {}
    for method in ("fedavg", "prrfl"):
        result = run(method, "phantom", out=tmp_path / method, **settings)
        found[method] = result.results["privacy"]
    # 16 images in batches of 8: two steps an epoch, 2 rounds and one epoch of fine-tuning
    assert set(found["fedavg"]["steps"].values()) == {6}
    assert set(found["fedavg"]["epsilon"].values()) == {
        round(epsilon_of_steps(1.0, 0.5, 6, 1e-5), 4)
    }
    assert set(found["prrfl"]["epsilon"].values()) == {
        round(epsilon_of_steps(1 / math.sqrt(2), 0.5, 6, 1e-5), 4)
    }


def account_of(method: str, **settings: object) -> dict[str, Any]:
    """What is told of A, which has 10 images, and B, which has not said; both sent in 2 rounds."""
    chosen = make_settings(method, "phantom", settings).method
    rows = [(round, site, "up") for round in (1, 2) for site in "AB"]
    payloads = pd.DataFrame(rows, columns=["round", "site", "direction"])
    found = account(chosen, {"A": 10}, {"A": [1, 2], "B": [1, 2]}, payloads)
    assert found
    return found


@pytest.mark.parametrize(
    ("method", "settings", "stays"),
    [
        ("fedavg", {"statistics": "averaged"}, False),
        ("fedavg", {"statistics": "recalibrated"}, True),
        ("fedbn", {}, True),
        ("ditto", {"statistics": "averaged"}, True),
    ],
)
def test_models_that_a_site_keeps_are_not_covered(
    method: str, settings: dict[str, object], stays: bool
) -> None:
    words = "models that a site keeps for itself, should they be handed on"
    assert (words in account_of(method, privacy="payload", **settings)["not_covered"]) is stays


@pytest.mark.usefixtures("opacus")
def test_a_site_that_did_not_say_how_many_images_it_has_has_no_epsilon() -> None:
    found = account_of("fedavg", privacy="records", statistics="group")
    assert found["epsilon"]["A"] > 0
    assert found["epsilon"]["B"] is None
    assert "sites that have not said how many images they have: ['B']" in found["not_covered"]


@pytest.mark.usefixtures("opacus")
@pytest.mark.parametrize(("delta", "leaks"), [(0.1, True), (0.09, False)])
def test_a_delta_of_one_over_the_images_allows_a_leak(delta: float, leaks: bool) -> None:
    found = account_of("fedavg", privacy="records", statistics="group", delta=delta)
    words = "a delta of 1/images or more allows an image to leak: ['A']"
    assert (words in found["not_covered"]) is leaks


@pytest.mark.usefixtures("opacus")
@pytest.mark.parametrize(("method", "bare"), [("fedavg", False), ("ditto", True)])
def test_personal_models_without_noise_are_named(method: str, bare: bool) -> None:
    found = account_of(method, privacy="records", statistics="group")
    assert any("trained without noise" in words for words in found["not_covered"]) is bare


def test_epsilon_of_payloads_by_hand_for_other_numbers() -> None:
    settings = {"privacy": "payload", "noise": 4.0, "clip": 3.0, "delta": 1e-6}
    chosen = make_settings("fedavg", "phantom", settings).method
    rows = [(1, site, "up") for site in "ABCDE"] + [(2, "A", "up")]
    payloads = pd.DataFrame(rows, columns=["round", "site", "direction"])
    found = account(chosen, {}, {"A": [1, 2], "B": [1]}, payloads)
    assert found
    # 2 clip apart, in noise of 4 clip; in a mean of five there are the other four's noises
    assert found["epsilon"] == {
        "A": round(epsilon_of([0.5, 0.5], 1e-6), 4),
        "B": round(epsilon_of([0.5], 1e-6), 4),
    }
    assert found["epsilon_of_means"] == {"A": None, "B": round(epsilon_of([0.25], 1e-6), 4)}


@pytest.mark.usefixtures("opacus")
def test_epsilon_of_records_by_hand_for_other_numbers() -> None:
    settings = {"privacy": "records", "statistics": "group", "noise": 2.0, "clip": 3.0}
    settings |= {"delta": 1e-4, "local_epochs": 3, "batch_size": 8}
    chosen = make_settings("fedavg", "phantom", settings).method
    payloads = pd.DataFrame([], columns=["round", "site", "direction"])
    found = account(chosen, {"A": 25}, {"A": [1, 2]}, payloads)
    assert found
    # 25 images in batches of 8: three steps an epoch, as the last image goes with others
    an_epoch = len(split_into_batches(25, 8))
    assert found["steps"] == {"A": 6 * an_epoch}
    wanted = epsilon_of_steps(2.0, 1 / an_epoch, 6 * an_epoch, 1e-4)
    assert found["epsilon"] == {"A": round(wanted, 4)}
    assert epsilon_of_run(chosen, 25, 2, 1e-4) == wanted
    assert epsilon_of_run(chosen, 25, 2, 1e-6) > wanted


def test_what_is_shared_is_what_is_noised() -> None:
    for kind, models in NOISED.items():
        assert LOCAL_UPDATES[kind].shared in models


def test_noise_differs_by_site_round_and_seed() -> None:
    drawn = set()
    for seed in (1, 2):
        settings = {**QUICK, "privacy": "payload", "privacy.seeded": True}
        method = make_settings("fedavg", "phantom", settings).method
        task = make_task("classification", ("a", "b"))
        client = Client(method, task, (3, 32, 32), seed, torch.device("cpu"))
        for name in "AB":
            client.data = ClientData(name, ())
            drawn |= {client.source(round)(8) for round in (1, 2)}
            assert client.source(1)(8) == client.source(1)(8)
    assert len(drawn) == 8


# Single images.


class Small(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.GroupNorm(2, 8),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def step(
    noise: float,
    clip: float,
    cuts: list[int],
    count: int = 6,
    batch: int = 4,
    layout: torch.memory_format = torch.contiguous_format,
) -> nn.Module:
    """Take a step on ``count`` images, in parts, and give the model with its gradient."""
    torch.manual_seed(1)
    model = Small().to(memory_format=layout)  # type: ignore[call-overload]
    images, target = torch.randn(count, 3, 8, 8), torch.arange(count) % 3
    images = images.contiguous(memory_format=layout)
    task = make_task("classification", ("a", "b", "c"))
    task = task.with_loss(image_by_image(task.loss))
    privacy = RecordNoise(clip=clip, noise=noise)
    gradient = NoisedGradient(model, privacy, Chance(batch, 1, seeded(3)))
    still = torch.optim.SGD(model.parameters(), lr=1e-9)
    training = Training(
        {"model": model}, {"model": still}, task, lambda: iter(()), lambda: iter(())
    )
    training.noised = {"model": gradient}
    with gradient:
        for first, last in pairwise(cuts):
            training.complete = last == cuts[-1]
            training.share = (last - first) / max(1, count)
            outputs = training.forward("model", images[first:last])
            loss = partial(task.loss, target=target[first:last])
            training.step("model", images[first:last], outputs, loss)
    assert training.steps == {"model": 1}
    return model


@pytest.mark.usefixtures("opacus")
@pytest.mark.parametrize("cuts", [[0, 6], [0, 2, 6]], ids=["whole", "in parts"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_clipped_as_by_hand_image_by_image(
    cuts: list[int], layout: torch.memory_format
) -> None:
    clip = 0.5
    model = step(noise=0.0, clip=clip, cuts=cuts, layout=layout)
    torch.manual_seed(1)
    alone = Small()
    images, target = torch.randn(6, 3, 8, 8), torch.arange(6) % 3
    wanted = [torch.zeros_like(p) for p in alone.parameters()]
    norms = []
    for i in range(6):
        alone.zero_grad()
        nn.functional.cross_entropy(alone(images[i : i + 1]), target[i : i + 1]).backward()
        each = [p.grad for p in alone.parameters() if p.grad is not None]
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in each)))
        for total, gradient in zip(wanted, each, strict=True):
            total += gradient * min(1.0, clip / norms[-1])
    assert max(norms) > clip
    for parameter, total in zip(model.parameters(), wanted, strict=True):
        assert torch.allclose(parameter.grad, total / 4, atol=1e-6)  # 4: the expected batch
        assert not hasattr(parameter, "grad_sample")


@pytest.mark.usefixtures("opacus")
def test_a_batch_without_images_still_takes_its_noise() -> None:
    model = step(noise=2.0, clip=0.5, cuts=[0, 0], count=0)
    gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert gradients.std().item() == pytest.approx(2 * 0.5 / 4, rel=0.15)


@pytest.mark.usefixtures("opacus")
def test_the_noise_of_a_step_is_what_was_asked_for() -> None:
    with_noise, without = step(3.0, 0.5, [0, 6]), step(0.0, 0.5, [0, 6])
    pairs = zip(with_noise.parameters(), without.parameters(), strict=True)
    noise = torch.cat([(a.grad - b.grad).flatten() for a, b in pairs])
    assert noise.std().item() == pytest.approx(3 * 0.5 / 4, rel=0.15)
    assert abs(noise.mean().item()) < 5 * 3 * 0.5 / 4 / math.sqrt(len(noise))


@pytest.mark.usefixtures("opacus")
def test_a_batch_has_nothing_of_the_one_before() -> None:
    torch.manual_seed(1)
    model, images = Small(), torch.randn(4, 3, 8, 8)
    apart = []
    for batches in ([images[:2], images[2:]], [images[2:]]):
        gradient = NoisedGradient(model, RecordNoise(noise=0.0), Chance(2, 1, seeded(3)))
        with gradient:
            for batch in batches:
                gradient.take(model(batch).square().mean(), complete=True)
        apart.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert apart[0]
    assert all(torch.equal(one, other) for one, other in zip(*apart, strict=True))


def test_one_image_without_a_norm_does_not_undo_the_others() -> None:
    for odd in (math.inf, -math.inf, math.nan):
        gradients = {"w": torch.tensor([[odd, 0.0], [0.0, 0.5]]), "b": torch.tensor([1.0, 2.0])}
        found = clipped_sum(gradients, 10.0)
        assert found["w"].tolist() == [0.0, 0.5]
        assert found["b"].item() == 2.0


@pytest.mark.parametrize("distillation", ["kl", "mse"])
@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_two_models_learn_nothing_from_a_batch_without_images(distillation, kind) -> None:  # type: ignore[no-untyped-def]
    task = make_task(kind, ("a", "b", "c"))
    task = task.with_loss(image_by_image(task.loss))
    shape = (0, 3) if kind == "classification" else (0, 3, 4, 4)
    outputs = {role: torch.zeros(shape, requires_grad=True) for role in DeputyTransfer.roles}
    target = torch.zeros((0, *shape[2:]), dtype=torch.long)
    update = DeputyTransfer(distillation=distillation)
    for role, loss_of in update.losses(task, "exchange", outputs, target).items():
        loss = loss_of(outputs[role])
        assert loss.item() == 0
        loss.backward()


SIZES: list[int] = []


class Counting(Small):
    """Notes how many images come at a time in training."""

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            SIZES.append(len(images))
        return super().forward(images)


@pytest.mark.usefixtures("quick", "opacus")
def test_batches_of_a_run_come_by_chance(tmp_path: Path) -> None:
    settings = QUICK | {"privacy": "records", "model": "tests.test_privacy:Counting"}
    SIZES.clear()
    run("fedavg", "phantom", out=tmp_path / "run", **settings, **{"privacy.seeded": True})
    assert len(set(SIZES[-16:])) > 3  # cut from 16 shuffled images, all would be of 8


@pytest.mark.usefixtures("quick", "opacus")
def test_what_is_clipped_to_nothing_moves_nothing(tmp_path: Path) -> None:
    settings = QUICK | {"privacy": "records", "model": "tests.test_privacy:Counting", "rounds": 1}
    settings |= {"clip": 1e-9, "noise": 0.0, "weight_decay": 0.0}
    result = run("fedavg", "phantom", out=tmp_path / "run", **settings)
    method = make_settings("fedavg", "phantom", settings).method
    task = make_task("classification", load("phantom").classes)
    first = first_weights(method, task, (3, 32, 32), int(result.results["seed"]))
    (file,) = (result.path / "state").glob("mean-00001.safetensors")
    mean = read_tensors(file)
    assert mean
    for name, tensor in mean.items():
        assert torch.allclose(tensor, first[name], atol=1e-6), name


def test_slices_in_three_images_are_refused_wherever_that_is_said(tmp_path: Path) -> None:
    """The data set may say so, or a federation, or a plan; not only the option."""
    settings = {**QUICK, "privacy": "records", "statistics": "group"}
    del settings["train_limit"]
    federation = load("phantom")
    deep = replace(federation, form=replace(federation.form, neighbours=True))
    with pytest.raises(SettingsError, match="in three images"):
        run("fedavg", deep, out=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()
    plan = plan_without_data("run", "fedavg", "any", ["a", "b"], ["c", "d"], settings)
    values = plan.as_dict()
    values["form"]["neighbours"] = True
    with pytest.raises(SettingsError, match="in three images"):
        Plan.from_dict(values, ("tests.",))


def test_every_image_comes_by_chance_and_by_itself() -> None:
    chance = Chance(images=50, steps=5, source=seeded(1))
    came = np.zeros((2000, 50))
    for row in range(0, 2000, 5):
        for i, batch in enumerate(chance.samples()):
            came[row + i, batch] = 1
    assert chance.batch == 10
    assert abs(came.mean() - 0.2) < 5 * math.sqrt(0.16 / came.size)
    sizes = came.sum(1)
    assert sizes.var() == pytest.approx(50 * 0.2 * 0.8, rel=0.2)  # a binomial's: not all alike


class Mixes(Small):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images - images.mean(0, keepdim=True))


@pytest.mark.usefixtures("opacus")
def test_networks_in_which_images_are_not_apart_are_refused() -> None:
    require_images_apart(Small(), (3, 8, 8))
    with pytest.raises(SettingsError, match="depends on the other images"):
        require_images_apart(Mixes(), (3, 8, 8))
    with pytest.raises(SettingsError, match="'1' normalises by the other images"):
        require_images_apart(nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)), (3, 8, 8))


@pytest.mark.usefixtures("opacus")
def test_a_network_that_gathers_numbers_of_the_images_is_refused() -> None:
    """They would leave with the weights, without noise."""

    class Gathers(Small):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("centre", torch.zeros(3))

        def forward(self, images: Tensor) -> Tensor:
            if self.training:
                self.centre = self.centre.lerp(images.detach().mean((0, 2, 3)), 0.1)
            return super().forward(images)

    with pytest.raises(SettingsError, match="'centre' gathers numbers of the images"):
        require_images_apart(Gathers(), (3, 8, 8))


def test_what_is_not_finite_is_not_sent_at_all() -> None:
    """No factor would bound the rest."""
    payload = {"a": torch.tensor([torch.nan]), "b": torch.full((3,), 1000.0)}
    with pytest.raises(TrainingError, match="is not finite"):
        protect(payload, {}, {}, PayloadNoise(clip=1, noise=1), seeded(1))


@pytest.mark.usefixtures("quick")
def test_variances_are_cut_off_at_0_after_the_mean_and_not_before(tmp_path: Path) -> None:
    """Noise that is cut off at every site would hide the others less than epsilon says."""
    values = torch.ones(1000)
    sent = protect({"v.running_var": values}, {}, {}, PayloadNoise(clip=1, noise=1), seeded(1))
    assert sent["v.running_var"].std().item() == pytest.approx(1, rel=0.1)
    settings = SHORT | TINY | {"privacy": "payload", "noise": 30.0, "privacy.seeded": True}
    result = run(
        "fedavg", "phantom", out=tmp_path / "run", settings=settings | {"statistics": "averaged"}
    )
    mean = read_tensors(sorted((tmp_path / "run" / "state").glob("mean-*.safetensors"))[-1])
    model = read_tensors(tmp_path / "run" / "models" / "global.safetensors")
    sent_variances = [t for name, t in mean.items() if name.endswith("running_var")]
    variances = [t for name, t in model.items() if name.endswith("running_var")]
    assert any((t < 0).any() for t in sent_variances)
    assert variances
    assert all((t >= 0).all() for t in variances)
    assert result.results["one_global_model"] is True


@pytest.mark.usefixtures("quick")
def test_numbers_that_follow_from_the_images_do_not_pass_the_noise_by(tmp_path: Path) -> None:
    """The stage of a deputy comes from scores on training images, as the training loss does."""
    settings = SHORT | TINY | {"privacy": "payload", "local_epochs": 2}
    result = run("prrfl", "phantom", out=tmp_path / "run", settings=settings)
    assert set(result.scores["stage"]) <= {""}
    assert result.scores["train_loss"].isna().all()


@pytest.mark.usefixtures("quick", "opacus")
@pytest.mark.parametrize(("method", "models"), [("fedavg", 1), ("ditto", 2)])
def test_how_many_images_were_drawn_stays_at_the_site(
    method: str, models: int, tmp_path: Path
) -> None:
    settings = SHORT | TINY | {"privacy": "records", "statistics": "group"}
    results = run(method, "phantom", out=tmp_path / "run", settings=settings).results
    images = sum(results["training_images"].values())
    assert results["images_with_gradient"] == images * SHORT["rounds"] * models


# What does not go together.


@pytest.mark.parametrize(
    ("method", "settings", "says"),
    [
        ("local", {"privacy": "payload"}, "here nothing does"),
        ("fednova", {"privacy": "payload"}, "aggregation 'normalised'"),
        ("prrfl-journal", {"privacy": "payload"}, "local 'prototype-deputy'"),
        ("ida", {"privacy": "payload"}, "weighting 'closeness'"),
        ("fedavg", {"privacy": "payload", "weighting": "images"}, "weighting 'images'"),
        ("fedprox", {"privacy": "records"}, "local 'proximal'"),
        ("scaffold", {"privacy": "records"}, "local 'control-variates'"),
        ("prrfl", {"privacy": "records"}, "--local-epochs 1"),
        ("fedsam", {"privacy": "records"}, "--perturbation 0"),
        ("harmofl", {"privacy": "records", "perturbation": 0.0}, "--harmonise none"),
        ("fedavg", {"privacy": "records", "loss": "balanced"}, "loss 'balanced'"),
        ("fedavg", {"privacy": "records", "precision": "bfloat16"}, "float32"),
        ("fedavg", {"privacy": "records", "machine.compile": True}, "compile"),
        ("fedavg", {"privacy": "records", "neighbours": True}, "use --no-neighbours"),
        ("fedavg", {"privacy": "some"}, "unknown privacy 'some'"),
        ("fedavg", {"privacy": "payload", "clip": 0.0}, "privacy.clip"),
        ("fedavg", {"clip": 1.0}, "unknown setting 'clip'"),
    ],
)
def test_what_noise_does_not_cover_is_refused_in_words(
    method: str, settings: dict[str, object], says: str
) -> None:
    with pytest.raises(SettingsError, match=says):
        make_settings(method, "phantom", settings)


def test_across_sites_noise_must_not_follow_from_a_seed() -> None:
    settings = {"privacy": "payload", "privacy.seeded": True}
    with pytest.raises(SettingsError, match="can be taken off again"):
        plan_without_data("run", "fedavg", "lesions", ["a", "b"], ["c", "d"], settings)


@pytest.mark.usefixtures("quick")
def test_the_report_says_what_noise_promises(tmp_path: Path) -> None:
    run("fedavg", "phantom", out=tmp_path / "run", **QUICK, privacy="payload", noise=0.0)
    write_report(tmp_path / "run", out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "differential privacy by payload, clip 1, noise 0" in page
    assert "infinite (no guarantee)" in page
