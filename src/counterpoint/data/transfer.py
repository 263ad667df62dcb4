"""Download one file over HTTP; a download that was cut off goes on where it stopped."""

import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from counterpoint.errors import DataError

WAITS = (1.0, 2.0, 5.0, 10.0)
"""Seconds to wait before trying again, each time that nothing new came since the last try."""
_TIMEOUT = (20.0, 60.0)  # seconds to connect, and between two pieces
_CHUNK = 1 << 16
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)


class _CutError(Exception):
    """The server may still give the rest: the text says why it has not, ``wait`` is in seconds."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Turn an OSError about ``path`` into a DataError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)):
            raise DataError(
                f"the disk is full: {path} can't be written ({error.strerror}); free some space "
                "and run the same command again, it goes on from what has been downloaded"
            ) from error
        raise DataError(f"{path} can't be written ({error.strerror or error})") from error


@dataclass
class Resuming:
    """A downloader for pooch that keeps what has come in ``part`` and asks only for the rest.

    It goes on only if the server vouches, by ETag or Last-Modified, that the file is still the
    same; otherwise, and where the server knows no ranges, the file comes anew. A connection that
    is cut and passing errors of the server (503 and the like) are tried again, see `WAITS`.
    ``progress`` is called with the bytes that have come and how many there are (None: not known).

    Raises DataError that names the URL and the status or the reason; ``part`` is then kept.
    """

    part: Path
    progress: Callable[[int, int | None], None]

    def __call__(
        self, url: str, output_file: Any, pooch: Any, *, check_only: bool | None = False
    ) -> None:
        """Download ``url`` to the path ``output_file``, as pooch calls it."""
        most, failures, reached = self._have(), 0, False
        while True:
            try:
                response = self._ask(url, reached)
                reached = True
                with response:
                    self._receive(url, response)
                break
            except _CutError as cut:
                if self._have() > most:
                    most, failures = self._have(), 0
                if failures == len(WAITS):
                    raise DataError(
                        f"{url}: {cut}, and so {failures + 1} times; run the same command again "
                        "later, it goes on from what has come"
                    ) from cut
                time.sleep(max(WAITS[failures], cut.wait))
                failures += 1
        with on_disk(self.part):
            os.replace(self.part, output_file)
            self._stamp.unlink(missing_ok=True)

    @property
    def _stamp(self) -> Path:
        """The file that says of which URL and version the part is."""
        return self.part.with_name(f"{self.part.name}.json")

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _same(self, url: str) -> str:
        """Return the ETag or date by which the part can be gone on with; empty if it can't be."""
        try:
            stamp = json.loads(self._stamp.read_text(encoding="utf-8"))
            return str(stamp["validator"]) if stamp["url"] == url and self._have() else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def _ask(self, url: str, reached: bool) -> requests.Response:
        """Ask for the file, or for what is missing of it."""
        # Not compressed on the way: a range would else be one of other bytes.
        headers = {
            "User-Agent": f"counterpoint/{version('counterpoint')}",
            "Accept-Encoding": "identity",
        }
        if validator := self._same(url):
            headers |= {"Range": f"bytes={self._have()}-", "If-Range": validator}
        try:
            return requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT)
        except requests.ConnectionError as error:
            if reached:
                raise _CutError(_reason(error)) from error
            raise DataError(
                f"no connection to {urlsplit(url).netloc} for {url} ({_reason(error)}); check the "
                "network (and a proxy), then run the same command again"
            ) from error
        except requests.Timeout as error:
            raise _CutError("no answer in time") from error
        except requests.RequestException as error:
            raise DataError(f"{url} can't be asked for ({error}); check the address") from error

    def _receive(self, url: str, response: requests.Response) -> None:
        """Append what the response brings, or begin anew with it."""
        status = f"the server answered {response.status_code} {response.reason or ''}".rstrip()
        sent = response.headers
        have, validator = self._have(), self._same(url)
        if response.status_code in _TRY_AGAIN:
            wait = sent.get("Retry-After", "")
            raise _CutError(status, min(float(wait), 60.0) if wait.isdigit() else 0.0)
        if response.status_code == 416 and validator:
            if sent.get("Content-Range", "").rpartition("/")[2] == str(have):
                return  # all of it had come already
            self._discard()
            raise _CutError(status)
        if response.status_code not in (200, 206):
            raise DataError(
                f"{url}: {status}; look on the data set's page whether it has moved, and give the "
                "new place with --url (in Python: base)"
            )
        if sent.get("Content-Type", "").startswith("text/html"):
            raise DataError(
                f"{url} gives a web page and not the file (a log-in, or it has moved); look at it "
                "in a browser, and give another place with --url (in Python: base)"
            )
        if response.status_code == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", sent.get("Content-Range", ""))
            now = _validator(response)
            if not validator or not span or int(span[1]) != have or now not in ("", validator):
                self._discard()
                raise _CutError("the file has changed on the server")
            total = None if span[2] == "*" else int(span[2])
        else:
            self._begin(url, _validator(response))
            length = sent.get("Content-Length", "")
            have, total = 0, int(length) if length.isdigit() else None
        self._append(response, have, total)

    def _begin(self, url: str, validator: str) -> None:
        """Begin anew: an empty part, then the stamp that it belongs to."""
        with on_disk(self.part):
            self.part.write_bytes(b"")
            stamp = {"url": url, "validator": validator}
            self._stamp.write_text(json.dumps(stamp), encoding="utf-8")

    def _append(self, response: requests.Response, have: int, total: int | None) -> None:
        self.progress(have, total)
        with on_disk(self.part), open(self.part, "ab") as file:
            for piece in _pieces(response):
                file.write(piece)
                have += len(piece)
                self.progress(have, total)
        if total is not None and have != total:
            raise _CutError(f"the connection was cut after {have} of {total} bytes")

    def _discard(self) -> None:
        with on_disk(self.part):
            self._stamp.unlink(missing_ok=True)
            self.part.unlink(missing_ok=True)


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """Give the bytes as they were sent; a broken connection is a `_CutError`."""
    try:
        yield from response.raw.stream(_CHUNK, decode_content=False)
    except (urllib3.exceptions.HTTPError, requests.RequestException, OSError) as error:
        raise _CutError(f"the connection was cut ({_reason(error)})") from error


def _validator(response: requests.Response) -> str:
    """Return what tells this version of the file from others: a strong ETag, else its date."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _reason(error: BaseException) -> str:
    """Return the end of the chain of reasons, without the names of classes and pools."""
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", inner)).rpartition(": ")[2]
