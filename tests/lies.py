"""A site that lies, stalls, breaks or dies, round by round: what its own process then does.

The same lies are told on the real engine and over a loopback, so that both must end alike.
"""

import os
import signal
import time

import torch

from counterpoint.remote import Desk, Message

DEADLINE = 20
"""Seconds that a site has for a round."""
LATE, DEADLY = 8, 3
"""Rounds in which its answer comes too late, and in which it is killed."""


def spoilt(name, tensor):
    """Have one tensor of an answer replaced, or one more in it."""

    def change(reply):
        answer = reply()
        return Message(answer.kind, answer.says, {**answer.tensors, name: tensor})

    return change


def without_one(reply):
    """Leave a tensor out."""
    answer = reply()
    return Message(answer.kind, answer.says, dict(list(answer.tensors.items())[1:]))


def of_another_site(reply):
    """Send scores in another's name."""
    answer = reply()
    rows = [row | {"site": "somebody else"} for row in answer.says["rows"]]
    return Message(answer.kind, answer.says | {"rows": rows}, answer.tensors)


def in_words(reply):
    """Send a loss that is no number."""
    answer = reply()
    rows = [row | {"loss": "small"} for row in answer.says["rows"]]
    return Message(answer.kind, answer.says | {"rows": rows}, answer.tensors)


def after(seconds):
    """Be slow."""

    def change(reply):
        answer = reply()
        time.sleep(seconds)
        return answer

    return change


def twice(reply):
    """Get the same message twice."""
    first, again = reply(), reply()
    assert first.packed() == again.packed()
    return again


LIES = {
    2: (spoilt("head.2.bias", torch.tensor([0.0, torch.nan, 1.0])), "not finite"),
    3: (spoilt("head.2.bias", torch.zeros(7)), "shapes"),
    4: (spoilt("patients", torch.zeros(7)), "patients"),
    5: (of_another_site, "scores are not as they should be"),
    6: (lambda reply: Message("hello"), "to something else"),
    7: (after(2), None),
    LATE: (after(DEADLINE + 4), "no answer came in time"),
    9: (twice, None),
    11: (in_words, "scores are not as they should be"),
}
"""By round: what is done, and the words with which the site is left out; None: it is not."""
BROKEN = 10
"""Round before which the site's newest state is damaged."""


def lie(round, reply, state):
    """Answer a visit as the round has it.

    Args:
        round: of the visit.
        reply: gives the true answer.
        state: folder of the site's states.
    """
    if round == BROKEN:
        (file,) = state.glob(f"*-{BROKEN - 1:05d}-state.safetensors")
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    change, _ = LIES.get(round, (lambda reply: reply(), None))
    return change(reply)


def lie_at_the_desk():
    """Make the desk of this process a liar's, for the runs that are named so."""
    answer = Desk.answer

    def lying(desk, message):
        round = message.says.get("round")
        if desk.plan.name == "dies" and (message.kind, round) == ("visit", DEADLY):
            desk.report = die
        if desk.plan.name != "lies" or message.kind != "visit":
            return answer(desk, message)
        return lie(round, lambda: answer(desk, message), desk.folder.state)

    Desk.answer = lying


def die(event):
    """End this process and the one that has started it as a power cut does, in mid-visit."""
    if event.get("moment") == "epoch" and not os.path.exists("died"):
        open("died", "x").close()
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
