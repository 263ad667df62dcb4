"""The same orders and answers across a network, whichever engine carries them.

`Afar` is the sites as the server reaches them, `Desk` is a site's end of the line. Between them go
messages: a text and the bytes of a payload.
"""

from counterpoint.remote.afar import Afar
from counterpoint.remote.desk import Desk
from counterpoint.remote.message import Message
from counterpoint.remote.plan import Plan

__all__ = ["Afar", "Desk", "Message", "Plan"]
