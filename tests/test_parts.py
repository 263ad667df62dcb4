"""Payload, mean, layers, statistics, perturbation, harmoniser, local updates: small and by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from counterpoint.aggregation import AllWeights, ExceptNormalisation, Exchange
from counterpoint.errors import PayloadError
from counterpoint.harmonise import AmplitudeLayer, AmplitudeNormalisation
from counterpoint.layers import (
    frozen_statistics,
    head_name,
    head_parameters,
    normalisation_parameters,
    running_statistics,
    spectral_weights,
)
from counterpoint.local import Plain, Proximal, Training
from counterpoint.models import build_network
from counterpoint.payload import from_bytes, to_bytes
from counterpoint.perturbation import Perturbation, perturbed_gradient
from counterpoint.server import WeightedMean
from counterpoint.statistics import drop_running_statistics, recalibrate
from counterpoint.tasks import Classification
from counterpoint.tasks.distillation import kl_divergence

names = st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__")
tensors = st.builds(
    lambda shape, seed: torch.randn(shape, generator=torch.Generator().manual_seed(seed)),
    st.lists(st.integers(0, 4), max_size=4),
    st.integers(0, 1000),
)


@given(st.dictionaries(names, tensors, max_size=5))
def test_any_payload_survives_a_round_trip(payload: dict[str, torch.Tensor]) -> None:
    back = from_bytes(to_bytes(payload))
    assert back.keys() == payload.keys()
    for name, tensor in payload.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


@pytest.mark.parametrize("data", [b"", b"nonsense", to_bytes({"w": torch.ones(9)})[:-5]])
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(PayloadError, match="not a payload"):
        from_bytes(data)


@given(st.permutations(range(5)), st.lists(st.floats(0.1, 100), min_size=5, max_size=5))
@settings(deadline=None)
def test_mean_does_not_depend_on_order(order: list[int], weights: list[float]) -> None:
    payloads = [{"w": torch.randn(7, generator=torch.Generator().manual_seed(k))} for k in range(5)]
    means = []
    for sequence in (range(5), order):
        mean = WeightedMean()
        for k in sequence:
            mean.add(str(k), payloads[k], weights[k])
        means.append(mean.result()["w"])
    torch.testing.assert_close(means[0], means[1], atol=1e-6, rtol=0)
    expected = sum(w * p["w"].double() for w, p in zip(weights, payloads, strict=True))
    torch.testing.assert_close(means[0].double(), expected / sum(weights), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"v": torch.ones(2)}, "other names.*'v'"),
        ({"w": torch.ones(3)}, r"'w' as \(3,\).*\(2,\)"),
        ({"w": torch.tensor([1.0, math.nan])}, "'w' with a number that is not finite"),
        ({"w": torch.tensor([1.0, math.inf])}, "not finite"),
    ],
)
def test_a_wrong_payload_is_named_and_leaves_the_mean(
    payload: dict[str, torch.Tensor], words: str
) -> None:
    mean = WeightedMean()
    mean.add("A", {"w": torch.tensor([1.0, 2.0])})
    with pytest.raises(PayloadError, match=f"site 'B'.*{words}"):
        mean.add("B", payload)
    mean.add("C", {"w": torch.tensor([3.0, 4.0])})
    assert torch.equal(mean.result()["w"], torch.tensor([2.0, 3.0]))


def densenet() -> nn.Module:
    options = {"init_features": 8, "growth_rate": 4, "block_config": (2, 2)}
    return build_network("monai.networks.nets:DenseNet121", options, outputs=3, shape=(3, 32, 32))


def test_normalisation_is_found_by_type_where_names_fail() -> None:
    network = densenet()
    found = normalisation_parameters(network)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(found) == 2 * len(norms) > 10
    assert not [name for name in found if "bn" in name]  # a name test would find none
    assert not found & spectral_weights(network)
    assert len(running_statistics(network)) == 2 * len(norms)
    shared = ExceptNormalisation().share(network, Exchange())
    assert shared.keys() == {n for n, _ in network.named_parameters()} - found
    assert AllWeights().share(network, Exchange()).keys() == {
        n for n, _ in network.named_parameters()
    }


def test_perturbation_does_not_move_running_statistics_twice() -> None:
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)) + 3
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def loss() -> torch.Tensor:
        return network(x).square().mean()

    perturbed_gradient(network, loss(), loss, Perturbation(0.5))
    optimizer.step()
    norm = network[0]
    assert isinstance(norm, nn.BatchNorm1d)
    torch.testing.assert_close(norm.running_mean, 0.1 * x.mean(0))
    assert norm.num_batches_tracked == 1


def test_perturbation_restores_the_weights_to_the_bit() -> None:
    network = nn.Linear(5, 3)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    before = network.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)

    def loss() -> torch.Tensor:
        return network(x).sum()

    perturbed_gradient(network, loss(), loss, Perturbation(3.3))
    optimizer.step()
    assert torch.equal(network.weight, before)


def test_frozen_statistics_also_tells_the_harmoniser() -> None:
    layer = AmplitudeLayer((1, 4, 4), "full", momentum=0.5).train()
    first, second = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    layer(first)
    amplitude = layer.amplitude.clone()
    with frozen_statistics(layer):
        layer(second)
    assert torch.equal(layer.amplitude, amplitude)
    layer(second)
    assert not torch.equal(layer.amplitude, amplitude)


def test_harmoniser_is_frozen_by_the_first_mean_and_stays_so() -> None:
    choice = AmplitudeNormalisation(band=0.5)
    layers = [choice.layer((3, 8, 8)).train() for _ in range(2)]
    for layer in layers:
        layer(torch.rand(4, 3, 8, 8))
    payloads = [choice.share(layer) for layer in layers]
    assert payloads[0]["harmonise.amplitude"].shape == (3, 5, 3)
    mean = WeightedMean()
    for number, payload in enumerate(payloads):
        mean.add(str(number), payload)
    for layer in layers:
        choice.merge(layer, mean.result())
        assert choice.share(layer) == {}  # nothing leaves any more
        kept = layer.amplitude.clone()
        layer(torch.rand(4, 3, 8, 8))
        assert torch.equal(layer.amplitude, kept)
    copy = choice.layer((3, 8, 8))
    copy.load_state_dict(layers[0].state_dict())
    assert bool(copy.frozen)
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(copy.train()(x), layers[1].eval()(x))


def test_harmoniser_of_a_site_that_was_absent_takes_the_mean_and_keeps_it() -> None:
    choice = AmplitudeNormalisation()
    there, absent = (choice.layer((1, 8, 8)).train() for _ in range(2))
    there(torch.rand(4, 1, 8, 8))
    mean = choice.share(there)["harmonise.amplitude"]
    choice.merge(absent, {"harmonise.amplitude": mean})
    images = torch.rand(4, 1, 8, 8)
    assert not torch.equal(absent(images), images)
    assert torch.equal(absent.amplitude, mean)


def test_harmoniser_that_has_seen_nothing_shares_nothing_and_goes_on_learning() -> None:
    choice = AmplitudeNormalisation()
    layer = choice.layer((1, 8, 8)).train()
    assert choice.share(layer) == {}
    choice.merge(layer, {})  # nobody has
    layer(torch.rand(4, 1, 8, 8))
    assert choice.share(layer).keys() == {"harmonise.amplitude"}


def test_harmoniser_before_its_first_batch_passes_images_and_refuses_other_sizes() -> None:
    layer = AmplitudeLayer((3, 8, 8), "full", momentum=0.1).eval()
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(layer(x), x)
    with pytest.raises(ValueError, match=r"\(3, 8, 8\).*\(3, 9, 8\)"):
        layer(torch.rand(1, 3, 9, 8))


def test_recalibration_leaves_weights_and_dropout_alone() -> None:
    network = nn.Sequential(nn.Dropout(0.9), nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    before = network[1].weight.detach().clone()
    recalibrate(network, x.split(16))
    assert network.training
    assert torch.equal(network[1].weight, before)
    with torch.no_grad():
        expected = network[1](x)
    torch.testing.assert_close(network[2].running_mean, expected.mean(0))
    assert network[2].momentum == 0.1


def test_batch_statistics_in_evaluation_too() -> None:
    network = nn.Sequential(nn.BatchNorm1d(1))
    drop_running_statistics(network)
    out = network.eval()(torch.tensor([[1.0], [3.0]]))
    torch.testing.assert_close(out, torch.tensor([[-1.0], [1.0]]), atol=1e-4, rtol=0)
    assert not running_statistics(network)


def one_weight(start: float, local: Plain | Proximal, anchor: float) -> float:
    """One SGD step (lr 1) of a network with logits (w, 0) on one image of class 0."""
    network = nn.Linear(1, 2, bias=False)
    network.weight.data = torch.tensor([[start], [0.0]])
    training = Training(
        models={"model": network},
        optimizers={"model": torch.optim.SGD(network.parameters(), lr=1.0)},
        task=Classification(("a", "b")),
        batches=lambda: iter([(torch.ones(1, 1), torch.zeros(1, dtype=torch.long))]),
        plain_batches=lambda: iter([]),
        start={"weight": torch.tensor([[anchor], [0.0]])},
    )
    assert list(local.train(training)) == [""]
    assert training.gradients == 1
    return float(network.weight[0, 0].detach())


def test_plain_step_by_hand() -> None:
    """CE of logits (w, 0) for class 0 has gradient p - 1 with p = e^w / (e^w + 1)."""
    p = math.exp(0.5) / (math.exp(0.5) + 1)
    assert one_weight(0.5, Plain(), anchor=9.0) == pytest.approx(0.5 - (p - 1))


def test_proximal_step_by_hand() -> None:
    """The proximal term mu/2 (w - w0)^2 adds mu (w - w0) to the gradient."""
    p = math.exp(0.5) / (math.exp(0.5) + 1)
    stepped = one_weight(0.5, Proximal(mu=0.2), anchor=0.1)
    assert stepped == pytest.approx(0.5 - (p - 1) - 0.2 * (0.5 - 0.1))


def test_scores_against_an_independent_reference() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 4, generator=generator)
    labels = torch.randint(3, (200,), generator=generator)  # class 3 never occurs
    scores = Classification(("a", "b", "c", "d")).scores(logits, labels)
    predicted, probabilities = logits.argmax(1), logits.softmax(1).numpy()
    assert scores["macro_f1"] == pytest.approx(
        metrics.f1_score(labels, predicted, average="macro"), abs=1e-6
    )
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted), abs=1e-6)
    areas = [metrics.roc_auc_score(labels == c, probabilities[:, c]) for c in range(3)]
    assert scores["auc"] == pytest.approx(sum(areas) / 3, abs=1e-6)


def test_distillation_by_hand() -> None:
    """KL((1/2, 1/2) || (1/4, 3/4)) = 1/2 ln 2 + 1/2 ln 2/3, and the teacher learns nothing."""
    teacher = torch.zeros(1, 2, requires_grad=True)
    student = torch.tensor([[0.25, 0.75]]).log().requires_grad_()
    loss = kl_divergence(teacher, student)
    assert loss.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    loss.backward()
    assert teacher.grad is None
    torch.testing.assert_close(student.grad, torch.tensor([[0.25 - 0.5, 0.75 - 0.5]]))


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(4),
        nn.InstanceNorm2d(4, affine=True),
        nn.GroupNorm(2, 4),
        nn.LayerNorm(4),
        nn.RMSNorm(4),
    ],
)
def test_scale_and_shift_of_every_kind_of_norm_stay_at_the_site(norm: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), norm)
    own = {f"1.{name}" for name, _ in norm.named_parameters()}
    assert normalisation_parameters(network) == own != set()
    assert ExceptNormalisation().share(network, Exchange()).keys() == {"0.weight", "0.bias"}


def test_a_head_may_be_a_transposed_convolution() -> None:
    up = nn.ConvTranspose2d(4, 2, 2)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), up, nn.Softmax(1))
    assert head_name(network) == "2"
    assert head_parameters(network) == {"2.weight", "2.bias"}
