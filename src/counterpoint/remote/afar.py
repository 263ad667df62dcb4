"""The sites as the server reaches them across a network: messages out, checked answers back."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from torch import Tensor

from counterpoint.at_site import Answer, Order
from counterpoint.client import Visit
from counterpoint.crew import Report, choose_device
from counterpoint.encryption import head_of
from counterpoint.encryption.total import read
from counterpoint.errors import EncryptionError, PayloadError, StateError
from counterpoint.exam import Tested
from counterpoint.federation import Play, conduct, deciding
from counterpoint.files import write_text
from counterpoint.folder import LOSSES, SCORES, Notebook, RunFolder
from counterpoint.kept import Kept
from counterpoint.payload import Payload, check
from counterpoint.remote.desk import digest
from counterpoint.remote.message import Message
from counterpoint.remote.order import maybe_kept, order_messages, read_kept
from counterpoint.remote.plan import Plan
from counterpoint.results import Result, write_model
from counterpoint.tasks import Task

Send = Callable[[Mapping[str, Message]], Mapping[str, Message]]
"""Brings every site its message, and gives the answers that came within the time there is."""

Signature = tuple[tuple[str, tuple[int, ...], str], ...]

MALFORMED = (PayloadError, ValueError, TypeError, KeyError, AttributeError, OverflowError)
"""What reading an answer can raise that is not as it should be, in ways that nobody thought of."""
TESTED = {"round": 0, "epoch": 0, "moment": "merged"}
"""What the server itself says of a test."""
MOMENTS = {"start", "merged", "epoch", "finetuned"}


class ServerFolder(RunFolder):
    """A run's folder at the server: the sites' files that a notebook names are at the sites."""

    def files_here(self, notebook: Notebook) -> set[Kept]:
        """The mean, and what the server keeps beside it."""
        return {kept for kept in (notebook.mean, notebook.server) if kept}


@dataclass
class Afar:
    """Sites that are reached by an engine.

    Attributes:
        plan: of the run.
        folder: the run's folder at the server.
        send: the engine's part.
        min_sites: so many sites must have answered well, or the run stops; where fewer are asked
            in a round, all of those.
        report: is told of scores, and of sites that were left out of a round.
    """

    plan: Plan
    folder: RunFolder
    send: Send
    min_sites: int
    report: Report
    models: dict[str, str | None] = field(default_factory=dict)
    """For each site that was tested, the digest of its chosen model; None if it is its own."""

    @cached_property
    def known(self) -> dict[str, tuple[int, str]]:
        """For each site that has ever said hello, its number of training images and fingerprint."""
        try:
            text = self._hellos.read_text(encoding="utf-8")
            return {site: (images, data) for site, (images, data) in json.loads(text).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise StateError(f"{self._hellos} can't be read: {error}") from error

    @property
    def _hellos(self) -> Path:
        return self.folder.state / "sites.json"

    def hello(self, sites: Iterable[str], when: str, enough: int | None = None) -> None:
        """Ask sites whether they are there and their data fit, and note what they say."""
        replies = self.ask({site: Message("hello") for site in sites}, when, enough)
        if self.plan.settings.encrypt:
            require_one_key({site: str(reply.says.get("key")) for site, reply in replies.items()})
        told = self._note(replies)
        for site in replies.keys() - told:
            self.leave_out(site, when, "it does not say how many images it has")
        self.require(len(told), when, enough)

    def _note(self, replies: Mapping[str, Message]) -> set[str]:
        """Note what sites say of their data; give those that have said it."""
        told = set()
        for site, reply in replies.items():
            images, data = reply.says.get("images"), reply.says.get("data")
            if isinstance(images, int) and images >= 0 and isinstance(data, str):
                self.known[site] = (images, data[:64])
                told.add(site)
        write_text(self._hellos, json.dumps(self.known, indent=1, sort_keys=True))
        return told

    def about_data(self) -> Mapping[str, object]:
        """Each site's number of training images, and the data's fingerprint, as far as known."""
        told = {site: self.known[site] for site in self.plan.sites.values() if site in self.known}
        lines = [f"{site}:{fingerprint}" for site, (_, fingerprint) in told.items()]
        whole = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        return {
            "training_images": {site: images for site, (images, _) in told.items()},
            "data_fingerprint": self.plan.facts.get("data_fingerprint", whole),
        }

    def visit(self, orders: Sequence[Order]) -> Iterator[Answer]:
        """Have sites work a round; answers that are not as they should be are left out."""
        when = f"round {orders[0].round}"
        last = orders[0].mean.read(self.folder.state) if orders[0].mean else {}
        replies = self.ask(order_messages(orders, last), when, enough=0)
        usual = most_common(reply.tensors for reply in replies.values())
        answers = []
        for order in orders:
            if order.site not in replies:
                continue
            try:
                answer = read_answer(replies[order.site], order, self.plan.task, usual)
                if order.keep_candidate and not deciding(
                    answer.visit.rows, self.plan.settings, order.round - 1
                ):
                    raise PayloadError("it did not score its model")
                if self.plan.settings.encrypt:
                    read(answer.visit.payload, order.site, answer.visit.weight)
                answers.append(answer)
            except MALFORMED as error:
                known = isinstance(error, PayloadError)
                why = str(error) if known else "its answer can't be read"
                self.leave_out(order.site, when, why)
        self.require(len(answers), when, min(self.min_sites, len(orders)))
        strangers = [a.visit.site for a in answers if a.visit.site not in self.known]
        if strangers:  # they were not there at the start; what they have sent counts all the same
            self._note(self.send({site: Message("hello") for site in strangers}))
        for answer in answers:
            for row in answer.visit.rows:
                self.report(row)
            yield answer

    def test(self, round: int, chosen: Mapping[str, Kept]) -> Iterator[list[Tested]]:
        """Have every site score its test images; the cases stay at the site."""
        messages = {
            site: Message("test", {"candidate": kept, "of": round}) for site, kept in chosen.items()
        }
        replies = self.ask(messages, "the test")
        for site in chosen:
            if site not in replies:
                continue
            says = replies[site].says
            row: Any = says.get("row")
            intervals: Any = says.get("intervals")
            whole = {**TESTED, **row} if isinstance(row, dict) else row
            if not good_row(whole, site, self.plan.task) or not good_intervals(intervals):
                self.leave_out(site, "the test", "its scores are not as they should be")
                continue
            self.models[site] = says.get("model") if isinstance(says.get("model"), str) else None
            yield [(row, [], intervals)]

    def leave_models(self, round: int, chosen: Mapping[str, Kept]) -> bool:
        """Write the model that all sites have, where they have one; their own stay with them."""
        digests = set(self.models.values())
        if len(digests) != 1 or None in digests or self.models.keys() != chosen.keys():
            return False
        if self.plan.settings.encrypt:
            return True  # and it stays with them
        (known,) = digests
        for site, kept in chosen.items():
            message = Message("model", {"candidate": kept})
            reply = self.ask({site: message}, "the model", enough=0).get(site)
            if reply and digest(reply.tensors) == known:
                plan = self.plan
                write_model(
                    self.folder.path,
                    plan.settings,
                    plan.task,
                    plan.shape,
                    plan.form,
                    round,
                    reply.tensors,
                )
                break
        return True

    def ask(
        self, messages: Mapping[str, Message], when: str, enough: int | None = None
    ) -> dict[str, Message]:
        """Send messages and give the answers that are none of refusal, in the order of the sites.

        Raises:
            StateError: if fewer sites than ``enough`` (where left out, `min_sites`) have answered.
        """
        replies = self.send(messages)
        good = {}
        for site, message in messages.items():
            reply = replies.get(site)
            if reply is None:
                self.leave_out(site, when, "no answer came in time")
            elif reply.kind != message.kind:
                reason = reply.says.get("reason") if reply.kind == "refused" else None
                self.leave_out(site, when, str(reason or "its answer is to something else"))
            else:
                good[site] = replace(reply)  # without its bytes beside its tensors
        self.require(len(good), when, enough)
        return good

    def require(self, count: int, when: str, enough: int | None = None) -> None:
        """Stop the run where too few sites have answered."""
        enough = self.min_sites if enough is None else enough
        if count < enough:
            raise StateError(
                f"{when}: {count} of {len(self.plan.sites)} sites gave an answer that can be used, "
                f"and {enough} are needed (--min-sites). Complete rounds are kept; see to the "
                "sites, then submit the job again to go on"
            )

    def leave_out(self, site: str, when: str, why: str) -> None:
        """Tell that a site was left out."""
        self.report({"warning": f"{when}: site '{site}' is left out: {why[:500]}"})


def read_answer(reply: Message, order: Order, task: Task, usual: Signature | None) -> Answer:
    """The answer in a message.

    Raises:
        PayloadError: if anything in it is not as it should be.
    """
    says, site = reply.says, order.site
    rows, weight, gradients = says.get("rows"), says.get("weight"), says.get("gradients")
    if says.get("round") != order.round or says.get("site") != site:
        raise PayloadError("its answer is to another order")
    if not isinstance(rows, list) or not all(good_row(row, site, task) for row in rows):
        raise PayloadError("its scores are not as they should be")
    if not is_number(weight) or not 0 < weight < math.inf:
        raise PayloadError("its weight is not a positive number")
    if not isinstance(gradients, int) or gradients < 0:
        raise PayloadError("its count of images is not a whole number")
    check(reply.tensors, site, None)
    if usual is not None and signature(reply.tensors) != usual:
        odd = sorted({*signature(reply.tensors)} ^ {*usual})
        raise PayloadError(
            f"it sent other names, shapes or types than most sites; first difference: {odd[0][:2]}"
        )
    candidate = maybe_kept(says.get("candidate"), "candidate")
    if order.keep_candidate and candidate is None:
        raise PayloadError("it did not keep its model")
    return Answer(
        Visit(site, rows, reply.tensors, weight=float(weight), gradients=gradients),
        state=read_kept(says.get("state"), "state"),
        candidate=candidate,
    )


def require_one_key(marks: Mapping[str, str]) -> None:
    """Refuse to begin where sites have different keys: they could not read each other's sums.

    Raises:
        EncryptionError: naming who has which.

    >>> require_one_key({"A": "0f", "B": "0f"})
    >>> require_one_key({"A": "0f", "B": "a1"})
    Traceback (most recent call last):
    counterpoint.errors.EncryptionError: sites have different encryption keys (A: 0f; B: a1); \
give all of them the same, over a safe way
    """
    if len(set(marks.values())) > 1:
        told = "; ".join(f"{site}: {mark}" for site, mark in marks.items())
        raise EncryptionError(
            f"sites have different encryption keys ({told}); give all of them the same, over a "
            "safe way"
        )


def good_row(row: Any, site: str, task: Task) -> bool:
    """Whether a row of scores is the site's own, complete, and of numbers where they should be.

    A metric can be NaN, where a part of the images has nothing to score; a loss can't.
    """
    if not isinstance(row, dict) or row.get("site") != site:
        return False
    numbers, words = {*task.metrics, *LOSSES}, {*SCORES} - {"round", "epoch"}
    return (
        row.keys() <= {*SCORES, *numbers}
        and row.keys() >= {"round", "epoch", "moment", "model", "split", task.score, "loss"}
        and all(type(row[name]) is int for name in ("round", "epoch"))
        and all(isinstance(row[name], str) and len(row[name]) < 256 for name in words & row.keys())
        and row["moment"] in MOMENTS
        and all(is_number(row[name]) or row[name] == "" for name in numbers & row.keys())
        and is_number(row[task.score])
        and is_number(row["loss"])
        and math.isfinite(row["loss"])
    )


def good_intervals(intervals: Any) -> bool:
    """Whether these are intervals: by the name of a score, two numbers, or None for what is NaN."""
    return isinstance(intervals, dict) and all(
        isinstance(ends, list)
        and len(ends) == 2
        and all(end is None or is_number(end) for end in ends)
        for ends in intervals.values()
    )


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


def most_common(payloads: Iterator[Payload] | Any) -> Signature | None:
    """The signature that most payloads have, the first among equals; None if there is none."""
    counts: Counter[Signature] = Counter(signature(payload) for payload in payloads)
    return counts.most_common(1)[0][0] if counts else None


def conduct_afar(plan: Plan, path: Path, send: Send, min_sites: int, report: Report) -> Result:
    """Run a plan across sites, or go on with it: the folder ``path`` is the server's own.

    Raises:
        StateError: if the folder holds something else, can't be written, or too few sites answer.
    """
    plan.require_enough(min_sites)
    facts = dict(plan.facts)
    if (path / "settings.yaml").exists():
        folder = ServerFolder.open(path)
        if folder.facts().get("plan") != plan.fingerprint:
            raise StateError(f"{path} holds a run with other settings; give this run another name")
        if folder.finished:
            return Result(path)
    else:
        marked = facts | {"plan": plan.fingerprint}
        folder = ServerFolder.create(path, plan.settings, plan.task.metrics, marked)
    afar = Afar(plan, folder, send, min_sites, report)
    with folder.lock():
        afar.hello(plan.sites.values(), "at the start")
        facts["device"] = str(choose_device(plan.settings.machine.device))
        names = tuple(plan.sites.values())
        play = Play(folder, plan.settings, plan.task, plan.shape, names, facts, report)
        return conduct(play, afar)
