"""The loop of a federation, readable from top to bottom."""

import dataclasses
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import counterpoint.data as data_readers
from counterpoint.client import Client, Local, Row, Visit
from counterpoint.crew import Crew, Event, Report, choose_device, gather, share_cores
from counterpoint.data.site import Federation, SiteData
from counterpoint.errors import PayloadError, StateError
from counterpoint.files import read_tensors, write_tensors
from counterpoint.folder import Notebook, RunFolder
from counterpoint.methods import Method
from counterpoint.payload import Payload
from counterpoint.results import Result, summarise, write_models
from counterpoint.server import WeightedMean
from counterpoint.settings import Settings, make_settings
from counterpoint.tasks import Classification


def ignore(event: Event) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Job:
    """One site's work in one round, as it is handed to whoever does it."""

    local: Local
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


def run(
    method: str | Method,
    data: str | Federation,
    *,
    out: str | Path,
    report: Report = ignore,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Result:
    """Train a federation and leave everything in the folder ``out``.

    Args:
        method: a method's name, an import path ``my_method.py:METHOD``, or a Method.
        data: name of a data set, path of your own table or folder, or what `counterpoint.load`
            gave.
        out: a folder that does not exist yet.
        report: is told of every score as it comes (see the command line's live display).
        settings: settings by name, as in a file.
        **options: the same by keyword; short names do: ``rounds=5, lr=0.1, local="deputy"``.

    Returns:
        The result: scores, settings, and the models to load.

    Raises:
        CounterpointError: if data, settings, training or the folder fail; the text says where.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> result = run("fedavg", "phantom", out=folder, rounds=1, local_epochs=1, image_size=32,
    ...              train_limit=16, workers=1)
    >>> sorted(result.table.columns)
    ['accuracy', 'auc', 'loss', 'macro_f1']
    """
    name = data if isinstance(data, str) else data.name
    chosen = make_settings(method, name, {**(settings or {}), **options})
    federation = data if isinstance(data, Federation) else read_data(chosen)
    workers, threads = share_cores(
        1 if chosen.method.pooled else len(federation.sites),
        chosen.machine.workers,
        chosen.machine.threads,
    )
    chosen = _with_machine(chosen, workers, threads)
    federation, sites = data_readers.decode(
        federation,
        chosen.method.schedule.image_size,
        skip_bad=chosen.data.skip_bad,
        progress=lambda done, total: report({"decoded": done, "of": total}),
    )
    facts = {"fingerprint": federation.fingerprint, "notes": list(federation.notes)}
    folder = RunFolder.create(Path(out), chosen, facts)
    return _go_on(folder, chosen, federation, sites, report)


def resume(
    out: str | Path,
    *,
    data: Federation | None = None,
    method: Method | None = None,
    workers: int | None = None,
    report: Report = ignore,
) -> Result:
    """Go on with a run that was stopped; the end is bit for bit that of a run never stopped.

    ``data`` and ``method`` are needed only where the run was given objects and not names.
    ``workers`` may be another number than before.

    Raises:
        StateError: if the folder is not a run's, its data changed, or all saved rounds are
            damaged.
    """
    folder = RunFolder.open(Path(out))
    chosen = folder.settings(method)
    if folder.finished:
        return Result(folder.path)
    if workers is not None:
        chosen = _with_machine(chosen, workers, chosen.machine.threads or 1)
    federation, sites = data_readers.decode(
        data or read_data(chosen),
        chosen.method.schedule.image_size,
        skip_bad=chosen.data.skip_bad,
        progress=lambda done, total: report({"decoded": done, "of": total}),
    )
    if folder.facts().get("fingerprint") != federation.fingerprint:
        raise StateError(
            f"the data are not those that {folder.path} was started on (images, labels or splits "
            "changed); a run goes on with the same data only"
        )
    return _go_on(folder, chosen, federation, sites, report)


def read_data(settings: Settings) -> Federation:
    """Load the data that the settings name."""
    data = settings.data
    return data_readers.load(
        data.name,
        data.root,
        protocol=data.protocol,
        seed=settings.seed,
        sites=list(data.sites) if data.sites else None,
        train_limit=data.train_limit,
        skip_bad=data.skip_bad,
    )


def _go_on(
    folder: RunFolder,
    settings: Settings,
    federation: Federation,
    sites: list[SiteData],
    report: Report,
) -> Result:
    """Train the rounds that are missing, choose, test once, and write the results."""
    task = Classification(federation.classes)
    locals_ = [Local(site.name, (site,)) for site in sites]
    if settings.method.pooled:
        locals_ = [Local("pooled", tuple(sites))]
    workers = min(settings.machine.workers or 1, len(locals_))
    threads = settings.machine.threads or 1
    with folder.lock():
        notebook, damaged = folder.latest()
        for sentence in damaged:
            report({"warning": sentence})
        report({"rounds": settings.method.schedule.rounds, "from": notebook.round})
        with gather(settings, task, workers, threads, report) as crew:
            while notebook.round <= settings.method.schedule.rounds:
                notebook = play_round(folder, settings, notebook, locals_, crew, report)
            return finish(folder, settings, federation, task, notebook, locals_, crew)


def play_round(
    folder: RunFolder,
    settings: Settings,
    before: Notebook,
    locals_: list[Local],
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
            local,
            round,
            folder.state,
            _noted(before, before.states.get(local.name)),
            _noted(before, before.mean),
            eligible,
        )
        for local in locals_
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
            raise PayloadError(
                f"round {round}: {error}. Nothing of this round was kept"
            ) from error
        scores += visit.rows
        sent += describe(visit.payload, round, visit.site, "up")
        after.gradients += visit.gradients
        after.states[visit.site] = done.files["state"]
        candidates[visit.site] = done.files.get("candidate", "")
        sums |= done.sums

    down = mean.result()
    sent += [row for local in locals_ for row in describe(down, round, local.name, "down")]
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
    for event in client.visit(job.local, state, mean, job.round):
        if isinstance(event, Visit):
            visit = event
        else:
            report(event)
    kept = {"state": visit.state}
    if job.keep_candidate:
        kept["candidate"] = visit.candidate
    name = f"{quote(job.local.name, safe=' ')}-{job.round:05d}"
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
    locals_: list[Local],
    crew: Crew[Any],
) -> Result:
    """Score the test images once, with the models that validation chose, and write the results."""
    chosen = {local.name: folder.state / notebook.candidates[local.name] for local in locals_}
    jobs = [(local, chosen[local.name]) for local in locals_]
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
        "data": folder.facts(),
        "versions": {name: version(name) for name in ("counterpoint", "torch", "numpy", "monai")}
        | {"python": platform.python_version()},
        "device": str(choose_device(settings.machine.device)),
    }
    folder.write_results(summarise(folder.path, settings, federation, facts))
    return Result(folder.path)


def test(client: Client, job: tuple[Local, Path], report: Report) -> list[Row]:
    """Score a site's test images with the model in a file."""
    local, path = job
    return client.test(local, read_tensors(path))


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


def _with_machine(settings: Settings, workers: int, threads: int) -> Settings:
    machine = dataclasses.replace(settings.machine, workers=workers, threads=threads)
    return dataclasses.replace(settings, machine=machine)
