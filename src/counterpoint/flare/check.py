"""What goes wrong on the day, looked at before: name, port, certificates, clock, disk, data."""

import errno
import json
import shutil
import socket
import ssl
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from counterpoint.client import new_predictor
from counterpoint.crew import choose_device
from counterpoint.encryption import mark_of, read_key
from counterpoint.errors import CounterpointError, SettingsError
from counterpoint.flare.kit import KNOWN, PACKAGES, versions
from counterpoint.flare.provision import KEY
from counterpoint.remote.plan import Plan
from counterpoint.remote.site_file import SiteFile, read_site_file

PATIENCE = 10.0
"""Seconds to wait for the server."""
CLOCK = 300
"""Seconds that two clocks may differ by. What depends on the clock are the certificates' dates."""
SOON = 14
"""Days: a certificate that ends in fewer is told of as failed, before it ends in a run."""
TIMES_A_NETWORK = 20
"""What a site keeps of a run, in networks: two states with deputies and optimiser, two means, two
candidates, the last answer, and room to write each aside."""
TIMES_MORE_IF_ENCRYPTED = 28
"""Two means, the last answer and one written aside are eight times as large."""

KINDS = {"fed_client.json": "site", "fed_server.json": "server", "fed_admin.json": "administrator"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: was looked at.
        ok: whether it is right; None where it can't be known from here.
        found: in words.
        todo: what to do where it is not right.
    """

    what: str
    ok: bool | None
    found: str
    todo: str = ""


class WrongError(Exception):
    """Something is not right: what was found, and what to do."""


class UnknownError(Exception):
    """Something can't be known: why, and what to do."""


@dataclass(frozen=True)
class Kit:
    """A startup kit as it lies at its owner's."""

    path: Path
    kind: str
    name: str
    host: str
    port: int

    def file(self, ending: str) -> Path:
        """The kit's own certificate (``crt``) or key (``key``)."""
        return self.path / "startup" / f"{'server' if self.kind == 'server' else 'client'}.{ending}"

    @property
    def authority(self) -> Path:
        """The certificate of who has signed those of all."""
        return self.path / "startup" / "rootCA.pem"

    @cached_property
    def known(self) -> dict[str, Any]:
        """What the administrator has put into the kit: the plan, and versions of packages."""
        file = self.path / "local" / KNOWN
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise WrongError(
                f"{file} can't be read: {error}", "ask the administrator for a new kit"
            ) from error

    @cached_property
    def own(self) -> SiteFile:
        """The site's own settings."""
        return read_site_file(self.path / "local" / f"counterpoint-{self.name}.yaml")

    @cached_property
    def plan(self) -> Plan:
        """The plan of the run that the kit was made for."""
        plans = list(self.known["plans"].values())
        return Plan.from_dict(plans[0], self.own.imports if self.kind == "site" else ("",))


def read_kit(path: Path) -> Kit:
    """Read what a startup kit says of itself.

    Raises:
        SettingsError: if there is none in the folder.
    """
    path = path.absolute()
    try:
        for file, kind in KINDS.items():
            if (path / "startup" / file).exists():
                return _read(path, kind, json.loads((path / "startup" / file).read_text()))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise SettingsError(f"{path} can't be read as a startup kit: {error!r}") from error
    raise SettingsError(
        f"{path} is no startup kit: it has none of {', '.join(KINDS)} in a folder `startup`. Name "
        "the folder that came from the administrator"
    )


def _read(path: Path, kind: str, says: Any) -> Kit:
    if kind == "administrator":
        admin = says["admin"]
        return Kit(path, kind, str(admin["username"]), str(admin["host"]), int(admin["port"]))
    host, _, port = says["servers"][0]["service"]["target"].rpartition(":")
    name = host if kind == "server" else str(says["client"]["fqsn"])
    return Kit(path, kind, name, str(host), int(port))


def check_kit(path: Path) -> Iterator[Check]:
    """Look at everything that a kit's owner can know before a run, one thing after the other.

    Raises:
        SettingsError: if there is no kit in the folder.
    """
    kit = read_kit(path)
    yield look("packages", packages, kit)
    yield look("own certificate", certificate, kit)
    yield look("server's name", name, kit)
    if kit.kind == "server":
        yield look("port", free_port, kit)
        yield look("disk", disk, kit)
        return
    yield look("server's port", port, kit)
    line = Line(kit)
    yield look("server's certificate", line.certificate)
    yield look("clock", line.clock)
    if kit.kind == "site":
        said = look("settings file", settings, kit)
        yield said
        if said.ok and kit.plan.settings.encrypt:
            yield look("encryption key", key, kit)
        yield look("device", device, kit)
        yield look("disk", disk, kit)
        yield look("data", data, kit)


def look(what: str, at: Callable[..., str], *given: Any) -> Check:
    """Look at one thing; whatever goes wrong is a line of its own, and the next is looked at.

    >>> def broken() -> str:
    ...     raise WrongError("it is broken", "mend it")
    >>> look("the thing", broken)
    Check(what='the thing', ok=False, found='it is broken', todo='mend it')
    """
    try:
        return Check(what, True, at(*given))
    except WrongError as error:
        return Check(what, False, *error.args)
    except UnknownError as error:
        return Check(what, None, *error.args)
    except (CounterpointError, OSError) as error:
        return Check(what, False, str(error), "put that right, then look again")


def packages(kit: Kit) -> str:
    """Versions here against those where the kit was made."""
    wanted = kit.known["versions"]
    here = versions()
    wrong = [
        f"{one} {here[one]} here, {wanted[one]} with the administrator"
        for one in PACKAGES
        if not alike(one, here[one], wanted.get(one, "none"))
    ]
    if wrong:
        raise WrongError("; ".join(wrong), "install the same versions as the administrator's")
    return ", ".join(f"{one} {here[one]}" for one in PACKAGES)


def alike(package: str, mine: str, other: str) -> bool:
    """Whether two versions work together: Counterpoint's and FLARE's must be equal.

    >>> alike("torch", "2.13.0+cpu", "2.13.1"), alike("nvflare", "2.9.0", "2.9.1")
    (True, False)
    """
    if package in ("counterpoint", "nvflare"):
        return mine == other
    return mine.split(".")[:2] == other.split(".")[:2]


def certificate(kit: Kit) -> str:
    """The kit's own certificate: signed by its authority, for this name and key, in its dates."""
    try:
        mine, root = (
            x509.load_pem_x509_certificate(file.read_bytes())
            for file in (kit.file("crt"), kit.authority)
        )
        key = load_pem_private_key(kit.file("key").read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise WrongError(
            f"the kit's certificates can't be read: {error}", "ask the administrator for a new kit"
        ) from error
    ask = "ask the administrator for a new kit of your own"
    (subject,) = mine.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    if subject.value != kit.name:
        raise WrongError(f"{kit.file('crt')} is that of '{subject.value}', not '{kit.name}'", ask)
    if key.public_key() != mine.public_key():
        raise WrongError(f"{kit.file('key')} is not the key of the certificate beside it", ask)
    try:
        mine.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise WrongError(f"{kit.file('crt')} is not signed by {kit.authority.name}", ask) from error
    mode = kit.file("key").stat().st_mode & 0o077
    if mode:
        raise WrongError(
            "others on this machine can read the kit's key", f"chmod 600 '{kit.file('key')}'"
        )
    ends = min(mine.not_valid_after_utc, root.not_valid_after_utc)
    begins = max(mine.not_valid_before_utc, root.not_valid_before_utc)
    return f"of '{kit.name}', {in_dates(begins, ends)}"


def in_dates(begins: datetime, ends: datetime, now: datetime | None = None) -> str:
    """Until when a certificate is valid, or WrongError.

    >>> in_dates(datetime(2026, 1, 1), datetime(2027, 1, 1), now=datetime(2026, 6, 1))
    'valid until 2027-01-01'
    """
    now = now or datetime.now(UTC)
    if now < begins:
        raise WrongError(
            f"it is valid only from {begins:%Y-%m-%d %H:%M} UTC, and this machine's clock says "
            f"{now:%Y-%m-%d %H:%M}",
            "set the clock (for example, timedatectl set-ntp true)",
        )
    days = (ends - now).days
    if days < SOON:
        raise WrongError(
            f"it ends on {ends:%Y-%m-%d}, {'before today' if days < 0 else f'in {days} days'}",
            "ask the administrator for a new kit; if it should not, look at this machine's clock",
        )
    return f"valid until {ends:%Y-%m-%d}"


def name(kit: Kit) -> str:
    """Whether the server's name leads to an address."""
    try:
        found = {one[4][0] for one in socket.getaddrinfo(kit.host, kit.port)}
    except OSError as error:
        raise WrongError(
            f"{kit.host} leads to no address: {error}",
            "ask who runs your network (DNS), or put it into /etc/hosts",
        ) from error
    return f"{kit.host} is {', '.join(sorted(map(str, found)))}"


def port(kit: Kit) -> str:
    """Whether the server's port can be reached."""
    try:
        socket.create_connection((kit.host, kit.port), PATIENCE).close()
    except OSError as error:
        refused = isinstance(error, ConnectionRefusedError)
        raise WrongError(
            f"{kit.host}:{kit.port} can't be reached: {error}",
            "ask the administrator whether the server is started"
            if refused
            else f"have outgoing TCP to {kit.host}:{kit.port} opened in your firewall",
        ) from error
    return f"{kit.host}:{kit.port} answers"


def free_port(kit: Kit) -> str:
    """Whether the server could listen on its port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", kit.port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise WrongError(f"no process may listen on {kit.port}: {error}", "") from error
            raise UnknownError(
                f"something listens on {kit.port} already",
                "right if this server is started; whether it is it, a site's check shows",
            ) from error
    return f"{kit.port} is free; whether sites reach it, their checks show once it is started"


class Line:
    """One call to the server with the kit's certificate, and what was learned by it."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.date: datetime | None = None

    def certificate(self) -> str:
        """The server's certificate, and whether the server takes ours."""
        kit = self.kit
        try:
            plain = socket.create_connection((kit.host, kit.port), PATIENCE)
            context = ssl.create_default_context(cafile=str(kit.authority))
            context.load_cert_chain(kit.file("crt"), kit.file("key"))
        except OSError as error:
            raise UnknownError(f"the server can't be asked: {error}", "see above") from error
        try:
            with plain, context.wrap_socket(plain, server_hostname=kit.host) as line:
                shown: Any = line.getpeercert()
                answer = ask_date(line, kit.host)
        except ssl.SSLCertVerificationError as error:
            raise WrongError(
                f"the server's certificate is not that of the kit's consortium: "
                f"{error.verify_message}",
                "send nothing there; ask the administrator which server this is, and whether your "
                "kit is the newest",
            ) from error
        except OSError as error:
            raise WrongError(
                f"the server does not take this kit's certificate: {error}",
                "ask the administrator for a new kit",
            ) from error
        if not answer:
            raise WrongError(
                "the server has hung up on this kit's certificate",
                "ask the administrator for a new kit",
            )
        self.date = said_date(answer)
        begins, ends = (
            datetime.fromtimestamp(ssl.cert_time_to_seconds(shown[when]), UTC)
            for when in ("notBefore", "notAfter")
        )
        return f"of '{kit.host}', {in_dates(begins, ends)}; it takes this kit's"

    def clock(self) -> str:
        """This machine's clock against the server's, in its answer over TLS."""
        if self.date is None:
            raise UnknownError("the server has told no time", "see above")
        seconds = round((datetime.now(UTC) - self.date).total_seconds())
        by = f"{abs(seconds)} s {'before' if seconds > 0 else 'behind'} the server's"
        if abs(seconds) > CLOCK:
            raise WrongError(
                f"this machine's clock is {by}",
                "set the clock that is wrong (for example, timedatectl set-ntp true)",
            )
        return "that of the server, to the second" if abs(seconds) < 2 else by


def ask_date(line: ssl.SSLSocket, host: str) -> bytes:
    """Ask for a page that is not there: a refusal comes with the time as well."""
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    line.sendall(request.encode())
    return line.recv(4096)


def said_date(answer: bytes) -> datetime | None:
    r"""The time that an answer in HTTP tells.

    >>> said_date(b"HTTP/1.1 404 Not Found\r\nDate: Sun, 22 Nov 2026 10:03:41 GMT\r\n\r\n")
    datetime.datetime(2026, 11, 22, 10, 3, 41, tzinfo=datetime.timezone.utc)
    """
    for one in answer.decode("latin-1").split("\r\n"):
        head, _, value = one.partition(":")
        if head.lower() == "date":
            try:
                return parsedate_to_datetime(value.strip())
            except ValueError:
                return None
    return None


def settings(kit: Kit) -> str:
    """The site's own file, and whether the plan's method and network may be used here."""
    if kit.name not in kit.plan.sites:
        raise WrongError(
            f"the plan has no site '{kit.name}'", "ask the administrator for a new kit"
        )
    rounds, own = kit.plan.settings.method.schedule.rounds, kit.own.policy.max_rounds
    if own is not None and own < rounds:
        raise WrongError(
            f"the policy allows {own} rounds, and the plan has {rounds}",
            "change max_rounds, or tell the administrator",
        )
    return f"{kit.plan.settings.method.name}, {rounds} rounds, data: {kit.own.data}"


def key(kit: Kit) -> str:
    """The encryption key: whether it is one, and nobody else's to read."""
    file = kit.own.key
    if file is None:
        raise WrongError(
            "the run encrypts what leaves, and the settings file names no `key`",
            f"write `key: {KEY}` into it, or ask the administrator for a new kit",
        )
    mark = mark_of(read_key(file))
    if file.stat().st_mode & 0o077:
        raise WrongError("others on this machine can read the key", f"chmod 600 '{file}'")
    return f"its mark is {mark}; at all sites it must be the same"


def device(kit: Kit) -> str:
    """Whether there is the device to compute on."""
    return str(choose_device(kit.own.device or kit.plan.settings.machine.device))


def disk(kit: Kit) -> str:
    """Room for what is kept of a run; of a server, which keeps less, as much is asked."""
    model = new_predictor(kit.plan.settings.method, kit.plan.task, kit.plan.shape)
    network = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    times = TIMES_A_NETWORK + (TIMES_MORE_IF_ENCRYPTED if kit.plan.settings.encrypt else 0)
    return room(kit.own.storage if kit.kind == "site" else kit.path, times * network)


def room(place: Path, needed: int) -> str:
    """Whether a folder, or the one that it will be made in, can be written and has room."""
    while not place.exists():
        place = place.parent
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise WrongError(
            f"{place} can't be written: {error.strerror}",
            "change `storage` in the settings file, or the folder's rights",
        ) from error
    free = shutil.disk_usage(place).free
    words = f"{in_bytes(free)} free in {place}, about {in_bytes(needed)} needed for a run"
    if free < needed:
        raise WrongError(words, "free some space, or change `storage` in the settings file")
    return words


def in_bytes(count: int) -> str:
    """A count of bytes in words.

    >>> in_bytes(1_240_000_000), in_bytes(312)
    ('1.2 GB', '312 bytes')
    """
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def data(kit: Kit) -> str:
    """Read and decode all of the site's data, as the run will."""
    found, _ = kit.own.bring(kit.plan, kit.plan.sites[kit.name])
    counts = Counter(str(split) for split in found.splits)
    empty = [part for part in ("train", "validation", "test") if not counts[part]]
    if empty:
        raise WrongError(
            f"no image is for {' and '.join(empty)}", "put that right in your table or `protocol`"
        )
    images = ", ".join(f"{counts[part]} {part}" for part in ("train", "validation", "test"))
    return f"all of '{kit.name}' read and decoded: {images}"
