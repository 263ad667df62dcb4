"""A site's side of a round, whoever carries the messages: from an order to an answer.

The site's state and its candidate models are written to a folder of the site; only the rows, the
weight and the payload of the visit, and the names and checksums of those files, are handed on.
"""

import secrets
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from counterpoint.client import Client, ClientData, Visit
from counterpoint.crew import Report
from counterpoint.encryption import Lock
from counterpoint.kept import Kept, keep, keep_again, read_mean
from counterpoint.payload import Payload


@dataclass(frozen=True)
class Order:
    """What the server asks of a site in a round; with the tensors of the mean, all that it says."""

    site: str
    number: int
    """The site's place in the order of the sites; its files are named by it."""
    round: int
    state: Kept | None
    """What the site's last visit left."""
    mean: Kept | None
    news: tuple[str, ...]
    """Names in the mean that the site has not had; all of them if it missed a round."""
    keep_candidate: bool
    chosen: Kept | None
    """The site's model that validation has chosen so far, to be kept till another one is."""


@dataclass(frozen=True)
class Job:
    """An order with what it needs of the site: its data, and the folder of its files."""

    order: Order
    data: ClientData
    folder: Path
    lock: Lock | None = None
    """Encrypts what leaves and decrypts the mean, where the run asks for it."""
    afar: bool = False
    """Whether the answer goes to a server elsewhere: then no checksum tells what is in a file."""


@dataclass(frozen=True)
class Answer:
    """What leaves the site, and where its own disk has what stays."""

    visit: Visit
    state: Kept
    candidate: Kept | None


def work(client: Client, job: Job, report: Report) -> Answer:
    """Do one site's round: take its state up, visit, put the state down on the site's disk."""
    order, folder = job.order, job.folder
    state = order.state.read(folder) if order.state else None
    mean = read_mean(order.mean, folder) if order.mean else None
    if job.lock and mean:
        mean = job.lock.unseal(mean)
    for event in client.visit(job.data, state, mean, order.round):
        if isinstance(event, Visit):
            visit = event
        else:
            report(event)
    name = f"site-{order.number:04d}-{order.round:05d}"
    candidate = keep_candidate(job, f"{name}-candidate", visit) if order.keep_candidate else None
    answer = Answer(visit, keep_own(job, f"{name}-state", visit.state), candidate)
    visit.state, visit.candidate = {}, {}  # they are in files, and stay at the site
    if job.lock:
        visit.payload = job.lock.seal(visit.payload, visit.weight)
    return answer


def keep_own(job: Job, name: str, tensors: Payload) -> Kept:
    """Write a file of the site's; of one on this machine, whoever has the answer flushes it."""
    salt = secrets.token_hex() if job.afar else ""
    return keep(job.folder, name, tensors, salt, flush=job.afar)


def keep_candidate(job: Job, name: str, visit: Visit) -> Kept:
    """Write a site's candidate model; one that all sites have is written once, and named by all."""
    if job.afar or not visit.common:
        return keep_own(job, name, visit.candidate)
    earlier = common_candidate(job.folder, job.order.round)
    linked = keep_again(job.folder, name, earlier[0]) if earlier else None
    earlier[:] = [linked or keep_own(job, name, visit.candidate)]
    return earlier[0]


@lru_cache(maxsize=1)
def common_candidate(folder: Path, round: int) -> list[Kept]:
    """The last candidate of a round that is all sites', of those that this process has kept."""
    return []
