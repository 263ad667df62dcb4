"""What a command's options set, over the settings of a file."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from counterpoint.cli.common import fail, note, parsed, words

NOT_SETTINGS = {"method", "data", "to", "log"}
"""Parameters of `run` that set nothing; what no parameter sets goes by --set."""


def require_fitting_file(config: Path, method: str, data: str, options: dict[str, Any]) -> None:
    """Where the settings are wrong, and would be by the file alone, say that it is the file."""
    from counterpoint.errors import SettingsError
    from counterpoint.settings import make_settings

    try:
        make_settings(method, data, options)
    except SettingsError as error:
        alone = settings_from(root=None, config=config, assignments=None)
        try:
            make_settings(method, data, alone)
        except SettingsError as same:
            if str(same) == str(error):
                raise SettingsError(f"settings file {config}: {error}") from None
        raise


def note_other_method(config: Path, method: str) -> None:
    """Say that a file's composition is used under the name of another method."""
    from counterpoint.settings import CHOICES, read_file

    found = read_file(config)
    if found.get("method", method) != method and found.keys() & {*CHOICES, "statistics"}:
        note(
            f"the composition in {config} is that of '{found['method']}', and is used under the "
            f"name of '{method}'; leave its parts out of the file to use the method's own"
        )


def usual_folder(method: str, data: str, options: dict[str, Any]) -> Path:
    """The folder of a run that is given none."""
    short = Path(data).stem if Path(data).exists() else data
    name = Path(method.partition(":")[0]).stem
    return Path("runs") / f"{name}-{short}-{options.get('seed', 1)}"


def data_and_schedule(config: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What a command of many methods takes of a file: its data and schedule; says what it leaves.

    Raises:
        SettingsError: for a name that is no setting's, and for privacy, which would be lost; with
            the file's name.
    """
    from counterpoint.errors import SettingsError
    from counterpoint.settings import CHOICES, always_there, full_names, read_file, resolve

    found = read_file(config)
    parts = {f.name for kinds in CHOICES.values() for k in kinds.values() for f in fields(k)}
    try:
        from_file = full_names(found)
        for name in from_file.keys() - {"method", "data.name"}:
            if name.partition(".")[0] not in {*CHOICES, *parts}:
                resolve(name, list(always_there()))  # refuses what is none
    except SettingsError as error:
        raise SettingsError(f"settings file {config}: {error}") from None
    for name, usual in (("privacy.kind", "none"), ("encrypt", False)):
        if from_file.get(name, usual) != usual and name not in options:
            raise SettingsError(
                f"{config}: of a file, only data and training are taken here, so {name} would be "
                f"lost; give it as an option (--{name.partition('.')[0]}), or take it out"
            )
    sections = dict.fromkeys(name.partition(".")[0] for name in from_file)
    taken = ("method", "data", "schedule", "privacy", "encrypt")
    left = [section for section in sections if section not in taken]
    if left:
        note(f"of {config}, {', '.join(left)} are not taken: every method has its own")
    kept = {n: v for n, v in from_file.items() if n.startswith(("data.", "schedule."))}
    return {n: v for n, v in kept.items() if n not in ("data.name", "data.split_seed")}


def settings_from(
    root: Path | None, config: Path | None, assignments: list[str] | None, **given: Any
) -> dict[str, Any]:
    """Settings out of the options of a command, over those of a file; other options are passed."""
    from counterpoint.errors import SettingsError
    from counterpoint.settings import CHOICES, full_names, read_file

    options = full_names(
        {n: value for n, value in given.items() if value is not None and n not in NOT_SETTINGS}
    )
    for name in ("data.train_limit", "schedule.model_options"):
        if name in options:
            options[name] = parsed(options[name], name)
    for name in ("data.sites", "data.classes"):
        if name in options:
            options[name] = words(options[name])
    if "data.window" in options:
        options["data.window"] = parsed(f"[{options['data.window']}]", "--window")
    if root is not None:
        options["data.root"] = str(root)
    for assignment in assignments or []:
        name, equals, value = assignment.partition("=")
        if not equals:
            fail(f"--set {assignment}: write it as NAME=VALUE", 2)
        for full, given_value in full_names({name.strip(): parsed(value, f"--set {name}")}).items():
            if full in options:
                raise SettingsError(f"--set {assignment}: {full} is given twice; give it once")
            options[full] = given_value
    from_file = full_names(read_file(config)) if config else {}
    for name in ("method", "data.name"):
        from_file.pop(name, None)
    for part in CHOICES:
        kind = options.get(f"{part}.kind", from_file.get(f"{part}.kind"))
        if kind != from_file.get(f"{part}.kind"):  # then the file's values are of another kind
            from_file = {n: v for n, v in from_file.items() if not n.startswith(f"{part}.")}
    return from_file | options
