"""An order of the server as a message, and back: what it may name of a site's files."""

import re
from collections.abc import Sequence
from typing import Any

from counterpoint.at_site import Order
from counterpoint.errors import PayloadError
from counterpoint.kept import Kept
from counterpoint.payload import Payload
from counterpoint.remote.message import Message

OWN_FILES = {
    "state": re.compile(r"site-\d{4}-\d{5}-state\.safetensors"),
    "candidate": re.compile(r"site-\d{4}-\d{5}-candidate\.safetensors"),
    "mean": re.compile(r"mean-\d{5}\.safetensors"),
}
"""Names of files that a message can speak of, each only as what it is."""


def order_messages(orders: Sequence[Order], last: Payload) -> dict[str, Message]:
    """Orders as messages, with what is new to each site of the mean; packed once for all alike."""
    mean = {
        news: Message("visit", {}, {name: last[name] for name in news})
        for news in {order.news for order in orders}
    }
    return {
        order.site: mean[order.news].saying(
            {name: value for name, value in vars(order).items() if name != "news"}
        )
        for order in orders
    }


def read_order(message: Message) -> Order:
    """The order in a message.

    Raises:
        PayloadError: if it is none, or names a file that is not one of a run's.
    """
    says = message.says
    try:
        return Order(
            site=str(says["site"]),
            number=int(says["number"]),
            round=int(says["round"]),
            state=maybe_kept(says["state"], "state"),
            mean=maybe_kept(says["mean"], "mean"),
            news=tuple(message.tensors),
            keep_candidate=bool(says["keep_candidate"]),
            chosen=maybe_kept(says["chosen"], "candidate"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PayloadError("this is no order") from error


def maybe_kept(value: Any, kind: str) -> Kept | None:
    """A file by name and checksum, or None."""
    return None if value is None else read_kept(value, kind)


def read_kept(value: Any, kind: str) -> Kept:
    """A file by name and checksum, as it came; only a run's own files can be named.

    Args:
        value: as it came.
        kind: state, candidate or mean.

    >>> read_kept(["../../etc/passwd", ""], "mean")
    Traceback (most recent call last):
    counterpoint.errors.PayloadError: a message names a file that is no mean of a run
    """
    try:
        file, sha256 = (str(part) for part in value)
    except (TypeError, ValueError) as error:
        raise PayloadError("a message should name a file and its checksum") from error
    if not OWN_FILES[kind].fullmatch(file) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise PayloadError(f"a message names a file that is no {kind} of a run")
    return Kept(file, sha256)
