"""The ServerApp: conducts a run over a grid of Flower, and holds nothing but means."""

import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Context
from flwr.app import Message as Parcel
from flwr.serverapp import Grid, ServerApp

from counterpoint.errors import CounterpointError, PayloadError
from counterpoint.flower.programs import SERVER
from counterpoint.flower.site import read_plan
from counterpoint.flower.talk import from_record, to_record
from counterpoint.processor import settle
from counterpoint.remote import Message, Plan
from counterpoint.remote.afar import conduct_afar
from counterpoint.remote.reporter import reporter
from counterpoint.remote.server_file import read_server_file

LONGEST = 30 * 24 * 3600.0
"""Seconds that Flower keeps a message where there is no deadline."""
PATIENCE = 60.0
"""Seconds that sites have to be there at the start, and to say who they are."""
ASK_AGAIN = 0.5
"""Seconds between two questions whether answers have come."""

log = logging.getLogger(__name__)
app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    """Conduct the run of the app, or go on with it from its last complete round."""
    own = read_server_file(Path(os.environ[SERVER]))
    plan = read_plan(str(context.run_config["plan"]), own.imports)
    report = reporter(log, own.events)
    min_sites = int(context.run_config["min-sites"]) or len(plan.sites)
    line = Line(grid, plan, int(context.run_config["deadline"]))
    settle(plan.settings.machine.threads or 1)
    try:
        line.wait_for_sites()
        conduct_afar(plan, own.runs / plan.name, line.send, min_sites, report)
        report({"finished": plan.name})
    except CounterpointError as error:
        report({"failed": str(error), "kind": type(error).__name__})
        raise


@dataclass
class Line:
    """The server's line to its sites.

    Attributes:
        grid: Flower's.
        plan: of the run.
        deadline: seconds that a site has for an answer; 0 for no limit.
    """

    grid: Grid
    plan: Plan
    deadline: int
    names: dict[int, str] = field(default_factory=dict)
    """For each node that was heard of, the name of the client."""

    def wait_for_sites(self) -> None:
        """Wait until all sites are there, or for as long as there is patience."""
        over = time.monotonic() + PATIENCE
        while len(self.there()) < len(self.plan.sites) and time.monotonic() < over:
            time.sleep(ASK_AGAIN)

    def send(self, messages: Mapping[str, Message]) -> dict[str, Message]:
        """Bring every site its message; gives the answers that come before the deadline."""
        node_of = self.there()
        sites = {node_of[site]: site for site in messages if site in node_of}
        asked = {node: messages[site] for node, site in sites.items()}
        replies = self.ask(asked, self.deadline or math.inf)
        return {sites[node]: reply for node, reply in replies.items()}

    def there(self) -> dict[str, int]:
        """The node of every site that is connected now.

        A node that was registered with a name is the client of that name; others are asked.
        """
        online = {node.node_id: node.name for node in self.grid.get_nodes()}
        self.names = {node: name for node, name in self.names.items() if node in online}
        self.names |= {node: name for node, name in online.items() if name}
        missing = self.plan.sites.keys() - set(self.names.values())
        unknown = [node for node in online if node not in self.names] if missing else []
        for node, reply in self.ask(dict.fromkeys(unknown, Message("who")), PATIENCE).items():
            said = str(reply.says.get("client"))
            if reply.kind == "who" and said in missing:  # never in the place of another
                self.names[node] = said
                missing -= {said}
        node_of = {client: node for node, client in self.names.items()}
        node_of |= {name: node for node, name in online.items() if name}
        return {
            site: node_of[client] for client, site in self.plan.sites.items() if client in node_of
        }

    def ask(self, messages: Mapping[int, Message], patience: float) -> dict[int, Message]:
        """Send messages to nodes, and give the answers that come while there is patience."""
        replies: dict[int, Message] = {}
        parcels = [
            Parcel(to_record(*message.packed()), node, "train", ttl=min(patience, LONGEST))
            for node, message in messages.items()
        ]
        sent = self.grid.push_messages(parcels) if parcels else []
        waiting = {number: node for number, node in zip(sent, messages, strict=True) if number}
        over = time.monotonic() + patience
        while waiting and time.monotonic() < over:
            for parcel in self.grid.pull_messages(list(waiting)):
                node = waiting.pop(parcel.metadata.reply_to_message_id, None)
                if node is not None:
                    replies[node] = unpacked(parcel)
            time.sleep(ASK_AGAIN if waiting else 0)
        return replies


def unpacked(parcel: Parcel) -> Message:
    """The message in one of Flower; what can't be read becomes a refusal that says why."""
    try:
        if parcel.has_error():
            raise PayloadError(f"Flower reports: {parcel.error.reason}")
        return Message.unpacked(*from_record(parcel.content))
    except PayloadError as error:
        return Message("refused", {"reason": str(error)})
