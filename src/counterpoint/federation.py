"""The loop of a federation, readable from top to bottom."""

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from counterpoint.client import Client, ClientData, Row, Visit
from counterpoint.crew import Crew, Report, choose_device, gather
from counterpoint.data.site import Federation, SiteData
from counterpoint.errors import PayloadError
from counterpoint.files import read_tensors, write_tensors
from counterpoint.folder import Notebook, RunFolder
from counterpoint.payload import Payload
from counterpoint.results import Result, summarise, write_models
from counterpoint.server import WeightedMean
from counterpoint.settings import Settings
from counterpoint.tasks import Classification


@dataclass(frozen=True)
class Job:
    """One site's work in one round, as it is handed to whoever does it."""

    data: ClientData
    round: int
    folder: Path
    state: tuple[str, str] | None
    """File and checksum of what the site's last visit left."""
    mean: tuple[str, str] | None
    keep_candidate: bool


@dataclass(frozen=True)
class Done:
    """What came of a job: the payload that leaves the site, and which files the site wrote."""

    visit: Visit
    files: dict[str, str]
    """For ``state`` and ``candidate``: the file's name."""
    sums: dict[str, str]


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
    """
    schedule, round = settings.method.schedule, before.round + 1
    eligible = before.round >= schedule.first_choice  # the model just after the last merge
    jobs = [
        Job(
            data,
            round,
            folder.state,
            _noted(before, before.states.get(data.name)),
            _noted(before, before.mean),
            eligible,
        )
        for data in clients
    ]
    after = Notebook(round=round, best=before.best, best_score=before.best_score)
    after.candidates, after.gradients = before.candidates, before.gradients
    sums = dict(before.sums)
    mean = WeightedMean()
    scores: list[Row] = []
    sent: list[Row] = []
    candidates: dict[str, str] = {}

    for done in crew(work, jobs):  # in the order of the sites
        visit: Visit = done.visit
        try:
            mean.add(visit.site, visit.payload, visit.weight)
        except PayloadError as error:
            raise PayloadError(f"round {round}: {error}. Nothing of this round was kept") from error
        scores += visit.rows
        sent += describe(visit.payload, round, visit.site, "up")
        after.gradients += visit.gradients
        after.states[visit.site] = done.files["state"]
        candidates[visit.site] = done.files.get("candidate", "")
        sums |= done.sums

    down = mean.result()
    sent += [row for data in clients for row in describe(down, round, data.name, "down")]
    after.mean = f"mean-{round:05d}.safetensors"
    sums[after.mean] = write_tensors(folder.state / after.mean, down)
    if eligible:
        score = mean_score(scores, settings, before.round)
        report({"round": before.round, "validation": score})
        if score > before.best_score:
            after.best, after.best_score, after.candidates = before.round, score, candidates
    after.sums = {name: sums[name] for name in after.files}
    folder.commit(after, {"scores.csv": scores, "payloads.csv": sent})
    return after


def work(client: Client, job: Job, report: Report) -> Done:
    """Do one site's round: take its state up, visit, put the state down on the site's disk."""
    state = read_tensors(job.folder / job.state[0], job.state[1]) if job.state else None
    mean = read_tensors(job.folder / job.mean[0], job.mean[1]) if job.mean else None
    for event in client.visit(job.data, state, mean, job.round):
        if isinstance(event, Visit):
            visit = event
        else:
            report(event)
    kept = {"state": visit.state}
    if job.keep_candidate:
        kept["candidate"] = visit.candidate
    name = f"{quote(job.data.name, safe=' ')}-{job.round:05d}"
    files = {kind: f"{name}-{kind}.safetensors" for kind in kept}
    sums = {files[kind]: write_tensors(job.folder / files[kind], kept[kind]) for kind in kept}
    visit.state, visit.candidate = {}, {}  # they are on the disk, and stay at the site
    return Done(visit, files, sums)


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
    chosen = {data.name: folder.state / notebook.candidates[data.name] for data in clients}
    jobs = [(data, chosen[data.name]) for data in clients]
    tested = [
        {"round": notebook.best, "moment": "merged", "epoch": 0} | row
        for rows in crew(test, jobs)
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


def test(client: Client, job: tuple[ClientData, Path], report: Report) -> list[Row]:
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


def mean_score(rows: list[Row], settings: Settings, round: int) -> float:
    """Mean over the sites of the validation score just after the merge of ``round``."""
    scores = [
        float(str(row[Classification.score]))
        for row in rows
        if row["round"] == round
        and row["moment"] == "merged"
        and row["model"] == settings.method.local.predicts
    ]
    return sum(scores) / len(scores)


def _noted(notebook: Notebook, file: str | None) -> tuple[str, str] | None:
    return (file, notebook.sums[file]) if file else None
