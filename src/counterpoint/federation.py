"""The loop of a federation, readable from top to bottom."""

import dataclasses
import platform
import random
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.client import Client, ClientData, Row, Visit, derive_seed, first_weights
from counterpoint.crew import Crew, Report, choose_device, gather
from counterpoint.data.site import Federation, SiteData
from counterpoint.errors import PayloadError
from counterpoint.exam import Exam, score_test
from counterpoint.folder import Kept, Notebook, RunFolder, keep
from counterpoint.payload import Payload
from counterpoint.results import Result, summarise, write_models
from counterpoint.server import WeightedMean
from counterpoint.server_update import Mean
from counterpoint.settings import Settings
from counterpoint.tasks import Task


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


@dataclass(frozen=True)
class Play:
    """What stays the same from round to round."""

    folder: RunFolder
    settings: Settings
    federation: Federation
    task: Task
    shape: tuple[int, ...]
    clients: list[ClientData]
    holdout: ClientData | None
    report: Report


def federate(
    folder: RunFolder,
    settings: Settings,
    federation: Federation,
    task: Task,
    sites: list[SiteData],
    report: Report,
) -> Result:
    """Train the rounds that are missing, choose, test once, and write the results.

    ``sites`` are the decoded sites; where one is held out, it is the last.
    """
    training = sites[: len(federation.sites)]
    clients = [ClientData(site.name, (site,)) for site in training]
    if settings.method.pooled:
        clients = [ClientData("pooled", tuple(training))]
    holdout = ClientData(sites[-1].name, (sites[-1],)) if federation.holdout else None
    shape = input_shape(federation, settings)
    play = Play(folder, settings, federation, task, shape, clients, holdout, report)
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
                "sites": len(clients),
                "predicts": settings.method.local.predicts,
                "score": task.score,
            }
        )
        with gather(settings, task, shape, workers, threads, report) as crew:
            while notebook.round <= schedule.rounds:
                notebook = play_round(play, notebook, crew)
            return finish(play, notebook, crew)


def input_shape(federation: Federation, settings: Settings) -> tuple[int, ...]:
    """Shape of an image as the networks see it: (C, S, S), or (1, S, S, S) for volumes."""
    form, size = federation.form, settings.method.schedule.image_size
    return (form.channels, *[size] * form.dimensions)


def taking_part(clients: list[ClientData], settings: Settings, round: int) -> list[int]:
    """Numbers of the sites that take part in a round, in order; all of them after the last."""
    schedule = settings.method.schedule
    if schedule.participation == 1 or round > schedule.rounds:
        return list(range(len(clients)))
    drawn = random.Random(derive_seed(settings.seed, "participation", round))
    count = max(1, round_half_up(schedule.participation * len(clients)))
    return sorted(drawn.sample(range(len(clients)), count))


def round_half_up(number: float) -> int:
    """The nearest whole number, halves upwards.

    >>> round_half_up(2.5), round_half_up(2.4)
    (3, 2)
    """
    return int(number + 0.5)


def play_round(play: Play, before: Notebook, crew: Crew[Any]) -> Notebook:
    """One round of the federation, from one notebook to the next.

    The round after the last one trains no more: all sites merge the last mean and are scored.
    Validation chooses by the mean score, and among equal scores by the mean loss.
    """
    folder, settings, clients = play.folder, play.settings, play.clients
    schedule, round = settings.method.schedule, before.round + 1
    eligible = before.round >= schedule.first_choice  # the model just after the last merge
    present = [(number, clients[number]) for number in taking_part(clients, settings, round)]
    jobs = [
        Job(data, number, round, folder.state, before.states.get(data.name), before.mean, eligible)
        for number, data in present
    ]
    after = dataclasses.replace(before, round=round, states=dict(before.states))
    after.visits = before.visits | {data.name: round for _, data in present}
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

    last = before.mean.read(folder.state) if before.mean else {}
    for _, data in present if last else []:
        late = before.visits.get(data.name) != before.round
        got = last if late else {name: last[name] for name in before.fresh}
        sent += describe(got, before.round, data.name, "down")
    down, kept = serve(play, mean.result(), before, last, len(present) / len(clients))
    after.fresh = sorted(down)
    after.mean = keep(folder.state, f"mean-{round:05d}", last | down)
    after.server = keep(folder.state, f"server-{round:05d}", kept) if kept else None
    if eligible:
        score, loss = mean_scores(scores, settings, play.task, before.round)
        play.report({"round": before.round, "validation": score})
        if (score, -loss) > (before.best_score, -before.best_loss):
            after.best, after.best_score, after.best_loss = before.round, score, loss
            after.candidates = candidates
    folder.commit(after, {"scores.csv": scores, "payloads.csv": sent})
    return after


def serve(
    play: Play, mean: Payload, before: Notebook, last: Payload, present: float
) -> tuple[Payload, Payload]:
    """The server's part after the mean is taken: what goes down, and what the server keeps."""
    server, method = play.settings.method.server, play.settings.method
    if not mean or isinstance(server, Mean):
        return mean, {}
    memory = before.server.read(play.folder.state) if before.server else {}
    last = last or first_weights(method, play.task, play.shape, play.settings.seed)
    return server.update(mean, last, memory, present)


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


def finish(play: Play, notebook: Notebook, crew: Crew[Any]) -> Result:
    """Score the test images once, with the models that validation chose, and write the results."""
    folder, settings, federation, clients = (
        play.folder,
        play.settings,
        play.federation,
        play.clients,
    )
    chosen = {data.name: folder.state / notebook.candidates[data.name].file for data in clients}
    jobs = [Exam(data, (chosen[data.name],), settings.seed) for data in clients]
    if play.holdout:
        jobs.append(Exam(play.holdout, tuple(chosen.values()), settings.seed, elsewhere=True))
    moment = "finetuned" if settings.method.schedule.finetune_epochs else "merged"
    tested, cases, intervals = [], [], {}
    for done in crew(score_test, jobs):
        for row, of_cases, of_scores in done:
            tested.append({"round": notebook.best, "moment": moment, "epoch": 0} | row)
            cases += of_cases
            intervals[str(row["site"])] = of_scores
    same = write_models(folder.path, settings, play.task, play.shape, notebook.best, chosen)
    folder.write_table("test_cases.csv", cases)
    # Not noted in the notebook: if results.json is not reached, a resumed run cuts this off again.
    folder.append("scores.csv", tested)
    facts = {
        "score": play.task.score,
        "metrics": list(play.task.metrics),
        "task": play.task.kind,
        "holdout": play.holdout.name if play.holdout else None,
        "intervals": intervals,
        "one_global_model": same,
        "chosen_round": notebook.best,
        "chosen_from": settings.method.schedule.first_choice,
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


def mean_scores(rows: list[Row], settings: Settings, task: Task, round: int) -> tuple[float, float]:
    """Means over the sites of validation score and loss of the models of ``round``.

    They are scored just after the merge, or after the last epoch of fine-tuning. A score that no
    site has (no foreground, and none found) counts as 0: then the loss chooses.
    """
    epochs = settings.method.schedule.finetune_epochs
    moment = ("finetuned", epochs) if epochs else ("merged", 0)
    chosen = [
        row
        for row in rows
        if row["round"] == round
        and (row["moment"], row["epoch"]) == moment
        and row["model"] == settings.method.local.predicts
    ]
    values = np.array([[float(str(row[n])) for n in (task.score, "loss")] for row in chosen])
    defined = values[~np.isnan(values[:, 0]), 0]
    return float(defined.mean()) if len(defined) else 0.0, float(values[:, 1].mean())
