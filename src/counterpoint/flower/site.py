"""The site's own process: it stays, with models and data, while Flower's come and go."""

import contextlib
import json
import logging
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection, Listener
from pathlib import Path

from counterpoint.errors import CounterpointError, PayloadError, SettingsError
from counterpoint.flower.programs import SITE, environment, program
from counterpoint.remote import Desk, Message, Plan
from counterpoint.remote.reporter import reporter
from counterpoint.remote.site_file import SiteFile, read_site_file, settings_file

log = logging.getLogger(__name__)


def serve(folder: Path, arguments: Sequence[str]) -> int:
    """Answer the server's messages until Flower's SuperNode, which this starts, ends.

    Args:
        folder: of the site; its settings file is in ``local``.
        arguments: for `flower-supernode`.

    Returns:
        The exit code of the SuperNode.

    Raises:
        SettingsError: if the folder has no settings file that can be read.
    """
    site = Site(*own_settings(folder), server=server_in(arguments))
    with tempfile.TemporaryDirectory(prefix="counterpoint-") as place:  # of this user alone
        socket = str(Path(place) / "site")
        with site.listening(socket):
            command = [program("flower-supernode"), *arguments]
            with subprocess.Popen(command, env=environment({SITE: socket})) as node:
                try:
                    return node.wait()
                finally:
                    node.terminate()


def own_settings(folder: Path) -> tuple[str, SiteFile]:
    """Name and settings of the site whose folder this is.

    Raises:
        SettingsError: if there is no settings file, or it can't be read.
    """
    found = sorted((folder / "local").glob(settings_file("*")))
    if len(found) != 1:
        raise SettingsError(
            f"{folder / 'local'} must have one settings file, {settings_file('SITE')}; it has "
            f"{len(found)}. `counterpoint flower init` makes a folder for each site"
        )
    before, after = settings_file("*").split("*")
    return found[0].name.removeprefix(before).removesuffix(after), read_site_file(found[0])


@dataclass
class Site:
    """A site at work: the desk of the run that it has last heard of.

    Attributes:
        client: its name among the clients of a plan.
        own: its own settings.
        server: how its record calls the server.
    """

    client: str
    own: SiteFile
    server: str = "server"
    plan: str = ""
    desk: Desk | None = None

    @contextlib.contextmanager
    def listening(self, socket: str) -> Iterator[None]:
        """Answer what comes to a socket, one message at a time, beside what else is done."""
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                # who asks may be gone by now: the desk keeps the answer, should it be asked again
                try:
                    with contextlib.suppress(OSError, EOFError), listener.accept() as line:
                        self.attend(line)
                except Exception:  # too little memory, say: the next message is heard all the same
                    log.exception("a message could not be answered")

        with Listener(socket, "AF_UNIX") as listener:
            threading.Thread(target=serve, daemon=True).start()
            try:
                yield
            finally:
                over.set()

    def attend(self, line: Connection) -> None:
        """Take a message from a line and put the answer on it."""
        plan, text, data = line.recv_bytes(), line.recv_bytes(), line.recv_bytes()
        for part in self.answer(plan.decode(), text.decode(), data):
            line.send_bytes(part if isinstance(part, bytes) else part.encode())

    def answer(self, plan: str, text: str, data: bytes) -> tuple[str, bytes]:
        """Answer a message; whatever goes wrong, nothing of the site's own leaves with it."""
        try:
            message = Message.unpacked(text, data)
            if message.kind == "who":
                return Message("who", {"client": self.client}).packed()
            return self.desk_for(plan).answer(message).packed()
        except Exception as error:
            log.error("%s", error, exc_info=not isinstance(error, CounterpointError))
            reason = "the site can't take part; its own log says why"
            return Message("refused", {"reason": reason}).packed()

    def desk_for(self, plan: str) -> Desk:
        """The site's desk for a run, made when its first message comes."""
        if self.desk is None or plan != self.plan:
            found = read_plan(plan, self.own.imports)
            self.plan = plan
            self.desk = self.own.desk_at(found, self.client, reporter(log), self.server)
        return self.desk


def server_in(arguments: Sequence[str]) -> str:
    """The address of the server among the words for `flower-supernode`.

    >>> server_in(["--superlink", "fl.example.org:8443"]), server_in([])
    ('fl.example.org:8443', 'server')
    """
    given = dict(pairwise(arguments))
    return given.get("--superlink", "server")


def read_plan(text: str, imports: tuple[str, ...]) -> Plan:
    """Read the plan that came with an app.

    Raises:
        PayloadError: if it is no JSON.
        SettingsError: if it is no plan, or names code that may not be imported.
    """
    try:
        return Plan.from_dict(json.loads(text), imports)
    except ValueError as error:
        raise PayloadError(f"the plan of the run is not in JSON: {error}") from error
