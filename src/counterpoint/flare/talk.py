"""A message of Counterpoint in one of FLARE: a text and bytes, nothing that is unpickled."""

from nvflare.apis.shareable import ReturnCode, Shareable

from counterpoint.errors import PayloadError
from counterpoint.remote.message import Message

TEXT, TENSORS = "counterpoint.text", "counterpoint.tensors"


def to_shareable(run: str, message: Message) -> Shareable:
    """Put a message of a run in a Shareable."""
    text, data = message.packed()
    return Shareable({TEXT: text, TENSORS: data, "counterpoint.run": run})


def from_shareable(shareable: Shareable) -> tuple[str, Message]:
    """Take the run's name and the message out of a Shareable, which is empty of it then.

    Raises:
        PayloadError: if there is none in it.
    """
    if shareable.get_return_code() != ReturnCode.OK:
        raise PayloadError(f"FLARE reports {shareable.get_return_code()}")
    run = str(shareable.get("counterpoint.run", ""))
    return run, Message.unpacked(shareable.pop(TEXT, None), shareable.pop(TENSORS, None))
