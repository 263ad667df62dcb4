"""The line to the server, looked at before the day: certificates, name, port, clock."""

import errno
import socket
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from counterpoint.flare.startup_kit import Kit, UnknownError, WrongError

PATIENCE = 10.0
"""Seconds to wait for the server."""
CLOCK = 300
"""Seconds that two clocks may differ by. What depends on the clock are the certificates' dates."""
SOON = 14
"""Days: a certificate that ends in fewer is told of as failed, before it ends in a run."""


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


class Call:
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
