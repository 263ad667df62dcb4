"""The sites as the server reaches them across a network: messages out, checked answers back."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from counterpoint.at_site import Answer, Order
from counterpoint.crew import Report, choose_device
from counterpoint.encryption.total import read
from counterpoint.errors import EncryptionError, PayloadError, StateError
from counterpoint.exam import Tested
from counterpoint.federation import Play, conduct, deciding
from counterpoint.files import write_text
from counterpoint.first import new_predictor
from counterpoint.folder import Notebook, RunFolder
from counterpoint.kept import Kept
from counterpoint.payload import Payload
from counterpoint.remote.answer import (
    MALFORMED,
    most_common,
    read_answer,
    read_hello,
    read_test,
)
from counterpoint.remote.desk import digest
from counterpoint.remote.message import Message
from counterpoint.remote.order import order_messages
from counterpoint.remote.plan import Plan
from counterpoint.results import Result, write_model

Send = Callable[[Mapping[str, Message]], Mapping[str, Message]]
"""Brings every site its message, and gives the answers that came within the time there is."""


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

    def hello(self) -> None:
        """Ask sites whether they are there and their data fit, and note what they say."""
        when = "at the start"
        replies = self.ask({site: Message("hello") for site in self.plan.sites.values()}, when)
        if self.plan.settings.encrypt:
            require_one_key({site: str(reply.says.get("key")) for site, reply in replies.items()})
        silent = self._note(replies)
        for site, why in silent.items():
            self.leave_out(site, when, why)
        self.require(len(replies) - len(silent), when)

    def _note(self, replies: Mapping[str, Message]) -> dict[str, str]:
        """Note what sites say of their data; give those that do not say it, and what is wrong."""
        silent = {}
        for site, reply in replies.items():
            try:
                self.known[site] = read_hello(reply)
            except PayloadError as error:
                silent[site] = str(error)
        write_text(self._hellos, json.dumps(self.known, indent=1, sort_keys=True))
        return silent

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
        # those that were not there at the start: what a site weighs is what it has said before
        if strangers := [site for site in replies if site not in self.known]:
            self._note(self.send({site: Message("hello") for site in strangers}))
        usual = most_common(reply.tensors for reply in replies.values())
        answers = []
        for order in orders:
            site = order.site
            if site not in replies:
                continue
            images = self.known[site][0] if site in self.known else None
            try:
                answer = read_answer(replies[site], order, self.plan, usual, images)
                if order.keep_candidate and not deciding(
                    answer.visit.rows, self.plan.settings, order.round - 1
                ):
                    raise PayloadError("it did not score its model")
                if self.plan.settings.encrypt:
                    read(answer.visit.payload, site, answer.visit.weight)
                answers.append(answer)
            except MALFORMED as error:
                known = isinstance(error, PayloadError)
                why = str(error) if known else "its answer can't be read"
                self.leave_out(site, when, why)
        self.require(len(answers), when, min(self.min_sites, len(orders)))
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
            try:
                row, intervals = read_test(replies[site], site, self.plan)
            except PayloadError as error:
                self.leave_out(site, "the test", str(error))
                continue
            model = replies[site].says.get("model")
            self.models[site] = model if isinstance(model, str) else None
            yield [(row, [], intervals)]

    def leave_models(self, round: int, chosen: Mapping[str, Kept]) -> bool:
        """Write the model that all sites have, where they have one; their own stay with them."""
        digests = set(self.models.values())
        if len(digests) != 1 or None in digests or self.models.keys() != chosen.keys():
            return False
        if self.plan.settings.encrypt:
            return True  # and it stays with them
        (known,) = digests
        plan = self.plan
        network = new_predictor(plan.settings.method, plan.task, plan.shape).state_dict()
        for site, kept in chosen.items():
            message = Message("model", {"candidate": kept})
            reply = self.ask({site: message}, "the model", enough=0).get(site)
            if reply and digest(reply.tensors) == known and fits(reply.tensors, network):
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


def fits(model: Payload, network: Payload) -> bool:
    """Whether a model has the names, shapes and types of a network's state."""
    return model.keys() == network.keys() and all(
        (model[name].shape, model[name].dtype) == (tensor.shape, tensor.dtype)
        for name, tensor in network.items()
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
        afar.hello()
        facts["device"] = str(choose_device(plan.settings.machine.device))
        names = tuple(plan.sites.values())
        play = Play(folder, plan.settings, plan.task, plan.shape, names, facts, report)
        return conduct(play, afar)
