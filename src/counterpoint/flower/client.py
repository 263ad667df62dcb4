"""The ClientApp: hands a message to the site's own process, and its answer to Flower.

It is imported anew for every message, and so imports neither PyTorch nor anything of a method.
"""

import logging
import os
from multiprocessing.connection import Client

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from counterpoint.flower.programs import SITE
from counterpoint.flower.talk import from_record, to_record

NOT_THERE = "the site's own process can't be reached; the site's log says why"
FAILED = 2
"""Flower's code for an app that has failed."""

log = logging.getLogger(__name__)
app = ClientApp()


@app.train()  # type: ignore[untyped-decorator]
def answer(message: Message, context: Context) -> Message:
    """Answer a message; of an error, nothing but one fixed sentence leaves the site."""
    try:
        text, data = from_record(message.content)
        text, data = ask_site(str(context.run_config["plan"]), text, data)
    except Exception:
        logging.getLogger(__name__).exception(
            "%s, has `counterpoint flower site` ended?", NOT_THERE
        )
        return Message(Error(FAILED, NOT_THERE), reply_to=message)
    return Message(to_record(text, data), reply_to=message)


def ask_site(plan: str, text: str, data: bytes) -> tuple[str, bytes]:
    """Have the site's own process answer; ``plan`` is that of the run, in JSON."""
    with Client(os.environ[SITE], "AF_UNIX") as line:
        for part in (plan.encode(), text.encode(), data):
            line.send_bytes(part)
        return line.recv_bytes().decode(), line.recv_bytes()
