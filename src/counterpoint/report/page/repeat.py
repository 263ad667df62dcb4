"""How it was made and how to make it again: settings, versions, data, commands."""

import shlex
from copy import deepcopy

import yaml

from counterpoint.report.page.blocks import Block, Cell, Code, Details, Items, Section, Table, Text
from counterpoint.report.page.runs import Arm, Run, Study
from counterpoint.report.page.words import without_names


def repeat(study: Study) -> Section:
    """Settings, versions, fingerprints, notes, commands."""
    blocks: list[Block] = []
    if len(study.arms) > 1:
        blocks += _differing(study)
    versions = {_versions(run) for run in study.runs}
    if len(versions) == 1:
        blocks.append(Text(f"All runs were made with {versions.pop()}."))
    blocks.append(_runs(study))
    notes = [without_names(note) for note in study.values["data_notes"]]
    if notes:
        blocks.append(Details(f"Notes on the data ({study.arms[0].label})", [Items(notes)]))
    blocks.append(
        Text(
            "To repeat a run, save its settings as settings.yaml, put the folder of your images "
            "where they say, and give the command. The same data, versions and settings give the "
            "same numbers; the fingerprint tells whether the data are the same."
        )
    )
    blocks += [_again(arm) for arm in study.arms]
    return Section("repeat", "How to repeat it", blocks)


def _differing(study: Study) -> list[Block]:
    """The settings in which the arms differ."""
    settings = {arm.label: arm.first.settings for arm in study.arms}
    names = list(dict.fromkeys(name for values in settings.values() for name in values))
    skipped = ("seed", "data.split_seed", "method")
    odd = [
        name
        for name in names
        if name not in skipped
        and not name.startswith("machine.")
        and len({str(values.get(name)) for values in settings.values()}) > 1
    ]
    rows: list[list[str | Cell]] = [
        [name, *(_shown(values.get(name, "-")) for values in settings.values())] for name in odd
    ]
    table = Table("Settings in which the methods differ", ["Setting", *settings], rows)
    return [Details(f"Settings in which the methods differ ({len(odd)})", [table])]


def _shown(value: object) -> str:
    return "-" if value is None else str(value)


def _runs(study: Study) -> Table:
    head = ["Run", "Seed", "Chosen round", "Batch norm", "Split", "Data fingerprint"]
    several = len({_versions(run) for run in study.runs}) > 1
    head += ["Versions"] if several else []
    rows: list[list[str | Cell]] = []
    for arm in study.arms:
        for run in arm.runs:
            values = run.values
            rows.append(
                [
                    arm.label,
                    str(run.seed),
                    f"{values['chosen_round']} of {values['rounds']}",
                    str(values["statistics"]),
                    str(values["protocol"]),
                    str(values["data_fingerprint"])[:12],
                    *([_versions(run)] if several else []),
                ]
            )
    return Table("The runs", head, rows, wide=several)


def _versions(run: Run) -> str:
    versions = [f"{name} {number}" for name, number in run.values["versions"].items()]
    return f"{', '.join(versions)} on {run.values['device']}"


def _again(arm: Arm) -> Details:
    run = arm.first
    extra = [f"--seed {run.seed} --set split_seed={_split_seed(run)}" for run in arm.runs[1:]]
    commands = [command(run), *(f"{command(run)} {words}" for words in extra)]
    blocks: list[Block] = [
        Code(
            "\n".join(f"{c} --out RUN-{n}" for n, c in enumerate(commands, start=1)),
            name=f"Commands of {arm.label}",
        )
    ]
    blocks.append(Code(settings_text(run), name=f"Settings of {arm.label}"))
    return Details(f"Commands and settings of {arm.label}", blocks)


def command(run: Run) -> str:
    """The command that starts a run again from its settings file."""
    words = [str(run.settings["method"]), str(run.settings["data.name"])]
    said = " ".join(shlex.quote(without_names(word)) for word in words)
    return f"counterpoint run {said} --config settings.yaml"


def _split_seed(run: Run) -> object:
    chosen = run.settings.get("data.split_seed")
    return run.seed if chosen is None else chosen


def settings_text(run: Run) -> str:
    """The content of ``settings.yaml``, with no folder of the machine that it was run on."""
    values = deepcopy(run.result.settings)
    data = values["data"]
    values["method"] = without_names(str(values["method"]))  # of a file: my_method.py:METHOD
    data["name"] = without_names(str(data["name"]))
    if data.get("root"):
        data["root"] = "FOLDER-OF-THE-IMAGES"
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
