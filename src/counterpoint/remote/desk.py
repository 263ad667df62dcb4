"""A site's end of the line: every message of the server comes here, every answer leaves here.

What a site keeps is in its own folder for the run: what it remembers from message to message, its
test cases and its model. Of files, only names and marks leave; of errors, only sentences that can
hold nothing of a patient, a path or an image.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import filelock

from counterpoint.at_site import Job, work
from counterpoint.client import Client, ClientData
from counterpoint.crew import Report, choose_device
from counterpoint.data.site import SiteData
from counterpoint.encryption import Lock, mark_of, read_key
from counterpoint.errors import (
    CounterpointError,
    DataError,
    EncryptionError,
    PayloadError,
    SettingsError,
    StateError,
    TrainingError,
)
from counterpoint.exam import Exam, score_test
from counterpoint.files import write_secret, write_text
from counterpoint.folder import RunFolder
from counterpoint.payload import Payload
from counterpoint.remote.audit import lines_of, record
from counterpoint.remote.memory import Memory
from counterpoint.remote.message import Message, sha256_of
from counterpoint.remote.order import read_kept, read_order
from counterpoint.remote.plan import SECRET, Plan
from counterpoint.remote.policy import Policy, PolicyError
from counterpoint.results import write_model

NO_RECORD = "the site can't write its record, so nothing leaves"

WHAT_LEAVES: dict[type[Exception], str] = {
    StateError: "a file that the site keeps is damaged or missing, or can't be written",
    DataError: "the site's data can't be used as they are",
    SettingsError: "the site can't take part with these settings",
    PayloadError: "the message is not as it should be",
}
"""What the server is told of an error; the site's own log has it in full."""


@dataclass
class Desk:
    """A site in one run.

    Attributes:
        plan: of the run.
        site: the site's name.
        storage: folder for the files that the site keeps, of all runs.
        bring: reads and decodes the site's data, when they are needed first.
        policy: what may leave.
        device: to compute on; the plan's where left out.
        key: file with the encryption key of all sites, for runs that encrypt.
        secret: file with what marks of the site's data are made with; made where it is not there.
        report: is told of every score, and of errors in full; nothing of it leaves.
        server: by which name the record calls it.
    """

    plan: Plan
    site: str
    storage: Path
    bring: Callable[[Plan], tuple[SiteData, str]]
    policy: Policy = field(default_factory=Policy)
    device: str | None = None
    key: Path | None = None
    secret: Path | None = None
    report: Report = lambda event: None
    server: str = "server"
    swept: bool = field(default=False, init=False)

    @cached_property
    def folder(self) -> RunFolder:
        """The site's folder for the run.

        Raises:
            StateError: if it is that of another run.
        """
        folder = RunFolder(self.storage / self.plan.name)
        make_private(self.storage)
        mark = folder.path / "plan.sha256"
        if not mark.exists():
            write_text(mark, self.plan.fingerprint)
        if mark.read_text() != self.plan.fingerprint:
            raise StateError(
                f"{folder.path} holds a run '{self.plan.name}' with other settings; give this run "
                "another name, or move that folder away"
            )
        folder.state.mkdir(exist_ok=True)
        return folder

    @cached_property
    def data(self) -> tuple[ClientData, str]:
        """The site's decoded data, and their fingerprint.

        Raises:
            DataError: if they are not those that the run began with.
        """
        found, fingerprint = self.bring(self.plan)
        mark = self.folder.path / "data.sha256"
        if not mark.exists():
            write_text(mark, fingerprint)
        if mark.read_text() != fingerprint:
            raise DataError(
                f"the data, or how they are split, are not those that the run '{self.plan.name}' "
                f"began with: bring those back, or give the run another name; {mark} has their mark"
            )
        return ClientData(self.site, (found,)), fingerprint

    @cached_property
    def client(self) -> Client:
        """The live models, warm from round to round."""
        settings = self.plan.settings
        device = choose_device(self.device or settings.machine.device)
        return Client(settings.method, self.plan.task, self.plan.shape, settings.seed, device)

    @cached_property
    def lock(self) -> Lock | None:
        """What leaves is encrypted by; None where the run does not encrypt.

        Raises:
            EncryptionError: if the site has no key, or one that can't be used.
        """
        if not self.plan.settings.encrypt:
            return None
        if self.key is None:
            raise EncryptionError(
                "the run encrypts what leaves, and the site's settings file names no `key`"
            )
        lock = Lock(read_key(self.key), len(self.plan.sites))
        if os.name == "posix" and self.key.stat().st_mode & 0o077:
            self.report({"warning": f"others on this machine can read {self.key}: chmod 600"})
        return lock

    @cached_property
    def marker(self) -> bytes:
        """What the marks of the site's data are made with, so that nobody else can make them."""
        file = self.secret or self.storage / SECRET
        if not file.exists():
            with suppress(FileExistsError):
                write_secret(file, os.urandom(32))
        try:
            found = file.read_bytes()
        except OSError as error:
            raise StateError(f"{file} can't be read: {error}") from error
        if len(found) != 32:
            raise StateError(f"{file} is damaged: remove it, and a new one is made")
        return found

    def answer(self, message: Message) -> Message:
        """Answer a message: with what is asked, or with a refusal that says why."""
        told = message.says.get("round", 0)
        round = told if isinstance(told, int) else 0
        answers = {
            "hello": self.hello,
            "visit": self.visit,
            "test": self.test,
            "model": self.model,
        }
        try:
            with filelock.FileLock(self.folder.state / "lock", timeout=0):
                if not self.swept:  # what a process left that was killed while it wrote
                    self.folder.sweep()
                    self.swept = True
                self.note(message, round, "down")
                self.policy.check_privacy(self.plan.settings.method.privacy)
                if self.policy.max_epsilon is not None:
                    self.policy.check_epsilon(self.epsilon)
                if message.kind not in answers:
                    raise PayloadError(f"there is no answer to a message of kind '{message.kind}'")
                reply = self.memory.answered(message) or answers[message.kind](message)
                self.policy.check(reply)
                self.note(reply, round, "up")
        except Exception as error:  # whatever it is, it must not leave as it is
            self.report({"warning": f"{message.kind} refused: {type(error).__name__}: {error}"})
            if not isinstance(error, CounterpointError | filelock.Timeout | OSError):
                self.report({"error": error})
            return self.refusal(round, in_words(error))
        return reply

    def refusal(self, round: int, reason: str) -> Message:
        """A refusal, in the record like all that leaves; if it can't be there, one sentence."""
        refused = Message("refused", {"round": round, "reason": reason})
        try:
            self.note(refused, round, "up")
        except (CounterpointError, OSError) as error:
            self.report({"warning": f"the record can't be written: {error}"})
            return Message("refused", {"round": round, "reason": NO_RECORD})
        return refused

    def hello(self, message: Message) -> Message:
        """Say that the site is there, and that its data fit.

        A plain checksum would show a server that has a guess at the data whether it is right.
        """
        data, fingerprint = self.data
        mark = hmac.new(self.marker, fingerprint.encode(), "sha256").hexdigest()
        says = {"site": self.site, "images": data.images, "data": mark}
        return Message("hello", says | ({"key": mark_of(self.lock.key)} if self.lock else {}))

    def visit(self, message: Message) -> Message:
        """Work a round."""
        order = read_order(message)
        if (order.site, order.number) != (self.site, self.number):
            raise PayloadError(f"this is an order for site {order.number}, '{order.site}'")
        if not 1 <= order.round <= self.last:
            raise PayloadError(f"the run has no round {order.round}")
        trained = self.memory.trained
        if order.round < self.last:
            self.policy.check_round(sum(one < self.last for one in trained) + 1)
        if self.noised:
            self.policy.check_again(order.round, trained)
        trained = [*trained, order.round]
        self.memory.take_mean(order, message)
        order = self.memory.with_whole_state(order)
        job = Job(order, self.data[0], self.folder.state, self.lock, afar=True)
        answer = work(self.client, job, self.report)
        visit = answer.visit
        reply = Message(
            "visit",
            {
                "round": order.round,
                "site": self.site,
                "rows": visit.rows,
                "weight": visit.weight,
                "gradients": visit.gradients,
                "state": answer.state,
                "candidate": answer.candidate,
            },
            visit.payload,
        )
        self.policy.check(reply)
        # in this order: what is kept and not noted has not left, and is worked again
        self.memory.keep_answer(message, reply)
        self.memory.remember(order, answer, trained)
        return reply

    @property
    def number(self) -> int:
        """The site's place in the order of the sites."""
        return list(self.plan.sites.values()).index(self.site)

    @property
    def last(self) -> int:
        """The round after the plan's rounds, in which nothing is sent."""
        return self.plan.settings.method.schedule.rounds + 1

    @property
    def noised(self) -> bool:
        """Whether the run has noise."""
        return self.plan.settings.method.privacy.kind != "none"

    @cached_property
    def epsilon(self) -> float:
        """What the run would cost the site, if it took part in every round."""
        return self.policy.epsilon_of(self.plan.settings.method, self.data[0].images)

    @property
    def memory(self) -> Memory:
        """What the site remembers of the run."""
        counted = self.noised or self.policy.max_rounds is not None
        return Memory(self.folder.state, self.last, self.noised, counted, self.report)

    def test(self, message: Message) -> Message:
        """Score the test images with the chosen model, and leave model and cases at the site."""
        kept, place = read_kept(message.says["candidate"], "candidate"), self.folder.state
        model = kept.read(place)
        exam = Exam(self.data[0], (place / kept.file,), self.plan.settings.seed)
        ((row, cases, intervals),) = score_test(self.client, exam, self.report)
        self.folder.write_table("test_cases.csv", cases)
        plan, of = self.plan, int(message.says["of"])
        write_model(
            self.folder.path, plan.settings, plan.task, plan.shape, plan.form, of, model, self.site
        )
        mark = digest(model) if self.memory.is_common(kept) else None
        if mark and self.lock:  # as it is, it would tell a server whether a guess at it is right
            mark = hmac.new(self.lock.key, mark.encode(), "sha256").hexdigest()
        return Message("test", {"row": row, "intervals": intervals, "model": mark})

    def model(self, message: Message) -> Message:
        """Give the chosen model, if nothing is in it but what all sites have.

        The site looks for itself: the server's word would not do. Never where the run encrypts:
        the model is made of a mean, which the server should not see.
        """
        if self.plan.settings.encrypt:
            raise PolicyError("the run encrypts what leaves; no model does")
        kept = read_kept(message.says["candidate"], "candidate")
        if not self.memory.is_common(kept):
            raise PolicyError("this model is the site's own; it does not leave")
        return Message("model", {}, kept.read(self.folder.state))

    def note(self, message: Message, round: int, direction: str) -> None:
        """Write what crosses to the site's own record."""
        lines = lines_of(message, self.plan.name, round, direction, self.server)
        record(self.storage, lines)


def in_words(error: Exception) -> str:
    """What the server is told of an error.

    >>> in_words(StateError("/home/jane/patients/smith.png is damaged"))
    "a file that the site keeps is damaged or missing, or can't be written"
    """
    if isinstance(error, PolicyError | TrainingError | EncryptionError):
        return str(error)  # made of names of tensors, sites and rounds, numbers, marks of keys
    if isinstance(error, filelock.Timeout):
        return "another process of the site is at work on this run"
    for kind, words in WHAT_LEAVES.items():
        if isinstance(error, kind):
            return words
    return "something went wrong at the site; its own log says what"


def digest(model: Payload) -> str:
    """SHA-256 (hex) over names, shapes and types of a model, and its floating-point numbers."""
    found = {
        name: (tuple(tensor.shape), str(tensor.dtype), numbers)
        for name, tensor in sorted(model.items())
        for numbers in [sha256_of(tensor) if tensor.is_floating_point() else ""]
    }
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can read, if it is not there yet."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
