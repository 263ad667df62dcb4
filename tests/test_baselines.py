"""Every baseline against numbers derived by hand, in whole runs; see `tests.points`.

A step goes half of the way from w to a site's point: w' = (w + p) / 2.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from counterpoint.aggregation.normalised import step_weight
from counterpoint.data.augment import AUGMENTATIONS
from counterpoint.data.batches import Batch, batches
from counterpoint.errors import SettingsError
from counterpoint.federation import taking_part
from counterpoint.server_update import SERVER_UPDATES
from counterpoint.settings import make_settings
from tests.points import play

pytestmark = pytest.mark.usefixtures("quick")


def near(*numbers: float) -> object:
    return pytest.approx(list(numbers), abs=2e-6)


def test_fedavg(tmp_path: Path) -> None:
    """Round 1: A goes to (2, 0), B to (0, 1), the mean is (1, 1/2).

    Round 2: A goes to (5/2, 1/4), B to (1/2, 5/4), the mean is (3/2, 3/4).
    """
    assert play(tmp_path / "1", "fedavg", 1).down() == near(1, 0.5)
    played = play(tmp_path / "2", "fedavg", 2)
    assert played.down() == played.model("A") == played.model("B") == near(1.5, 0.75)
    assert played.sent() == {"w"}


def test_fedavg_weighted_by_images(tmp_path: Path) -> None:
    """A has 2 images, one step to (2, 0); B has 4, two steps to (0, 1) and (0, 3/2).

    Weighted alike the mean is (1, 3/4), by images (2 * 2 / 6, 4 * 3/2 / 6) = (2/3, 1).
    """
    assert play(tmp_path / "1", "fedavg", 1, images=(2, 4)).down() == near(1, 0.75)
    by_images = play(tmp_path / "2", "fedavg", 1, images=(2, 4), weighting="images")
    assert by_images.down() == near(2 / 3, 1)


def test_fedprox(tmp_path: Path) -> None:
    """Two steps a round, mu = 1/2: the gradient is w - p + (w - w_start) / 2.

    Round 1. A: from (0, 0) to (2, 0), where the gradient is -2 + 1 = -1, to (5/2, 0). B: to (0, 1),
    where it is -1 + 1/2, to (0, 5/4). The mean is (5/4, 5/8), and w_start of round 2.

    Round 2. A: to (21/8, 5/16), where the gradient is (-11/8 + 11/16, 5/16 - 5/32)
    = (-11/16, 5/32), to (95/32, 15/64). B: to (5/8, 21/16), where it is (5/8 - 5/16,
    -11/16 + 11/32) = (5/16, -11/32), to (15/32, 95/64). The mean is (55/32, 55/64).
    """
    options = {"local_epochs": 2, "mu": 0.5}
    assert play(tmp_path / "1", "fedprox", 1, **options).down() == near(5 / 4, 5 / 8)
    assert play(tmp_path / "2", "fedprox", 2, **options).down() == near(55 / 32, 55 / 64)


def test_fednova_with_different_numbers_of_steps(tmp_path: Path) -> None:
    """A takes one step, B two, tau_eff = (1 + 2) / 2 = 3/2.

    Round 1. A ends in (2, 0): d = (-2, 0). B ends in (0, 3/2): d = (0, -3/4). The mean d is
    (-1, -3/8), and x = 0 + 3/2 * (1, 3/8) = (1.5, 0.5625). FedAvg would give (1, 3/4).

    Round 2. A ends in (2.75, 0.28125): d = (-1.25, 0.28125). B goes to (0.75, 1.28125) and
    (0.375, 1.640625): d = (1.125, -1.078125) / 2. The mean d is (-0.34375, -0.12890625), and
    x = (1.5 + 0.515625, 0.5625 + 0.193359375).
    """
    one = play(tmp_path / "1", "fednova", 1, images=(2, 4))
    assert one.down() == near(1.5, 0.5625)
    assert one.sent() == {"direction.w", "steps"}
    two = play(tmp_path / "2", "fednova", 2, images=(2, 4))
    assert two.down() == two.model("A") == near(2.015625, 0.755859375)


def test_fednova_with_momentum(tmp_path: Path) -> None:
    """Momentum 1/2: a = 1 for A's one step; for B's two it is 1 + (1 + 1/2) = 5/2.

    A ends in (2, 0): d = (-2, 0). B: the gradient is -2, to (0, 1); there it is -1 and the momentum
    -1/2 * 2 - 1 = -2, to (0, 2): d = -2 / (5/2) = -4/5. The mean a is 7/4, the mean d (-1, -2/5),
    so x = 7/4 * (1, 2/5) = (1.75, 0.7).
    """
    assert play(tmp_path, "fednova", 1, images=(2, 4), momentum=0.5).down() == near(1.75, 0.7)
    # every gradient comes in 1 + rho + rho^2 + ... times, the last one once
    assert step_weight(4, 0.9) == pytest.approx(1 + 1.9 + 2.71 + 3.439)


def test_fedavgm(tmp_path: Path) -> None:
    """The mean goes from x to x/2 + (1, 1/2), so that the change is delta = (1, 1/2) - x/2.

    Round 1: m = delta = (1, 1/2), x = (1, 1/2). Round 2: delta = (1/2, 1/4),
    m = 0.9 (1, 1/2) + (1/2, 1/4) = (1.4, 0.7), x = (2.4, 1.2).
    """
    assert play(tmp_path / "1", "fedavgm", 1).down() == near(1, 0.5)
    assert play(tmp_path / "2", "fedavgm", 2).down() == near(2.4, 1.2)


def test_fedadam(tmp_path: Path) -> None:
    """beta1 = beta2 = 1/2, tau = 1, server lr = 1; delta = (1, 1/2) - x/2; m = 0, v = 1 at first.

    Round 1: m = (1/2, 1/4), v = 1/2 + 1/2 (1, 1/4) = (1, 5/8),
    x = (1/2 / (1 + 1), 1/4 / (sqrt(5/8) + 1)) = (0.25, 0.139620).

    Round 2, first weight: delta = 7/8, m = 1/4 + 7/16 = 11/16, v = 1/2 + 49/128 = 113/128,
    x = 1/4 + 11/16 / (sqrt(113/128) + 1) = 0.604458.
    """
    options = {"beta1": 0.5, "beta2": 0.5, "tau": 1.0, "server.lr": 1.0}
    x = 0.25 / (math.sqrt(5 / 8) + 1)
    assert play(tmp_path / "1", "fedadam", 1, **options).down() == near(0.25, x)
    delta = 0.5 - x / 2
    m, v = 0.125 + delta / 2, 5 / 16 + delta**2 / 2
    two = play(tmp_path / "2", "fedadam", 2, **options)
    assert two.down() == near(0.604458, x + m / (math.sqrt(v) + 1))


def test_fedyogi(tmp_path: Path) -> None:
    """As FedAdam with tau = 1/2, so that v begins at 1/4, and v' = v - 1/2 d^2 sign(v - d^2).

    Round 1: d = (1, 1/2), d^2 = (1, 1/4): v grows to (3/4, 1/4), m = (1/2, 1/4),
    x = (1/2 / (sqrt(3/4) + 1/2), 1/4 / (1/2 + 1/2)) = (0.366025, 1/4).

    Round 2: d = (1 - 0.183013, 1/2 - 1/8) = (0.816987, 3/8), d^2 = (0.667468, 9/64) < v: v shrinks
    to (3/4 - 0.333734, 1/4 - 9/128) = (0.416266, 23/128); m = (1/4 + 0.408494, 1/8 + 3/16)
    = (0.658494, 5/16); x = (0.366025 + 0.658494 / 1.145187, 1/4 + 5/16 / (sqrt(23/128) + 1/2)).
    """
    options = {"beta1": 0.5, "beta2": 0.5, "tau": 0.5, "server.lr": 1.0}
    assert play(tmp_path / "1", "fedyogi", 1, **options).down() == near(0.366025, 0.25)
    second = 0.25 + 0.3125 / (math.sqrt(23 / 128) + 0.5)
    assert play(tmp_path / "2", "fedyogi", 2, **options).down() == near(0.941035, second)


def test_fedadagrad(tmp_path: Path) -> None:
    """tau = 1, server lr = 1, no momentum: v begins at 1 and grows by delta^2.

    Round 1: v = (2, 5/4), x = (1 / (sqrt 2 + 1), 1/2 / (sqrt(5/4) + 1)) = (sqrt 2 - 1, sqrt 5 - 2).

    Round 2: delta = (1.5 - sqrt 2 / 2, 1.5 - sqrt 5 / 2) = (0.792893, 0.381966),
    v = (2.628680, 1.395898), x = (0.414214 + 0.792893 / 2.621320, 0.236068 + 0.381966 / 2.181481).
    """
    options = {"tau": 1.0, "server.lr": 1.0}
    one = play(tmp_path / "1", "fedadagrad", 1, **options).down()
    assert one == near(math.sqrt(2) - 1, math.sqrt(5) - 2)
    assert play(tmp_path / "2", "fedadagrad", 2, **options).down() == near(0.716692, 0.411163)


@pytest.mark.parametrize("kind", ["momentum", "adam", "yogi", "adagrad"])
def test_server_optimisers_leave_what_is_no_weight_alone(kind: str) -> None:
    """Running statistics, amplitudes and what local updates send go down as their mean."""
    names = ("statistics.running_var", "harmonise.amplitude", "local.counts")
    mean = {name: torch.tensor([3.0]) for name in ("w", *names)}
    before = {name: torch.tensor([1.0]) for name in ("w", *names)}
    server = SERVER_UPDATES[kind](lr=0.5)  # type: ignore[call-arg]
    down, kept = server.update(mean, before, {}, 1.0)
    assert down["w"].item() != 3
    assert [down[name].item() for name in names] == [3, 3, 3]
    assert all(name.endswith(".w") for name in kept)


def test_the_usual_server_optimisers_have_the_papers_constants() -> None:
    for method, beta1 in (("fedadam", 0.9), ("fedyogi", 0.9), ("fedadagrad", 0.0)):
        server = make_settings(method, "x", {}).method.server
        assert (server.beta1, server.beta2, server.tau) == (beta1, 0.99, 1e-3)  # type: ignore[attr-defined]


def test_scaffold(tmp_path: Path) -> None:
    """Controls are the gradients at the start of a round, as a round is one step.

    Round 1: all controls are 0. A goes to (2, 0), B to (0, 1), x = (1, 1/2).
    c_A = (0 - (2, 0)) / (1 * 1/2) = (-4, 0), c_B = (0, -2), c = (-2, -1).

    Round 2: A's gradient is (-3, 1/2), with c - c_A = (2, -1) it is (-1, -1/2); B's is (1, -3/2),
    with c - c_B = (-2, 1) also (-1, -1/2): no drift, both go to (3/2, 3/4).
    c_A = (-4, 0) - (-2, -1) + (-1/2, -1/4) / (1/2) = (-3, 1/2), c_B = (1, -3/2), c = (-1, -1/2).
    """
    one = play(tmp_path / "1", "scaffold", 1)
    assert one.down() == near(1, 0.5)
    assert one.down("local.control.network.w") == near(-2, -1)
    assert one.state("A")["memory/network.w"].tolist() == near(-4, 0)
    two = play(tmp_path / "2", "scaffold", 2)
    assert two.down() == two.model("A") == near(1.5, 0.75)
    assert two.down("local.control.network.w") == near(-1, -0.5)
    assert two.state("A")["memory/network.w"].tolist() == near(-3, 0.5)
    assert two.state("B")["memory/network.w"].tolist() == near(1, -1.5)


def test_scaffold_with_several_steps(tmp_path: Path) -> None:
    """B's two steps of round 1 end in (0, 3/2): c_B = -3/2 / (2 * 1/2) = -3/2, c = (-2, -3/4)."""
    played = play(tmp_path, "scaffold", 1, images=(2, 4))
    assert played.state("B")["memory/network.w"].tolist() == near(0, -1.5)
    assert played.down("local.control.network.w") == near(-2, -0.75)


def test_scaffold_with_momentum(tmp_path: Path) -> None:
    """Momentum 1/2: of B's two gradients -2 and -1 the first counts 1 + 1/2 times, the second once.

    B goes to (0, 1) and (0, 2), c_B = -2 / ((1 + 1/2 + 1) * 1/2) = -(3/2 * 2 + 1) / (5/2) = -1.6;
    A's one step is as without momentum.
    """
    played = play(tmp_path / "1", "scaffold", 1, images=(2, 4), momentum=0.5)
    assert played.state("A")["memory/network.w"].tolist() == near(-4, 0)
    assert played.state("B")["memory/network.w"].tolist() == near(0, -1.6)
    assert played.down("local.control.network.w") == near(-2, -0.8)


def test_scaffold_with_momentum_gets_to_the_best_point(tmp_path: Path) -> None:
    """However different the numbers of steps: the mean of the points, (2, 1)."""
    settings = {"momentum": 0.9, "schedule.lr": 0.02}
    played = play(tmp_path, "scaffold", 20, images=(2, 8), local_epochs=4, **settings)
    assert played.down() == pytest.approx([2, 1], abs=0.05)


def test_fine_tuning_after_scaffold_is_for_the_site_alone(tmp_path: Path) -> None:
    """It ends where FedAvg's does, see `test_finetune`: no correction keeps it with the others."""
    played = play(tmp_path, "scaffold", 1, finetune_epochs=2)
    assert (played.model("A"), played.model("B")) == (near(3.25, 0.125), near(0.25, 1.625))


@pytest.mark.parametrize(
    ("method", "settings", "says"),
    [
        ("scaffold", {"aggregation": "head"}, "use --aggregation all"),
        ("scaffold", {"momentum": 0.9, "keep_optimizer": True}, "keep_optimizer=false"),
        ("fednova", {"momentum": 0.9, "keep_optimizer": True}, "keep_optimizer=false"),
        ("prrfl-journal", {"loss": "balanced"}, "has a loss of its own"),
        ("prrfl-journal", {"weighting": "images"}, "weighting=equal"),
    ],
)
def test_what_would_be_another_algorithm_is_refused(
    method: str, settings: dict[str, object], says: str
) -> None:
    with pytest.raises(SettingsError, match=says):
        make_settings(method, "phantom", settings)


def test_scaffold_with_an_absent_site(tmp_path: Path) -> None:
    """One of two sites takes part: c changes by |S| / N = 1/2 of the change of its control.

    Round 1, A alone: to (2, 0), c_A = (-4, 0), c = (-2, 0).

    Round 2, B alone: its gradient at (2, 0) is (2, -2), with c - c_B = (-2, 0) it is (0, -2): to
    (2, 1). c_B = 0 - (-2, 0) + (0, -1) / (1/2) = (2, -2), c = (-2, 0) + (2, -2) / 2 = (-1, -1),
    which is the mean of c_A and c_B.
    """
    options = {"participation": 0.5}

    def drawn(seed: int) -> list[list[int]]:
        settings = make_settings("scaffold", "x", options | {"seed": seed})
        return [taking_part([None, None], settings, round) for round in (1, 2)]  # type: ignore[list-item]

    seed = next(seed for seed in range(99) if drawn(seed) == [[0], [1]])
    played = play(tmp_path, "scaffold", 2, seed=seed, **options)
    assert played.down() == played.model("A") == played.model("B") == near(2, 1)
    assert played.down("local.control.network.w") == near(-1, -1)
    assert played.state("A")["memory/network.w"].tolist() == near(-4, 0)
    assert played.state("B")["memory/network.w"].tolist() == near(2, -2)


def test_ida(tmp_path: Path) -> None:
    """A moves by 2 and weighs 1/2, B moves by 1 and weighs 1.

    The mean is (1/2 * 2, 1 * 1) / (3/2) = (2/3, 2/3).
    """
    assert play(tmp_path, "ida", 1).down() == near(2 / 3, 2 / 3)


def test_ditto(tmp_path: Path) -> None:
    """Two steps a round, lambda = 1/2: the personal gradient is v - p + (v - w_start) / 2.

    Round 1. Global: A to (2, 0) and (3, 0), B to (0, 1) and (0, 3/2), the mean is (3/2, 3/4).
    Personal: A to (2, 0), where the gradient is -2 + 1, and (5/2, 0); B to (0, 1) and (0, 5/4).

    Round 2. Personal, w_start = (3/2, 3/4): A from (5/2, 0), which stayed, with gradient
    (-3/2 + 1/2, -3/8) to (3, 3/16), with (-1 + 3/4, 3/16 - 9/32) to (3.125, 0.234375). B from
    (0, 5/4), with (-3/4, -3/4 + 1/4) to (3/8, 3/2), with (3/8 - 9/16, -1/2 + 3/8) to
    (0.46875, 1.5625). Global: A to (2.75, 0.375) and (3.375, 0.1875), B to (0.75, 1.375) and
    (0.375, 1.6875), the mean is (1.875, 0.9375).
    """
    options = {"local_epochs": 2, "strength": 0.5}
    one = play(tmp_path / "1", "ditto", 1, **options)
    assert (one.down(), one.model("A"), one.model("B")) == (
        near(1.5, 0.75),
        near(2.5, 0),
        near(0, 1.25),
    )
    two = play(tmp_path / "2", "ditto", 2, **options)
    assert (two.down(), two.model("A"), two.model("B")) == (
        near(1.875, 0.9375),
        near(3.125, 0.234375),
        near(0.46875, 1.5625),
    )


def test_fedsam(tmp_path: Path) -> None:
    """rho = 1, from (1, 4).

    A: g = (-3, 4), |g| = 5, at w + g/5 the gradient is 6/5 g = (-3.6, 4.8): to (2.8, 1.6).
    B: g = (1, 2), |g| = sqrt 5, the gradient is (1 + 1 / sqrt 5) g: to (1, 4) - 0.723607 (1, 2).
    """
    start = {"model_options": {"start": [1.0, 4.0]}}
    played = play(tmp_path, "fedsam", 1, perturbation=1.0, **start)
    assert played.down() == near((2.8 + 0.276393) / 2, (1.6 + 2.552786) / 2)
    assert played.result.results["images_with_gradient"] == 2 * 2 * 2


def test_fedasam(tmp_path: Path) -> None:
    """rho = 1/2, from w = (0.99, 1.99), where t = |w| + 0.01 = (1, 2); delta = rho t^2 g / |t g|.

    A: p so that g = (3, 2). t g = (3, 4), |t g| = 5, t^2 g = (3, 8), delta = (0.3, 0.8); the
    gradient at w + delta is (3.3, 2.8): to (-0.66, 0.59).
    B: g = (-4, 1.5). t g = (-4, 3), t^2 g = (-4, 6), delta = (-0.4, 0.6); the gradient is
    (-4.4, 2.1): to (3.19, 0.94).
    """
    played = play(
        tmp_path,
        "fedasam",
        1,
        points=((0.99 - 3, 1.99 - 2), (0.99 + 4, 1.99 - 1.5)),
        perturbation=0.5,
        model_options={"start": [0.99, 1.99]},
    )
    assert played.down() == near((3.19 - 0.66) / 2, (0.59 + 0.94) / 2)


def test_local(tmp_path: Path) -> None:
    """Two steps alone: A to (2, 0) and (3, 0), B to (0, 1) and (0, 3/2); nothing leaves."""
    played = play(tmp_path, "local", 2)
    assert (played.model("A"), played.model("B")) == (near(3, 0), near(0, 1.5))
    assert played.sent() == set()


def test_finetune(tmp_path: Path) -> None:
    """One round of FedAvg ends in (1, 1/2); then two epochs of one step each at each site.

    A: (5/2, 1/4), (13/4, 1/8), loss (0.75^2 + 0.125^2) / 2 = 0.2890625.
    B: (1/2, 5/4), (1/4, 13/8), loss (0.25^2 + 0.375^2) / 2 = 0.1015625.
    Validation looks at the last epoch only: macro-F1 1, mean loss 0.1953125. The learning rate is
    that of the start, however far it has come down.
    """
    played = play(tmp_path, "finetune", 1, finetune_epochs=2, lr_decay=0.1, lr_decay_rounds=1)
    assert (played.model("A"), played.model("B")) == (near(3.25, 0.125), near(0.25, 1.625))
    assert played.down() == near(1, 0.5)
    results = played.result.results
    assert (results["validation"], results["chosen_round"]) == (1.0, 1)
    assert played.notebook.best_loss == pytest.approx(0.1953125)
    assert results["test"]["A"]["loss"] == pytest.approx(0.2890625)
    assert results["test"]["B"]["loss"] == pytest.approx(0.1015625)


def test_pooled(tmp_path: Path) -> None:
    """2 images of A and 6 of B in one batch pull to (2 (4, 0) + 6 (0, 2)) / 8 = (1, 3/2).

    One step from (0, 0) ends in (1/2, 3/4).
    """
    played = play(tmp_path, "pooled", 1, images=(2, 6), batch_size=8)
    assert played.result.model().network.w.tolist() == near(0.5, 0.75)
    assert set(played.result.table.index) == {"A", "B"}


HEADED = {"model": "tests.points:BodyAndHead"}


def test_fedper(tmp_path: Path) -> None:
    """The first number is the body's. Round 1: A (2, 0), B (0, 1); the mean body is 1.

    Round 2: A from (1, 0) to (5/2, 0), B from (1, 1) to (1/2, 3/2); the mean body is 3/2, the heads
    stay 0 and 3/2.
    """
    played = play(tmp_path, "fedper", 2, **HEADED)
    for site, head in (("A", 0.0), ("B", 1.5)):
        assert played.model(site, "body.weight") == near(1.5)
        assert played.model(site, "head.weight") == near(head)
    assert played.sent() == {"body.weight"}


def test_lg_fedavg(tmp_path: Path) -> None:
    """The other way round: bodies stay. Round 1: A (2, 0), B (0, 1); the mean head is 1/2.

    Round 2: A from (2, 1/2) to (3, 1/4), B from (0, 1/2) to (0, 5/4); the mean head is 3/4.
    """
    played = play(tmp_path, "lg-fedavg", 2, **HEADED)
    for site, body in (("A", 3.0), ("B", 0.0)):
        assert played.model(site, "body.weight") == near(body)
        assert played.model(site, "head.weight") == near(0.75)
    assert played.sent() == {"head.weight"}


def test_fedrep(tmp_path: Path) -> None:
    """Three epochs: two of the head, then one of the body.

    A: head 0, body to 2. B: head to 1 and 3/2, body 0. The mean body is 1.
    """
    played = play(tmp_path, "fedrep", 1, local_epochs=3, **HEADED)
    for site, head in (("A", 0.0), ("B", 1.5)):
        assert played.model(site, "body.weight") == near(1)
        assert played.model(site, "head.weight") == near(head)
    assert played.sent() == {"body.weight"}
    epochs = played.result.scores.query("moment == 'epoch' and site == 'A'")
    assert epochs["stage"].tolist() == ["head", "head", "body"]


def test_fedrep_with_one_epoch_and_a_single_batch_trains_both(tmp_path: Path) -> None:
    """A: body to 2, B: head to 1; the mean body is 1."""
    played = play(tmp_path, "fedrep", 1, **HEADED)
    assert played.model("A", "body.weight") == played.model("B", "body.weight") == near(1)
    assert played.model("B", "head.weight") == near(1)


def test_fedrep_with_batches_in_parts(tmp_path: Path) -> None:
    """A batch of four in two parts is still one step of the head, and then one of the body."""
    settings = HEADED | {"batch_size": 4, "max_batch": 2}
    played = play(tmp_path, "fedrep", 1, images=(4, 4), **settings)
    assert played.model("A", "body.weight") == played.model("B", "body.weight") == near(1)
    assert played.model("B", "head.weight") == near(1)


NORMED = {"model": "tests.points:BodyAndNorm"}


@pytest.mark.parametrize(
    ("method", "sent", "shifts", "means"),
    [
        (
            "fedavg",
            {"norm.weight", "norm.bias", "statistics.norm.running_mean"}
            | {"statistics.norm.running_var"},
            (0.5, 0.5),
            (0.0, 0.0),
        ),
        ("silobn", {"norm.weight", "norm.bias"}, (0.5, 0.5), (0.1, -0.1)),
        ("fedbn", set(), (0.0, 1.0), (0.1, -0.1)),
    ],
)
def test_batch_norm(
    method: str,
    sent: set[str],
    shifts: tuple[float, float],
    means: tuple[float, float],
    tmp_path: Path,
) -> None:
    """The body's mean is (2 + 0) / 2 = 1 for all. The shift goes to 0 at A, to 1 at B.

    A's images are 1 and B's -1, so that the running mean goes from 0 to 0.1 at A, to -0.1 at B.
    FedAvg averages all, SiloBN keeps running statistics, FedBN the whole layer.
    """
    played = play(tmp_path, method, 1, **NORMED)
    assert played.sent() == {"body.weight"} | sent
    for site, shift, mean in zip("AB", shifts, means, strict=True):
        assert played.model(site, "body.weight") == near(1)
        assert played.model(site, "norm.bias") == near(shift)
        assert played.model(site, "norm.running_mean") == near(mean)
        assert played.model(site, "norm.running_var") == near(0.9)


def test_the_learning_rate_comes_down(tmp_path: Path) -> None:
    """Round 1, lr 1/2: the mean is (1, 1/2). Round 2, lr 1/4: A goes to (7/4, 3/8).

    B goes to (3/4, 7/8), and the mean is (5/4, 5/8); with lr 1/2 it would be (3/2, 3/4).
    """
    played = play(tmp_path, "fedavg", 2, lr_decay=0.5, lr_decay_rounds=1)
    assert played.down() == near(1.25, 0.625)


def test_the_summary_of_a_run(tmp_path: Path) -> None:
    """Two steps: A to (2, 0), (3, 0); B to (0, 1), (0, 3/2); the mean is (3/2, 3/4).

    It says the first class, which is right at A and wrong at B, where all is lost by the merge. The
    losses of the steps are 8 and 2 at A, 2 and 1/2 at B. Two numbers of four bytes go up and down.
    """
    played = play(tmp_path, "fedavg", 1, local_epochs=2)
    values, scores = played.result.results, played.result.scores
    assert values["worst_site"] == "B"
    assert values["retrogress"] == {"model": {"mean": 0.5, "by_round": [0.5]}}
    assert values["bytes"] == {"up_per_round_and_site": 8, "down_per_round_and_site": 8}
    epochs = scores[(scores["moment"] == "epoch") & (scores["split"] == "validation")]
    losses = epochs.groupby("site")["train_loss"].agg(list)
    assert (losses["A"], losses["B"]) == ([8, 2], [2, 0.5])


def test_every_training_batch_is_augmented_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def look(images: Tensor, target: Tensor, _: torch.Generator) -> tuple[Tensor, Tensor]:
        seen.append(len(images))
        return images, target

    monkeypatch.setitem(AUGMENTATIONS, "flips", look)
    play(tmp_path, "fedavg", 2, images=(2, 4), local_epochs=3, augmentation="flips")
    assert seen == [2] * (2 * 3 * (1 + 2))  # rounds, epochs, batches of A and of B


def test_every_site_round_and_seed_draws_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, int]] = []

    def look(*given: Any, **how: Any) -> Iterator[Batch]:
        if how.get("augment"):  # training, and no scores
            drawn.append((torch.initial_seed(), how["order"].initial_seed()))
        return batches(*given, **how)

    monkeypatch.setattr("counterpoint.client.batches", look)
    for number, seed in enumerate((1, 2, 1)):
        play(tmp_path / str(number), "fedavg", 2, seed=seed, augmentation="flips")
    first, second, again = drawn[:4], drawn[4:8], drawn[8:]
    assert first == again
    for kind in zip(*first, *second, strict=True):  # of dropout; of the order
        assert len(set(kind)) == 8  # two sites, rounds and seeds
