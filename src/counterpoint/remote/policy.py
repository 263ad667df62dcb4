"""What a site lets out, whatever the server asks: the site's own rule, in its own file."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from pydantic.dataclasses import dataclass

from counterpoint.encryption import head_of
from counterpoint.errors import PayloadError
from counterpoint.methods import Method
from counterpoint.privacy import epsilon_of_run
from counterpoint.privacy.choice import Privacy
from counterpoint.ranges import Chance, NotNegative
from counterpoint.remote.message import Message


class PolicyError(PayloadError):
    """The site's own policy forbids what was asked."""


@dataclass(frozen=True)
class Policy:
    """A site's rule.

    Attributes:
        forbid_names: patterns (``*`` stands for anything) of tensors that never leave, whatever
            stands before a dot in front of them: ``head.*`` is ``direction.head.bias``, too.
        max_bytes: most bytes of tensors in one message; None for no limit.
        max_rounds: most rounds of one run that the site trains in, as it counts them itself; None
            for no limit.
        share_model: whether the chosen model may leave where nothing is in it but the mean and the
            weights that all start from. A model that has anything of the site's own never leaves.
        encrypted: whether what leaves must be encrypted; otherwise a run decides that.
        privacy: the kind of noise that a run must have; otherwise a run decides that.
        min_noise: least noise of it, as in the run's setting ``privacy.noise``.
        max_epsilon: most that a whole run can cost the site, going by its settings; None for no
            limit.
        delta: at which that epsilon is told, whatever the run says.
        repeats: rounds of a noised run that the site may answer a second time. The answer to the
            same message is kept and given again; this is for others, each of which tells more of
            the site than the run's epsilon says.
        seeded: whether noise may follow from the run's seed, which protects nothing; in rehearsals.

    >>> import torch
    >>> Policy(forbid_names=("head.*",)).check(Message("visit", {}, {"head.bias": torch.ones(1)}))
    Traceback (most recent call last):
    counterpoint.remote.policy.PolicyError: the site's policy does not let 'head.bias' leave
    """

    forbid_names: tuple[str, ...] = ()
    max_bytes: int | None = None
    max_rounds: int | None = None
    share_model: bool = True
    encrypted: bool = False
    privacy: Literal["payload", "records"] | None = None
    min_noise: float = 0.0
    max_epsilon: NotNegative | None = None
    delta: Chance = 1e-5
    repeats: int = 0
    seeded: bool = False

    def check(self, message: Message) -> None:
        """Refuse a message that may not leave.

        Raises:
            PolicyError: naming what the policy forbids.
        """
        for name in message.tensors:
            parts = name.split(".")
            tails = [".".join(parts[start:]) for start in range(len(parts))]
            if any(fnmatchcase(tail, one) for one in self.forbid_names for tail in tails):
                raise PolicyError(f"the site's policy does not let '{name}' leave")
        total = sum(tensor.nbytes for tensor in message.tensors.values())
        if self.max_bytes is not None and total > self.max_bytes:
            raise PolicyError(
                f"the site's policy lets {self.max_bytes} bytes leave at a time, not {total}"
            )
        if self.encrypted:
            for name, tensor in message.tensors.items():
                if head_of(tensor) is None:
                    raise PolicyError(f"the site's policy lets '{name}' leave only encrypted")
        if message.kind == "model" and not self.share_model:
            raise PolicyError("the site's policy does not let a model leave")

    def check_privacy(self, privacy: Privacy) -> None:
        """Refuse a run with less noise than the policy asks for, or with noise that is known."""
        if self.privacy is not None and privacy.kind != self.privacy:
            raise PolicyError(f"the site's policy asks for privacy '{self.privacy}'")
        if getattr(privacy, "noise", 0.0) < self.min_noise:
            raise PolicyError(f"the site's policy asks for a noise of {self.min_noise:g} or more")
        if getattr(privacy, "seeded", False) and not self.seeded:
            raise PolicyError("noise that follows from the run's seed could be taken off again")

    def epsilon_of(self, method: Method, images: int) -> float:
        """What a run can cost a site of so many training images; as often as it may answer."""
        return epsilon_of_run(method, images, method.schedule.rounds + self.repeats, self.delta)

    def check_epsilon(self, epsilon: float) -> None:
        """Refuse a run that costs more than the policy allows; ``epsilon`` is what it can cost."""
        if self.max_epsilon is not None and not epsilon <= self.max_epsilon:
            raise PolicyError(
                f"the site's policy allows a run to cost epsilon {self.max_epsilon:g} at delta "
                f"{self.delta:g}, and this one would cost more: more noise, fewer rounds or local "
                "epochs"
            )

    def check_again(self, round: int, answered: Sequence[int]) -> None:
        """Refuse to answer a round again where noise would be drawn anew, and so averaged out."""
        again = len(answered) - len(set(answered))
        if round in answered and again >= self.repeats:
            raise PolicyError(
                f"round {round} has been answered, with noise; another answer to it would tell "
                "more of the site than is accounted for (policy: repeats)"
            )

    def check_round(self, rounds: int) -> None:
        """Refuse to train in more rounds than the policy has."""
        if self.max_rounds is not None and rounds > self.max_rounds:
            raise PolicyError(f"the site's policy allows {self.max_rounds} rounds of a run")
