"""The loop of a federation, readable from top to bottom."""

import dataclasses
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from counterpoint.client import Client, ClientData, Row, Visit
from counterpoint.crew import Crew, Report, choose_device, gather
from counterpoint.data.site import Federation, SiteData
from counterpoint.errors import PayloadError
from counterpoint.files import read_tensors
from counterpoint.folder import Kept, Notebook, RunFolder, keep
from counterpoint.payload import Payload
from counterpoint.results import Result, summarise, write_models
from counterpoint.server import WeightedMean
from counterpoint.settings import Settings
from counterpoint.tasks import Classification


@dataclass(frozen=True)
class Job:
    """One site's work in one round, as it is handed to whoever does it."""

    data: ClientData
    number: int
    """The site's place in the order of the sites; its files are named by it."""
    round: int
    folder: Path
    state: Kept | None
    """What the site's last visit left."""
    mean: Kept | None
    keep_candidate: bool


@dataclass(frozen=True)
class Done:
    """What came of a job: what leaves the site, and what it kept on its own disk."""

    visit: Visit
    state: Kept
    candidate: Kept | None


def federate(
    folder: RunFolder,
    settings: Settings,
    federation: Federation,
    sites: list[SiteData],
    report: Report,
) -> Result:
    """Train the rounds that are missing, choose, test once, and write the results."""
    task = Classification(federation.classes)
    clients = [ClientData(site.name, (site,)) for site in sites]
    if settings.method.pooled:
        clients = [ClientData("pooled", tuple(sites))]
    workers = min(settings.machine.workers or 1, len(clients))
    threads = settings.machine.threads or 1
    with folder.lock():
        notebook, damaged = folder.latest()
        for sentence in damaged:
            report({"warning": sentence})
        schedule = settings.method.schedule
        report(
            {
                "from": min(notebook.round, schedule.rounds),
                "rounds": schedule.rounds,
                "epochs": schedule.local_epochs,
                "sites": len(sites),
                "predicts": settings.method.local.predicts,
            }
        )
        with gather(settings, task, workers, threads, report) as crew:
            while notebook.round <= schedule.rounds:
                notebook = play_round(folder, settings, notebook, clients, crew, report)
            return finish(folder, settings, federation, task, notebook, clients, crew)


def play_round(
    folder: RunFolder,
    settings: Settings,
    before: Notebook,
    clients: list[ClientData],
    crew: Crew[Any],
    report: Report,
) -> Notebook:
    """One round of the federation, from one notebook to the next.

    The round after the last one trains no more: its sites merge the last mean and are scored.
    Validation chooses by the mean score, and among equal scores by the mean loss.
    """
    schedule, round = settings.method.schedule, before.round + 1
    eligible = before.round >= schedule.first_choice  # the model just after the last merge
    jobs = [
        Job(data, number, round, folder.state, before.states.get(data.name), before.mean, eligible)
        for number, data in enumerate(clients)
    ]
    after = dataclasses.replace(before, round=round, states={})
    mean = WeightedMean()
    candidates: dict[str, Kept] = {}
    scores: list[Row] = []
    sent: list[Row] = []

    for done in crew(work, jobs):  # in the order of the sites
        visit: Visit = done.visit
        try:
            mean.add(visit.site, visit.payload, visit.weight)
        except PayloadError as error:
            raise PayloadError(f"round {round}: {error}. Nothing of this round was kept") from error
        after.states[visit.site] = done.state
        if done.candidate:
            candidates[visit.site] = done.candidate
        after.gradients += visit.gradients
        scores += visit.rows
        sent += describe(visit.payload, round, visit.site, "up")

    down = mean.result()
    after.mean = keep(folder.state, f"mean-{round:05d}", down)
    sent += [row for data in clients for row in describe(down, round, data.name, "down")]
    if eligible:
        score, loss = mean_scores(scores, settings, before.round)
        report({"round": before.round, "validation": score})
        if (score, -loss) > (before.best_score, -before.best_loss):
            after.best, after.best_score, after.best_loss = before.round, score, loss
            after.candidates = candidates
    folder.commit(after, {"scores.csv": scores, "payloads.csv": sent})
    return after


def work(client: Client, job: Job, report: Report) -> Done:
    """Do one site's round: take its state up, visit, put the state down on the site's disk."""
    state, mean = (kept.read(job.folder) if kept else None for kept in (job.state, job.mean))
    for event in client.visit(job.data, state, mean, job.round):
        if isinstance(event, Visit):
            visit = event
        else:
            report(event)
    name = f"site-{job.number:04d}-{job.round:05d}"
    done = Done(
        visit,
        state=keep(job.folder, f"{name}-state", visit.state),
        candidate=keep(job.folder, f"{name}-candidate", visit.candidate)
        if job.keep_candidate
        else None,
    )
    visit.state, visit.candidate = {}, {}  # they are on the disk, and stay at the site
    return done


def finish(
    folder: RunFolder,
    settings: Settings,
    federation: Federation,
    task: Classification,
    notebook: Notebook,
    clients: list[ClientData],
    crew: Crew[Any],
) -> Result:
    """Score the test images once, with the models that validation chose, and write the results."""
    chosen = {data.name: folder.state / notebook.candidates[data.name].file for data in clients}
    jobs = [(data, chosen[data.name]) for data in clients]
    tested = [
        {"round": notebook.best, "moment": "merged", "epoch": 0} | row
        for rows in crew(score_test, jobs)
        for row in rows
    ]
    write_models(folder.path, settings, task, notebook.best, chosen)
    # Not noted in the notebook: if results.json is not reached, a resumed run cuts this off again.
    folder.append("scores.csv", tested)
    facts = {
        "chosen_round": notebook.best,
        "validation": notebook.best_score,
        "images_with_gradient": notebook.gradients,
        "data_fingerprint": federation.fingerprint,
        "data_notes": list(federation.notes),
        "versions": {name: version(name) for name in ("counterpoint", "torch", "numpy", "monai")}
        | {"python": platform.python_version()},
        "device": str(choose_device(settings.machine.device)),
    }
    folder.write_results(summarise(folder.path, settings, federation, facts))
    return Result(folder.path)


def score_test(client: Client, job: tuple[ClientData, Path], report: Report) -> list[Row]:
    """Score a site's test images with the model in a file."""
    data, path = job
    return client.test(data, read_tensors(path))


def describe(payload: Payload, round: int, site: str, direction: str) -> list[Row]:
    """Rows of ``payloads.csv``: what crossed, by name, shape and bytes."""
    return [
        {
            "round": round,
            "site": site,
            "direction": direction,
            "name": name,
            "shape": "x".join(str(side) for side in tensor.shape),
            "bytes": tensor.numel() * tensor.element_size(),
        }
        for name, tensor in payload.items()
    ]


def mean_scores(rows: list[Row], settings: Settings, round: int) -> tuple[float, float]:
    """Means over the sites of validation score and loss just after the merge of ``round``."""
    chosen = [
        row
        for row in rows
        if row["round"] == round
        and row["moment"] == "merged"
        and row["model"] == settings.method.local.predicts
    ]
    score, loss = (
        sum(float(str(row[name])) for row in chosen) / len(chosen)
        for name in (Classification.score, "loss")
    )
    return score, loss
