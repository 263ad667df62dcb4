"""The loop of a federation, readable from top to bottom."""

import dataclasses
import os
import platform
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Protocol

import numpy as np

from counterpoint.at_site import Answer, Order
from counterpoint.client import ClientData, Row
from counterpoint.crew import Report, choose_device, gather, told
from counterpoint.data.site import Federation, SiteData
from counterpoint.encryption import EncryptedSum, Lock, make_key, read_key, write_key
from counterpoint.errors import PayloadError, StateError
from counterpoint.exam import Tested
from counterpoint.first import first_weights
from counterpoint.folder import Notebook, RunFolder
from counterpoint.here import Here
from counterpoint.kept import Kept, keep, read_mean
from counterpoint.payload import Payload
from counterpoint.results import Result, summarise
from counterpoint.seeds import derive_seed
from counterpoint.server import WeightedMean
from counterpoint.server_update import Mean
from counterpoint.settings import Settings
from counterpoint.tasks import Task


class Sites(Protocol):
    """The sites as the server reaches them: on this machine, or across a network.

    Answers come in the order of the sites; a site that gives none is passed over. The server
    only holds on to the names and checksums of the files that a site keeps.
    """

    def visit(self, orders: Sequence[Order]) -> Iterator[Answer]:
        """Have sites work a round."""
        ...

    def test(self, round: int, chosen: Mapping[str, Kept]) -> Iterator[list[Tested]]:
        """Have every site score its test images with its model of the chosen round."""
        ...

    def leave_models(self, round: int, chosen: Mapping[str, Kept]) -> bool:
        """Have the models of the chosen round put where they belong; tell if all are one."""
        ...

    def about_data(self) -> Mapping[str, object]:
        """For `results.json`: each site's number of training images, and the data's fingerprint."""
        ...


@dataclass(frozen=True)
class Play:
    """What the server knows, the same from round to round; no site's data and no site's state."""

    folder: RunFolder
    settings: Settings
    task: Task
    shape: tuple[int, ...]
    names: tuple[str, ...]
    """Of the sites, in their order."""
    facts: Mapping[str, object]
    """What `results.json` says of the data."""
    report: Report
    scored: int = 1
    """Sites that a client's models are scored at: all of them where training is pooled."""


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
    facts = {
        "data": federation.name,
        "protocol": federation.protocol,
        "holdout": holdout.name if holdout else None,
        "data_notes": list(federation.notes),
        "device": str(choose_device(settings.machine.device)),
    }
    if (begun := folder.facts().get("device", facts["device"])) != facts["device"]:
        report(
            {
                "warning": f"the run was begun on {begun} and goes on on {facts['device']}: its "
                "numbers are those of a run that was never stopped up to rounding only"
            }
        )
    by_name = {data.name: data for data in clients}
    play = Play(folder, settings, task, shape, tuple(by_name), facts, report, len(clients[0].sites))
    workers = min(settings.machine.workers or 1, len(clients))
    threads = settings.machine.threads or 1
    with (
        folder.lock(),
        gather(settings, task, shape, workers, threads, report) as crew,
    ):
        form, lock = federation.form, lock_here(folder, settings, len(clients))
        fingerprint = federation.fingerprint
        here = Here(folder, settings, task, shape, form, by_name, holdout, fingerprint, crew, lock)
        return conduct(play, here)


def lock_here(folder: RunFolder, settings: Settings, sites: int) -> Lock | None:
    """The lock of all sites of this machine; its key lies in the run's folder, to go on with."""
    if not settings.encrypt:
        return None
    file = folder.state / "encryption.key"
    if not file.exists():
        write_key(file, make_key())
    return Lock(read_key(file), sites)


def conduct(play: Play, sites: Sites) -> Result:
    """The server's loop, from the last round that is complete to the results."""
    notebook, damaged = play.folder.latest()
    for sentence in damaged:
        play.report({"warning": sentence})
    schedule = play.settings.method.schedule
    play.report(
        {
            "from": min(notebook.round, schedule.rounds),
            "rounds": schedule.rounds,
            "epochs": schedule.local_epochs,
            "sites": sites_a_round(len(play.names), schedule.participation) * play.scored,
            "predicts": play.settings.method.local.predicts,
            "score": play.task.score,
        }
    )
    while notebook.round <= schedule.rounds:
        notebook = play_round(play, notebook, sites)
    return finish(play, notebook, sites)


def input_shape(federation: Federation, settings: Settings) -> tuple[int, ...]:
    """Shape of an image as the networks see it: (C, S, S), or (1, S, S, S) for volumes."""
    form, size = federation.form, settings.method.schedule.image_size
    return (form.channels, *[size] * form.dimensions)


def taking_part(sites: Sequence[object], settings: Settings, round: int) -> list[int]:
    """Numbers of the sites that take part in a round, in order; all of them after the last."""
    schedule = settings.method.schedule
    if schedule.participation == 1 or round > schedule.rounds:
        return list(range(len(sites)))
    drawn = random.Random(derive_seed(settings.seed, "participation", round))
    count = sites_a_round(len(sites), schedule.participation)
    return sorted(drawn.sample(range(len(sites)), count))


def rounds_asked(sites: Sequence[str], settings: Settings) -> dict[str, list[int]]:
    """For each site, the rounds that it is to train in: what can have left it, at most."""
    asked: dict[str, list[int]] = {site: [] for site in sites}
    for round in range(1, settings.method.schedule.rounds + 1):
        for number in taking_part(sites, settings, round):
            asked[sites[number]].append(round)
    return asked


def sites_a_round(sites: int, participation: float) -> int:
    """How many of all sites take part in a round.

    >>> sites_a_round(4, 1.0), sites_a_round(4, 0.5), sites_a_round(4, 0.1)
    (4, 2, 1)
    """
    return max(1, int(participation * sites + 0.5))  # halves upwards


def play_round(play: Play, before: Notebook, sites: Sites) -> Notebook:
    """One round of the federation, from one notebook to the next.

    The round after the last one trains no more: all sites merge the last mean and are scored.
    Validation chooses among the rounds that most sites were scored in, by the mean score, and
    among equal scores by the mean loss.
    """
    folder, settings = play.folder, play.settings
    schedule, round = settings.method.schedule, before.round + 1
    eligible = before.round >= schedule.first_choice  # the model just after the last merge
    asked = [(number, play.names[number]) for number in taking_part(play.names, settings, round)]
    last = read_mean(before.mean, folder.state) if before.mean else {}
    orders = [
        Order(
            site,
            number,
            round,
            before.states.get(site),
            before.mean,
            news=tuple(last if before.visits.get(site) != before.round else before.fresh),
            keep_candidate=eligible,
            chosen=before.candidates.get(site),
        )
        for number, site in asked
    ]
    after = dataclasses.replace(before, round=round, states=dict(before.states))
    after.visits = dict(before.visits)
    mean = EncryptedSum() if settings.encrypt else WeightedMean()
    present: set[str] = set()
    candidates: dict[str, Kept] = {}
    scores: list[Row] = []
    sent: list[Row] = []

    for answer in sites.visit(orders):
        visit = answer.visit
        try:
            mean.add(visit.site, visit.payload, visit.weight)
        except PayloadError as error:
            raise PayloadError(f"round {round}: {error}. Nothing of this round was kept") from error
        present.add(visit.site)
        after.visits[visit.site] = round
        after.states[visit.site] = answer.state
        if answer.candidate:
            candidates[visit.site] = answer.candidate
        after.gradients += visit.gradients
        scores += visit.rows
        sent += describe(visit.payload, round, visit.site, "up")

    for order in orders:
        if order.site in present:
            down = {name: last[name] for name in order.news}
            sent += describe(down, before.round, order.site, "down")
    down, kept = serve(play, mean.result(), before, last, len(present) / len(play.names))
    after.fresh = sorted(down)
    after.mean = keep(folder.state, f"mean-{round:05d}", last | down)
    after.server = keep(folder.state, f"server-{round:05d}", kept) if kept else None
    if eligible:
        score, loss = mean_scores(scores, settings, play.task, before.round)
        play.report({"round": before.round, "validation": score})
        best = (len(before.candidates), before.best_score, -before.best_loss)
        if (len(candidates), score, -loss) > best:
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


def finish(play: Play, notebook: Notebook, sites: Sites) -> Result:
    """Score the test images once, with the models that validation chose, and write the results."""
    folder, settings, facts = play.folder, play.settings, play.facts
    names = [name for name in play.names if name in notebook.candidates]
    chosen = {name: notebook.candidates[name] for name in names}
    if not chosen:
        raise StateError(
            f"of {folder.path}, the models that validation chose are damaged, and no round is left "
            "to choose from; start again with another --out"
        )
    moment = "finetuned" if settings.method.schedule.finetune_epochs else "merged"
    tested, cases, intervals = [], [], {}
    progress = told(play.report, "tested")
    progress(0, len(chosen))
    for number, done in enumerate(sites.test(notebook.best, chosen), start=1):
        progress(min(number, len(chosen)), len(chosen))  # a site held out comes on top
        for row, of_cases, of_scores in done:
            tested.append({"round": notebook.best, "moment": moment, "epoch": 0} | row)
            cases += of_cases
            intervals[str(row["site"])] = of_scores
    same = sites.leave_models(notebook.best, chosen)
    if cases:  # across a network, they stay at the sites
        folder.write_table("test_cases.csv", cases)
    asked = rounds_asked(play.names, settings)
    # Not noted in the notebook: if results.json is not reached, a resumed run cuts this off again.
    folder.append("scores.csv", tested)
    facts = {
        **sites.about_data(),
        "data": facts["data"],
        "protocol": facts["protocol"],
        "score": play.task.score,
        "metrics": list(play.task.metrics),
        "task": play.task.kind,
        "holdout": facts["holdout"],
        "intervals": intervals,
        "one_global_model": same,
        "chosen_round": notebook.best,
        "chosen_from": settings.method.schedule.first_choice,
        "validation": notebook.best_score,
        "images_with_gradient": notebook.gradients,
        "data_notes": facts["data_notes"],
        "versions": {name: version(name) for name in ("counterpoint", "torch", "numpy", "monai")}
        | {"python": platform.python_version()},
        "device": facts["device"],
    }
    if weights := folder.facts().get("weights"):
        name = os.path.basename(settings.method.schedule.weights)
        facts["weights"] = {"file": name, "sha256": weights}
    folder.write_results(summarise(folder.path, settings, asked, facts))
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


def deciding(rows: list[Row], settings: Settings, round: int) -> list[Row]:
    """Of rows of scores, those by which the models of ``round`` are chosen."""
    epochs = settings.method.schedule.finetune_epochs
    moment = ("finetuned", epochs) if epochs else ("merged", 0)
    return [
        row
        for row in rows
        if row["round"] == round
        and (row["moment"], row["epoch"]) == moment
        and row["model"] == settings.method.local.predicts
    ]


def mean_scores(rows: list[Row], settings: Settings, task: Task, round: int) -> tuple[float, float]:
    """Means over the sites of validation score and loss of the models of ``round``.

    They are scored just after the merge, or after the last epoch of fine-tuning. A score that no
    site has (no foreground, and none found) counts as 0: then the loss chooses.
    """
    chosen = deciding(rows, settings, round)
    values = np.array([[float(str(row[n])) for n in (task.score, "loss")] for row in chosen])
    defined = values[~np.isnan(values[:, 0]), 0]
    return float(defined.mean()) if len(defined) else 0.0, float(values[:, 1].mean())
