"""What a site remembers of a run from message to message: its files, its rounds, its answers."""

import hashlib
import json
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from counterpoint.at_site import Answer, Order
from counterpoint.crew import Report
from counterpoint.errors import PayloadError, StateError
from counterpoint.files import is_whole, write_bytes, write_quickly, write_text
from counterpoint.kept import Kept
from counterpoint.payload import Payload, to_bytes
from counterpoint.remote.message import Message
from counterpoint.spare import drop_spares, put_aside


@dataclass(frozen=True)
class Memory:
    """A site's files of a run, which of them are needed still, and what has left already.

    Attributes:
        place: folder of the files.
        last: the round after the plan's rounds, in which nothing is sent.
        noised: whether the run has noise; an answer can't be made again then.
        counted: whether what has left decides on what may still leave.
        report: is told what is damaged, and begun anew.
    """

    place: Path
    last: int
    noised: bool
    counted: bool
    report: Report

    @property
    def trained(self) -> list[int]:
        """The rounds that the site has worked so far; in the one after the last it is scored."""
        known = self.register  # versions before only had their number
        return [int(one) for one in known.get("trained", range(1, known.get("worked", 0) + 1))]

    def is_common(self, kept: Kept) -> bool:
        """Whether a candidate has nothing of the site's own in it."""
        return list(kept) in self.register.get("common", [])

    def take_mean(self, order: Order, message: Message) -> None:
        """Put the mean of an order on the site's disk: what is new in it over what it had.

        Raises:
            StateError: if what came and what is there do not make it up.
        """
        if order.mean is None:
            return
        try:
            order.mean.read(self.place)
            return
        except StateError:
            pass  # not there yet
        if message.sha256 == order.mean.sha256:
            write_bytes(self.place / order.mean.file, message.data)
            return
        before = (kept.read(self.place) for kept in reversed(self.known("means")))
        for earlier in chain([Payload()], before):  # nothing, where a method sends nothing
            data = to_bytes(earlier | message.tensors)
            if hashlib.sha256(data).hexdigest() == order.mean.sha256:
                write_bytes(self.place / order.mean.file, data)
                return
        raise StateError("the mean before this one is missing, and what came does not make it up")

    def with_whole_state(self, order: Order) -> Order:
        """The order with the newest state that is whole, where the one that it names is not.

        Raises:
            StateError: if none is whole.
        """
        if order.state is None:
            return order
        for kept in dict.fromkeys((order.state, *reversed(self.known("states")))):
            file = self.place / kept.file
            if is_whole(file, kept.sha256):
                return replace(order, state=kept)
            self.report({"warning": f"{file} is missing or damaged; the state before it is used"})
        raise StateError(f"no state of site '{order.site}' is whole in {self.place}")

    @property
    def register(self) -> dict[str, Any]:
        """The site's own note of its newest files; empty where there is none that can be read.

        Raises:
            StateError: if it can't be read and counts what may still leave.
        """
        file = self.place / "register.json"
        try:
            return dict(json.loads(file.read_text()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as error:
            if self.counted:
                raise StateError(
                    f"{file} is damaged, which says in what rounds the site has trained: bring it "
                    "back from a backup, or take part in a run of another name"
                ) from error
            self.report({"warning": f"{file} is damaged and is begun anew: {error}"})
            return {}

    def known(self, what: str) -> list[Kept]:
        """The newest files of a kind, the newest last."""
        return [Kept(*kept) for kept in self.register.get(what, [])]

    def remember(self, order: Order, answer: Answer, trained: list[int]) -> None:
        """Note the files that may be needed again, and remove all others.

        Of states, the one that the visit began with: should its answer not be taken, it is named
        in the next order, however many rounds that happens to. Of all else, the two newest.

        Args:
            order: of the visit.
            answer: to it.
            trained: rounds that the site has worked by now.
        """
        newest = {"means": order.mean, "candidates": answer.candidate, "chosen": order.chosen}
        register: dict[str, Any] = {
            "states": [one for one in (order.state, answer.state) if one],
            "trained": trained,
        }
        for what, one in newest.items():
            before = [other for other in self.known(what) if one is None or other.file != one.file]
            register[what] = [*before, *([one] if one else [])][-2:]
        common = [tuple(one) for one in self.register.get("common", [])]
        if answer.candidate and answer.visit.common:
            common.append(answer.candidate)
        register["common"] = [
            one for one in (*register["candidates"], *register["chosen"]) if one in common
        ]
        write_text(self.place / "register.json", json.dumps(register))
        kinds = ("states", *newest)
        needed = {one.file for kind in kinds for one in register[kind]}
        put_aside(self.place, [f for f in self.place.glob("*.safetensors") if f.name not in needed])
        if order.round == self.last:
            drop_spares(self.place)

    def keep_answer(self, message: Message, reply: Message) -> None:
        """Keep the answer to a visit, so that the same message gets it again.

        That of the round before is kept beside it: a server may have to go back by one.
        """
        head = f"{identity(message)}\n{reply.text}\n".encode()
        if self.noised:  # it can't be made again
            write_bytes(self.answer_file(message), head + reply.data)
        else:
            write_quickly(self.answer_file(message), head, reply.data)

    def answer_file(self, message: Message) -> Path:
        """Where the answer to a visit is kept."""
        return self.place / f"answer-{int(message.says['round']) % 2}"

    def answered(self, message: Message) -> Message | None:
        """The answer that was given to this very message, if it is of the last two rounds."""
        if message.kind != "visit":
            return None
        if self.noised and message.says.get("round") not in self.trained:
            return None  # it never left
        try:
            with open(self.answer_file(message), "rb") as file:
                if file.readline().decode().strip() == identity(message):
                    text = file.readline().decode().strip()
                    return Message.unpacked(text, file.read())
        except (OSError, ValueError, TypeError, KeyError, PayloadError):
            pass  # then it is worked again, to the same end
        return None


def identity(message: Message) -> str:
    """SHA-256 (hex) of a message: equal for messages that ask the same."""
    return hashlib.sha256(message.text.encode()).hexdigest()
