"""What the server takes of a site's answer: all of it is looked at before any of it counts.

A site may be broken or hostile. Whatever it sends, it can be left out and named; it can't stop the
run, speak for another site, or count for more than it is.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeGuard

import torch
from torch import Tensor

from counterpoint.at_site import Answer, Order
from counterpoint.client import Visit
from counterpoint.encryption import head_of
from counterpoint.errors import PayloadError
from counterpoint.folder import LOSSES, SCORES
from counterpoint.payload import Payload, check
from counterpoint.remote.message import Message
from counterpoint.remote.order import maybe_kept, read_kept
from counterpoint.remote.plan import Plan
from counterpoint.tasks import Task

Signature = tuple[tuple[str, tuple[int, ...], str], ...]

MALFORMED = (
    PayloadError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    RuntimeError,
)
"""What reading an answer can raise that is not as it should be, in ways that nobody thought of."""
NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of tensors that can be averaged."""
MOST = 2**53
"""Whole numbers from here on are none that anybody has counted."""
CLOSEST = 1e12
"""Most that a site weighs by how close it has stayed."""


def read_hello(reply: Message) -> tuple[int, str]:
    """A site's number of training images, and the mark of its data.

    Raises:
        PayloadError: if it does not say them.
    """
    images, data = reply.says.get("images"), reply.says.get("data")
    if type(images) is not int or not 0 < images < MOST:
        raise PayloadError("it does not say how many images it has")
    if not isinstance(data, str) or not re.fullmatch("[0-9a-f]{64}", data):
        raise PayloadError("it does not say which data it has")
    return images, data


def read_answer(
    reply: Message, order: Order, plan: Plan, usual: Signature | None, images: int | None
) -> Answer:
    """The answer in a message.

    Args:
        reply: the message.
        order: that it answers.
        plan: of the run.
        usual: names, shapes and types that most sites have sent.
        images: training images of the site, as it said before; None if it has not.

    Raises:
        PayloadError: if anything in it is not as it should be; others of `MALFORMED` if it is so
            in a way that nobody thought of.
    """
    says, site = reply.says, order.site
    gradients = says.get("gradients")
    if says.get("round") != order.round or says.get("site") != site:
        raise PayloadError("its answer is to another order")
    rows = read_rows(says.get("rows"), order, plan)
    schedule = plan.settings.method.schedule
    weighting = schedule.weighting if order.round <= schedule.rounds else "equal"  # of nothing
    weight = read_weight(says.get("weight"), weighting, images)
    if type(gradients) is not int or not 0 <= gradients < MOST:
        raise PayloadError("its count of images is not a whole number")
    if not has_a_mean(reply.tensors):
        raise PayloadError("it sent tensors of a type of which there is no mean")
    if usual is not None and signature(reply.tensors) != usual:
        odd = sorted({*signature(reply.tensors)} ^ {*usual})
        raise PayloadError(
            f"it sent other names, shapes or types than most sites; first difference: {odd[0][:2]}"
        )
    check(reply.tensors, site, None)
    candidate = maybe_kept(says.get("candidate"), "candidate")
    if order.keep_candidate and candidate is None:
        raise PayloadError("it did not keep its model")
    return Answer(
        Visit(site, rows, reply.tensors, weight=weight, gradients=gradients),
        state=read_kept(says.get("state"), "state"),
        candidate=candidate,
    )


def read_weight(weight: Any, weighting: str, images: int | None) -> float:
    """A site's weight in the mean, which follows from what the run has it weigh by.

    Raises:
        PayloadError: if it is another.

    >>> read_weight(77.0, "images", 77)
    77.0
    >>> read_weight(1e300, "equal", 77)
    Traceback (most recent call last):
    counterpoint.errors.PayloadError: its weight should be 1 and is not
    """
    if weighting == "closeness":
        if is_number(weight) and 0 < weight <= CLOSEST:
            return float(weight)
        raise PayloadError("its weight is not one that a distance can give")
    wanted = images if weighting == "images" else 1
    if wanted is None:
        raise PayloadError("it does not say how many images it has")
    if not is_number(weight) or weight != wanted:
        raise PayloadError(f"its weight should be {wanted} and is not")
    return float(weight)


def read_rows(rows: Any, order: Order, plan: Plan) -> list[dict[str, object]]:
    """The scores of a visit: the site's own, of this visit alone, each once.

    Raises:
        PayloadError: if they are anything else.
    """
    schedule, local = plan.settings.method.schedule, plan.settings.method.local
    last = order.round > schedule.rounds
    epochs = schedule.finetune_epochs if last else schedule.local_epochs
    trained = (min(order.round, schedule.rounds), "finetuned" if last else "epoch")
    moments = {(order.round - 1, "merged" if order.round > 1 else "start", 0)}
    moments |= {(*trained, epoch) for epoch in range(1, epochs + 1)}
    seen = set()
    for row in rows if isinstance(rows, list) else [None]:
        if not good_row(row, order.site, plan.task):
            raise PayloadError("its scores are not as they should be")
        place = (row["round"], row["moment"], row["epoch"])
        if place not in moments or row["model"] not in local.roles or row["split"] != "validation":
            raise PayloadError("its scores are of something else than it was asked for")
        if (*place, row["model"]) in seen:
            raise PayloadError("it has the same scores twice")
        seen.add((*place, row["model"]))
    return list(rows)


def read_test(reply: Message, site: str, plan: Plan) -> tuple[dict[str, object], Any]:
    """A site's scores of its test images, and their intervals.

    Raises:
        PayloadError: if they are not as they should be.
    """
    row: Any = reply.says.get("row")
    intervals: Any = reply.says.get("intervals")
    places = {"round": 0, "moment": "merged", "epoch": 0}  # which is for the server to say
    if (
        not isinstance(row, dict)
        or row.keys() & places.keys()
        or not good_row(row | places, site, plan.task)
        or row["split"] != "test"
        or row["model"] not in plan.settings.method.local.roles
        or not good_intervals(intervals, plan.task)
    ):
        raise PayloadError("its scores are not as they should be")
    return row, intervals


def good_row(row: Any, site: str, task: Task) -> TypeGuard[dict[str, Any]]:
    """Whether a row of scores is the site's own, complete, and of numbers where they should be.

    A metric can be NaN, where a part of the images has nothing to score; a loss can't.
    """
    if not isinstance(row, dict) or row.get("site") != site:
        return False
    numbers, words = {*task.metrics, *LOSSES}, {*SCORES} - {"round", "epoch", "site"}
    return (
        row.keys() <= {*SCORES, *numbers}
        and row.keys() >= {"round", "epoch", "moment", "model", "split", task.score, "loss"}
        and all(type(row[name]) is int for name in ("round", "epoch"))
        and all(is_word(row[name]) for name in words & row.keys())
        and all(is_number(row[name]) or row[name] == "" for name in numbers & row.keys())
        and is_number(row[task.score])
        and (0 <= row[task.score] <= 1 or math.isnan(row[task.score]))
        and is_number(row["loss"])
        and math.isfinite(row["loss"])
    )


def good_intervals(intervals: Any, task: Task) -> bool:
    """Whether these are intervals: by the name of a score, two numbers, or None for what is NaN."""
    return (
        isinstance(intervals, dict)
        and intervals.keys() <= {*task.metrics, *LOSSES}
        and all(
            isinstance(ends, list)
            and len(ends) == 2
            and all(end is None or is_number(end) for end in ends)
            for ends in intervals.values()
        )
    )


def is_word(value: Any) -> bool:
    """Whether this is a text that can be shown and written anywhere.

    >>> is_word("personal"), is_word("\\ud800"), is_word(chr(13)), is_word(3)
    (True, False, False, False)
    """
    return isinstance(value, str) and len(value) < 256 and value.isprintable()


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether this is a number that a float can hold, NaN among them.

    >>> is_number(0.5), is_number("0.5"), is_number(True), is_number(10**400)
    (True, False, False, False)
    """
    if type(value) is int:
        return abs(value) < 2**63
    return type(value) is float and not math.isinf(value)


def signature(payload: Payload) -> Signature:
    """Names, shapes and types of a payload, in the order of the names.

    Of what is encrypted, those of the tensor that is hidden; the mark of the key is in its type.
    """
    return tuple((name, *shape_and_type(tensor)) for name, tensor in sorted(payload.items()))


def shape_and_type(tensor: Tensor) -> tuple[tuple[int, ...], str]:
    """Shape and type of a tensor, or of the one that is encrypted in it."""
    head = head_of(tensor)
    if head is None:
        return tuple(tensor.shape), str(tensor.dtype)
    return head.shape, f"{head.dtype} encrypted with the key {head.key}"


def has_a_mean(payload: Payload) -> bool:
    """Whether all tensors are of types that can be averaged, or encrypted."""
    return all(t.dtype in NUMBERS or head_of(t) is not None for t in payload.values())


def most_common(payloads: Iterable[Payload]) -> Signature | None:
    """The signature that most payloads have, the first among equals; None if there is none."""
    counts: Counter[Signature] = Counter(map(signature, filter(has_a_mean, payloads)))
    return counts.most_common(1)[0][0] if counts else None
