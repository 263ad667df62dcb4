"""Scores, losses and intervals, against other libraries or by hand."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist
from sklearn import metrics
from torch.nn import functional as F

from counterpoint.extents import Extents
from counterpoint.local import DeputyTransfer
from counterpoint.local.prototypes import aligned
from counterpoint.resampling import (
    drawn_scores,
    interval,
    score_of,
    weighted_auc,
    weighted_mean,
)
from counterpoint.tasks import Classification, Segmentation, make_task
from counterpoint.tasks.distillation import kl_divergence, squared_difference
from counterpoint.tasks.losses import LOSSES, cross_entropy, inside

THREE = Segmentation(("background", "cup", "disc"))
TWO = Segmentation(("background", "vessel"))
ALONE = Extents.unknown(4)
DENSE = ["joint", "dice-ce", "dice-focal", "cross-entropy"]


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def masks_of(seed, classes, *shape, ignored=0.0):
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, classes, shape)
    masks[rng.random(shape) < ignored] = -1
    return torch.from_numpy(masks)


def sure(masks, classes, scale=9.0):
    """Logits of a network that finds just these masks."""
    return scale * F.one_hot(masks.clamp(min=0), classes).movedim(-1, 1).float()


def scored(task, logits, target, cases, batch=1000, extents=None):
    scorer = task.scorer(extents)
    given = (logits, target, cases, torch.arange(len(target)))
    for one in zip(*(tensor.split(batch) for tensor in given), strict=True):
        scorer.add(*one)
    return scorer


def mean(values):
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def share(part, whole):
    return part / whole if whole else math.nan


def by_sklearn(logits, target, cases, classes):
    """All scores but HD95: every case's scored pixels in one row, class by class."""
    rows = {name: [] for name in ("dice", "all", "iou", "sensitivity", "specificity")}
    single = {c: [] for c in range(classes)}
    for case in sorted(set(cases.tolist())):
        here = cases == case
        truth = target[here].flatten().numpy()
        found = logits[here].argmax(1).flatten().numpy()[truth >= 0]
        truth = truth[truth >= 0]
        dice, iou, sensitivity, specificity = [], [], [], []
        for c in range(classes):
            t, f = truth == c, found == c
            dice.append(metrics.f1_score(t, f, zero_division=np.nan) if len(t) else math.nan)
            iou.append(share((t & f).sum(), (t | f).sum()))
            sensitivity.append(share((t & f).sum(), t.sum()))
            specificity.append(share((~t & ~f).sum(), (~t).sum()))
            single[c].append(dice[c])
        rows["all"].append(mean(dice))
        for name, values in (
            ("dice", dice),
            ("iou", iou),
            ("sensitivity", sensitivity),
            ("specificity", specificity),
        ):
            rows[name].append(mean(values[1:]))
    scores = {name: mean(values) for name, values in rows.items()}
    scores["dice_with_background"] = scores.pop("all")
    return scores | {f"dice_{THREE.classes[c]}": mean(v) for c, v in single.items() if c}


@given(
    st.integers(0, 10**6),
    st.lists(st.integers(0, 3), min_size=1, max_size=7),
    st.integers(1, 8),
    st.sampled_from([(3, 4), (2, 3, 2)]),
    st.sampled_from([0.0, 0.3, 0.9]),
)
@example(1, [0, 0, 1], 2, (2, 2), 1.0)
@settings(deadline=None, max_examples=60)
def test_scores_are_those_of_sklearn_case_by_case_in_batches_of_any_size(
    seed, cases, batch, shape, ignored
):
    """Cases of several slices, images and volumes, absent classes, pixels that do not count."""
    cases = torch.tensor(cases)
    target = masks_of(seed, 3, len(cases), *shape, ignored=ignored)
    target[target == seed % 4] = 0  # often, a class is missing
    logits = drawn(seed, len(cases), 3, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sklearn's about classes that are not there
        wanted = by_sklearn(logits, target, cases, 3)
    found = scored(THREE, logits, target, cases, batch).scores()
    loss = mean([THREE.loss(z[None], y[None]).item() for z, y in zip(logits, target, strict=True)])
    wanted |= {"hd95": math.nan, "hd95_mm": math.nan, "loss": loss}
    assert found.keys() == wanted.keys()
    assert found == pytest.approx(wanted, abs=2e-6, nan_ok=True)
    whole = scored(THREE, logits, target, cases).scores()
    assert found == pytest.approx(whole, abs=0, nan_ok=True)


def test_scores_are_those_of_monai():
    from monai.metrics import compute_dice, compute_iou
    from monai.metrics.confusion_matrix import compute_confusion_matrix_metric as rate
    from monai.metrics.confusion_matrix import get_confusion_matrix

    target, logits = masks_of(0, 3, 5, 8, 9), drawn(0, 5, 3, 8, 9)
    hot = [F.one_hot(m, 3).movedim(-1, 1) for m in (logits.argmax(1), target)]
    table = get_confusion_matrix(*hot, include_background=False)
    found = scored(THREE, logits, target, torch.arange(5)).scores()
    wanted = {
        "dice": compute_dice(*hot, include_background=False).mean(),
        "dice_cup": compute_dice(*hot)[:, 1].mean(),
        "dice_disc": compute_dice(*hot)[:, 2].mean(),
        "dice_with_background": compute_dice(*hot).mean(),
        "iou": compute_iou(*hot, include_background=False).mean(),
        "sensitivity": rate("sensitivity", table).mean(),
        "specificity": rate("specificity", table).mean(),
    }
    assert {n: found[n] for n in wanted} == pytest.approx({n: v.item() for n, v in wanted.items()})


def test_slices_of_a_case_are_counted_together():
    """Dice of 2 of 4 and 1 of 1 pixels is 2*3/(5+3) for one case, the mean of two for two."""
    target = torch.zeros(2, 2, 3, dtype=torch.long)
    target[0, 0, :2] = target[0, 1, :2] = target[1, 0, 0] = 1
    found = target.clone()
    found[0, 1] = 0
    logits = sure(found, 2)
    one = scored(TWO, logits, target, torch.tensor([7, 7]))
    assert one.scores()["dice"] == pytest.approx(6 / 8)
    assert [row["case"] for row in one.by_case()] == [7]
    two = scored(TWO, logits, target, torch.tensor([8, 7]))
    assert two.scores()["dice"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-6)
    assert [(r["case"], r["dice"]) for r in two.by_case()] == [(7, 1.0), (8, 0.666667)]
    assert two.statistics()[0] == [7, 8]
    assert two.statistics()[1]["dice"](np.array([[0.0, 2.0]])) == pytest.approx(2 / 3)


def hd95_by_hand(one, other):
    """Distances between the outlines, both ways, the larger of the two 95th percentiles."""
    edges = [np.argwhere(m & ~ndimage.binary_erosion(m)) for m in (one, other)]
    far = cdist(*edges)
    return max(np.percentile(far.min(axis), 95) for axis in (0, 1))


@pytest.mark.parametrize("shape", [(20, 17), (9, 11, 8)])
def test_hd95_by_hand(shape):
    rng = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(rng.normal(size=(4, 2, *shape)), [0, 0, *[1.5] * len(shape)])
    truth, found = (torch.from_numpy((smooth[:, i] > 0.05).astype(np.int64)) for i in (0, 1))
    wanted = [hd95_by_hand(f.numpy() > 0, t.numpy() > 0) for f, t in zip(found, truth, strict=True)]
    assert len(set(wanted)) > 2
    each = scored(TWO, sure(found, 2), truth, torch.arange(4), 3, ALONE)
    assert [row["hd95"] for row in each.by_case()] == pytest.approx(wanted, abs=1e-4)
    # of several slices or patches of one case it is the mean
    cases = torch.tensor([0, 0, 0, 1])
    two = scored(TWO, sure(found, 2), truth, cases, 2, ALONE)
    assert two.scores()["hd95"] == pytest.approx((np.mean(wanted[:3]) + wanted[3]) / 2, abs=1e-4)
    assert math.isnan(scored(TWO, sure(found, 2), truth, cases).scores()["hd95"])


@pytest.mark.filterwarnings("error")
def test_empty_masks_have_no_dice_and_are_far_off_if_something_is_found():
    square = torch.zeros(4, 6, 6, dtype=torch.long)
    square[:, 1:4, 1:4] = 1
    empty = torch.zeros_like(square)
    truth = torch.stack([square[0], square[0], empty[0], empty[0]])
    found = torch.stack([square[0], empty[0], square[0], empty[0]])
    rows = scored(TWO, sure(found, 2), truth, torch.arange(4), extents=ALONE).by_case()
    nan = math.nan
    assert [r["dice"] for r in rows] == pytest.approx([1, 0, 0, nan], nan_ok=True)
    assert [r["sensitivity"] for r in rows] == pytest.approx([1, 0, nan, nan], nan_ok=True)
    assert [r["specificity"] for r in rows] == pytest.approx([1, 1, 0.75, 1], nan_ok=True)
    diagonal = 6 * math.sqrt(2)  # as far off as can be: to find nothing must not pay
    assert [r["hd95"] for r in rows] == pytest.approx([0, diagonal, diagonal, nan], nan_ok=True)
    nothing = scored(TWO, sure(empty, 2), empty, torch.arange(4), extents=ALONE).scores()
    assert {n for n, v in nothing.items() if math.isnan(v)} == {
        "dice",
        "iou",
        "sensitivity",
        "hd95",
        "hd95_mm",
    }


def test_what_lies_in_ignored_pixels_is_not_part_of_an_outline():
    target = torch.zeros(1, 12, 12, dtype=torch.long)
    target[:, 2:5, 2:5] = 1
    found = target.clone()
    found[:, 9:, 9:] = 1  # wrong, but far outside the field of view
    seen = target.clone()
    seen[:, 8:] = -1
    far, near = (
        scored(TWO, sure(found, 2), t, torch.tensor([0]), extents=ALONE).scores()
        for t in (target, seen)
    )
    assert far["hd95"] > 5
    assert far["dice"] < 1
    assert (near["hd95"], near["dice"], near["specificity"]) == (0, 1, 1)


@pytest.mark.parametrize("loss", DENSE)
@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 2)])
def test_losses_are_those_of_monai_where_nothing_is_ignored(loss, shape):
    from monai import losses

    options = {"softmax": True, "to_onehot_y": True}
    logits, target = drawn(5, 3, 3, *shape), masks_of(5, 3, 3, *shape)
    marks = target[:, None]
    entropy = -logits.log_softmax(1).gather(1, marks).mean()
    wanted = {
        "joint": (entropy + losses.DiceLoss(**options)(logits, marks)) / 2,
        "dice-ce": losses.DiceCELoss(**options)(logits, marks),
        "dice-focal": losses.DiceFocalLoss(**options)(logits, marks),
        "cross-entropy": entropy,
    }[loss]
    task = make_task("segmentation", THREE.classes, loss)
    torch.testing.assert_close(task.loss(logits, target), wanted)


def test_the_usual_loss_of_segmentation_is_joint():
    assert LOSSES["segmentation"]["default"] is LOSSES["segmentation"]["joint"]


@pytest.mark.parametrize("loss", DENSE)
@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 2)])
def test_logits_of_ignored_pixels_change_neither_loss_nor_gradients_nor_scores(loss, shape):
    task = make_task("segmentation", THREE.classes, loss)
    target = masks_of(6, 3, 4, *shape, ignored=0.4)
    outside = (target < 0).unsqueeze(1)
    one = drawn(6, 4, 3, *shape)
    other = torch.where(outside, 30 * drawn(7, 4, 3, *shape), one)
    assert not torch.equal(one, other)
    results = []
    for logits in (one, other):
        logits = logits.clone().requires_grad_()
        value = task.loss(logits, target)
        value.backward()
        scores = scored(task, logits.detach(), target, torch.tensor([0, 1, 1, 2]), extents=ALONE)
        results.append((value.detach(), logits.grad, scores.scores()))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][2] == pytest.approx(results[1][2], abs=0, nan_ok=True)
    gradient = results[0][1]
    assert (gradient.masked_select(outside) == 0).all()
    assert (gradient.masked_select(~outside) != 0).any()


def test_ignored_pixels_weigh_nothing_in_the_dice_of_the_foreground():
    """As if they were cut out of the image."""
    from monai.losses import DiceLoss

    dice = DiceLoss(softmax=True, to_onehot_y=True, include_background=False)
    logits, target = drawn(8, 1, 3, 40), masks_of(8, 3, 1, 40, ignored=0.5)
    left = target[0] >= 0
    seen, classes = inside(logits, target)
    cut = dice(logits[:, :, left], target[:, None, left])
    torch.testing.assert_close(dice(seen, classes[:, None]), cut)


def test_cross_entropy_is_the_mean_over_the_pixels_that_count():
    target = torch.tensor([[[0, 2], [-1, -1]]])
    assert cross_entropy(torch.zeros(1, 3, 2, 2), target).item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("loss", DENSE)
def test_a_batch_without_a_pixel_that_counts_teaches_nothing(loss):
    logits = drawn(9, 2, 3, 4, 4).requires_grad_()
    value = make_task("segmentation", THREE.classes, loss).loss(logits, torch.full((2, 4, 4), -1))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert (logits.grad == 0).all()


def test_nor_does_it_with_prototypes():
    target = torch.full((2, 4, 4), -1)
    assert aligned(drawn(9, 2, 3, 4, 4), target, torch.zeros(3, 3), torch.ones(3)).item() == 0


@pytest.mark.parametrize("shape", [(), (3, 2), (2, 2, 3)])
def test_distillation_is_the_mean_over_images_and_pixels(shape):
    teacher = drawn(1, 2, 3, *shape).requires_grad_()
    student = drawn(2, 2, 3, *shape).requires_grad_()
    p, q = (z.detach().double().softmax(1).movedim(1, -1) for z in (teacher, student))
    each = (p * (p / q).log()).sum(-1)  # an image or a pixel
    loss = kl_divergence(teacher, student)
    assert loss.item() == pytest.approx(each.mean().item(), rel=1e-5)
    loss.backward()
    assert teacher.grad is None
    wanted = ((q - p) / each.numel()).movedim(-1, 1).float()
    torch.testing.assert_close(student.grad, wanted)


@pytest.mark.parametrize("of", [kl_divergence, squared_difference])
def test_pixels_that_are_not_scored_teach_nothing(of):
    """What is outside neither counts nor dilutes what is inside."""
    teacher, student = drawn(1, 2, 3, 4, 4), drawn(2, 2, 3, 4, 4).requires_grad_()
    inside = torch.zeros(2, 4, 4, dtype=torch.bool)
    inside[:, 1:3, :2] = True
    loss = of(teacher, student, inside)
    alone = of(teacher[:, :, 1:3, :2], student[:, :, 1:3, :2])
    assert loss.item() == pytest.approx(alone.item(), rel=1e-5)
    loss.backward()
    assert student.grad.movedim(1, -1)[~inside].abs().max() == 0
    assert of(teacher, student, torch.zeros_like(inside)).item() == 0


def test_a_deputy_learns_nothing_where_nothing_is_scored():
    task, update = Segmentation(("background", "a", "b")), DeputyTransfer()
    outputs = {role: drawn(n, 2, 3, 4, 4) for n, role in enumerate(("personal", "deputy"))}
    student = outputs["deputy"].requires_grad_()
    outside = torch.full((2, 4, 4), -1)
    update.losses(task, "exchange", outputs, outside)["deputy"](student).backward()
    assert student.grad.abs().max() == 0


tied = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30)


@given(tied)
@settings(deadline=None)
def test_area_is_that_of_sklearn_with_ties(rows):
    scores = np.array([value / 4 for value, _ in rows], dtype=np.float32)
    positive = np.array([positive for _, positive in rows])
    score = weighted_auc(np.where(positive, 0, 1), scores[:, None])
    (area,) = score(np.ones((1, len(rows))))
    if positive.all() or not positive.any():
        assert math.isnan(area)
    else:
        assert area == pytest.approx(metrics.roc_auc_score(positive, scores))


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 13))
@settings(deadline=None, max_examples=40)
def test_classification_in_batches_of_any_size_and_as_statistics(seed, n, batch):
    task = Classification(("a", "b", "c"))
    logits = (2 * drawn(seed, n, 3)).round() / 2  # with ties
    labels = masks_of(seed, 3, n)
    answers = scored(task, logits, labels, torch.arange(n), batch)
    scores = answers.scores()
    assert scores == pytest.approx(task.scores(logits, labels), abs=0, nan_ok=True)
    cases, statistics = answers.statistics()
    assert cases == list(range(n))
    again = {name: of(np.ones((1, n)))[0] for name, of in statistics.items()}
    assert again == pytest.approx({k: scores[k] for k in again}, abs=1e-6, nan_ok=True)
    chosen = np.random.default_rng(seed).integers(n, size=n)
    drawn_again = task.scores(logits[chosen], labels[chosen])
    times = np.bincount(chosen, minlength=n)[None].astype(float)
    for name, of in statistics.items():
        assert of(times)[0] == pytest.approx(drawn_again[name], abs=1e-6, nan_ok=True)


def test_probabilities_of_a_rare_class_are_not_rounded_to_ties():
    logits = torch.tensor([[20.0, 0.0], [21.0, 0.0]])
    rows = scored(Classification(("a", "b")), logits, torch.zeros(2).long(), torch.arange(2))
    found = [row["p_b"] for row in rows.by_case()]
    assert found == pytest.approx([math.exp(-20), math.exp(-21)], rel=1e-5)


def covered(groups, spread, by, times=200):
    """How often the interval of a mean holds the true one, 0."""
    rng = np.random.default_rng(1)
    hits = 0
    for number in range(times):
        own = rng.normal(size=groups.max() + 1)[groups]
        values = own + spread * rng.normal(size=len(groups))
        low, high = interval(drawn_scores(weighted_mean(values), by, 150, number))
        hits += low <= 0 <= high
    return hits / times


def test_intervals_hold_the_truth_as_often_as_they_say():
    each = np.arange(40)
    assert 0.88 < covered(each, 0, by=each) <= 0.98
    # four alike images a patient are not four patients
    patients = np.repeat(np.arange(25), 4)
    assert 0.87 < covered(patients, 0.3, by=patients) <= 0.98
    assert covered(patients, 0.3, by=np.arange(100)) < 0.8


def test_intervals_depend_on_the_seed_alone():
    values = np.random.default_rng(0).random(30)
    groups = np.arange(30)

    def chance(seed, level=0.95):
        return interval(drawn_scores(weighted_mean(values), groups, 1000, seed), level)

    assert chance(1) == chance(1) != chance(2)
    low, high = chance(1)
    inner = chance(1, level=0.5)
    assert low < inner[0] < values.mean() < inner[1] < high


def test_all_cases_of_a_patient_come_together():
    groups = np.array([5, 3, 5, 9, 3, 5])
    seen = []

    def look(weights):
        seen.extend(weights)
        return weights[:, 0]

    drawn_scores(look, groups, 250, seed=1)  # in several blocks
    assert len(seen) == 250
    for times in seen:
        assert times[0] == times[2] == times[5]
        assert times[1] == times[4]
        assert times[0] + times[1] + times[3] == 3  # as many patients as there are
    assert len({tuple(times) for times in seen}) == 10  # all that there are of 3 in 3
    # one patient alone says nothing about chance
    assert interval(drawn_scores(weighted_mean(np.arange(4.0)), np.zeros(4), 99, 1)) == (1.5, 1.5)


def test_a_draw_is_as_many_patients_with_replacement():
    """The same as drawing indices one draw after the other, and scoring the cases drawn."""
    values, groups = np.random.default_rng(2).random(70), np.arange(70) // 2
    rng, wanted = np.random.default_rng(3), []
    for _ in range(205):
        chosen = rng.integers(35, size=35)
        wanted.append(np.concatenate([values[groups == one] for one in chosen]).mean())
    found = drawn_scores(weighted_mean(values), groups, 205, seed=3)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_draws_in_which_a_score_is_not_defined_are_left_out():
    alone = weighted_mean([math.nan, 0.25])  # not defined where only the first is drawn
    draws = drawn_scores(alone, [0, 1], 400, seed=1)
    assert 0.15 < np.isnan(draws).mean() < 0.35
    assert interval(draws) == (0.25, 0.25)
    assert all(math.isnan(end) for end in interval(np.full(9, math.nan)))


def test_scores_of_each_class_are_those_of_sklearn():
    labels = np.array([0, 0, 1, 2, 2, 2, 1, 0, 2])
    logits = drawn(4, 9, 3)
    task = Classification(("nevus", "melanoma", "other"))
    found = task.scores(logits, torch.from_numpy(labels))
    assert tuple(found) == (*task.metrics, "loss")
    predicted, p = logits.argmax(1).numpy(), logits.softmax(1).numpy()
    for c, name in enumerate(task.classes):
        wanted = {
            "sensitivity": metrics.recall_score(labels == c, predicted == c),
            "specificity": metrics.recall_score(labels != c, predicted != c),
            "auc": metrics.roc_auc_score(labels == c, p[:, c]),
        }
        got = {of: found[f"{of}_{name}"] for of in wanted}
        assert got == pytest.approx(wanted, abs=1e-6)
    balanced = metrics.balanced_accuracy_score(labels, predicted)
    assert found["balanced_accuracy"] == pytest.approx(balanced, abs=1e-6)
    only = task.scores(logits[:2], torch.tensor([0, 0]))  # one class: no others, no area
    odd = {"sensitivity_melanoma", "sensitivity_other", "specificity_nevus", "auc"}
    odd |= {f"auc_{name}" for name in task.classes}
    assert {name for name, value in only.items() if math.isnan(value)} == odd


def test_a_score_that_nobody_knows_is_not_taken_for_another():
    cases = pd.DataFrame({"class": ["a"], "predicted": ["a"], "p_a": [1.0], "p_b": [0.0]})
    assert score_of(cases, "sensitivity_a")(np.ones((1, 1))) == [1.0]
    with pytest.raises(ValueError, match="no case has a 'kappa'"):
        score_of(cases, "kappa")
