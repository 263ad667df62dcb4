"""Agreement with the papers' released code, to 1e-5."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from counterpoint.aggregation import Exchange, ProgressiveFourier
from counterpoint.data.batches import Batch
from counterpoint.harmonise import AmplitudeLayer
from counterpoint.local import DeputyTransfer, Training
from counterpoint.perturbation import Perturbation, perturbed_gradient
from counterpoint.server import WeightedMean
from counterpoint.tasks import Classification
from tests.golden import Golden, assert_state

PFA = Golden("pfa")
DEPUTY = Golden("deputy_transfer")
AMPLITUDE = Golden("amplitude_norm")
TASK = Classification(("a", "b", "c"))
STAGES = {1: "recover", 2: "exchange", 3: "sublimate"}


class Small(nn.Module):
    """The network of the released numbers, made to the shapes of one case."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name in ("conv", "conv2"):
            out, inp, *kernel = state[f"{name}.weight"].shape
            self.add_module(name, nn.Conv2d(inp, out, tuple(kernel), bias=False))
            self.add_module(name.replace("conv", "bn"), nn.BatchNorm2d(out))
        out, inp = state["linear.weight"].shape
        self.linear = nn.Linear(inp, out)
        self.load_state_dict(state)


@pytest.mark.parametrize("case", ["even", "odd"])
@pytest.mark.parametrize("round", [0, 7, 25, 49])
def test_progressive_fourier_aggregation(case: str, round: int) -> None:
    clients = [Small(PFA.below(f"{case}/in/{client}/")) for client in range(4)]
    pfa, mean = ProgressiveFourier(phase="local", start=0.7, end=0.95), WeightedMean()
    exchange = Exchange(progress=round / 50)
    for number, network in enumerate(clients):
        mean.add(str(number), pfa.share(network, exchange))
    for number, network in enumerate(clients):
        pfa.merge(network, mean.result(), exchange)
        assert_state(network, PFA.below(f"{case}/out/round{round}/{number}/"))


def layers(hidden: int, activation: nn.Module, state: dict[str, torch.Tensor]) -> nn.Sequential:
    network = nn.Sequential(nn.Linear(6, hidden), activation, nn.Linear(hidden, 3))
    network.load_state_dict(state)
    return network


class Recorded(Classification):
    """The task, remembering every cross-entropy it computes."""

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = super().loss(logits, labels)
        seen.append(loss.item())
        return loss


seen: list[float] = []


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_deputy_enhanced_transfer(case: str) -> None:
    models = {
        role: layers(16, nn.ReLU(), DEPUTY.below(f"{case}/init/{role}/"))
        for role in ("personal", "deputy")
    }
    x, y = DEPUTY[f"{case}/x"], DEPUTY[f"{case}/y"]

    def in_order():
        return zip(x.split(8), y.split(8), strict=True)

    training = Training(
        models=models,
        optimizers={
            role: torch.optim.SGD(model.parameters(), lr=0.3, weight_decay=1e-6)
            for role, model in models.items()
        },
        task=Recorded(TASK.classes),
        batches=in_order,
        plain_batches=lambda: (Batch(*batch, torch.zeros(8)) for batch in in_order()),
        epochs=6,
    )
    stages = DeputyTransfer(exchange=0.7, sublimate=0.9).train(training)
    for epoch, stage in enumerate(DEPUTY[f"{case}/stages"].tolist()):
        seen.clear()
        assert next(stages) == STAGES[stage]
        in_training = seen[-2 * len(x.split(8)) :]  # the scores of the stage come before
        for number, role in enumerate(("personal", "deputy")):
            assert_state(models[role], DEPUTY.below(f"{case}/epoch{epoch}/{role}/"))
            mean = sum(in_training[number::2]) / len(in_training[number::2])
            expected = DEPUTY[f"{case}/loss_ce_{role}"][epoch].item()
            assert mean == pytest.approx(expected, abs=1e-5)
    assert epoch == 5
    assert list(stages) == []


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_weight_perturbation(name: str) -> None:
    golden = Golden(f"weight_perturbation_{name}")
    network = layers(10, nn.Tanh(), golden.below("init/"))
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
        if name == "sgd"
        else torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-4)
    )
    perturbation = Perturbation(float(golden["alpha"]))
    for step in range(4):
        x, y = golden["x"][step], golden["y"][step]

        def loss(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            return F.cross_entropy(network(x), y)

        perturbed_gradient(network, loss(), loss, perturbation)
        optimizer.step()
        assert_state(network, golden.below(f"step{step}/"))


def assert_close(tensor: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(tensor.double(), expected.double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", ["even", "odd"])
def test_amplitude_normalisation_of_the_paper(case: str) -> None:
    batches = AMPLITUDE[f"{case}/x"], AMPLITUDE[f"{case}/x2"]
    layer = AmplitudeLayer(tuple(batches[0].shape[1:]), "full", momentum=0.1).train()
    for number, batch in enumerate(batches, start=1):
        harmonised = layer(batch)
        half = AMPLITUDE[f"{case}/paper/amp{number}"][..., : batches[0].shape[-1] // 2 + 1]
        assert_close(layer.amplitude, half)
        assert_close(harmonised, AMPLITUDE[f"{case}/paper/y{number}"])


def test_amplitude_normalisation_as_released() -> None:
    # the released momentum is cast to an integer and becomes 0: the first batch decides
    layer = AmplitudeLayer((3, 16, 20), "dc", momentum=0.0).train()
    for number, name in enumerate(("x", "x2"), start=1):
        harmonised = layer(AMPLITUDE[f"even/{name}"])
        assert_close(layer.amplitude, AMPLITUDE[f"even/released/amp{number}"][..., 0, 0])
        assert_close(harmonised, AMPLITUDE[f"even/released/y{number}"])
