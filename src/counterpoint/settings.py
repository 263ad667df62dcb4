"""The settings of a run: a method's defaults, overridden by a file, overridden by options.

Every setting has a dotted name such as ``schedule.rounds`` or ``local.exchange``; where the last
part says it all (``rounds``, ``exchange``) it is enough.
"""

import dataclasses
import math
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import field
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import ValidationError
from pydantic.dataclasses import dataclass

from counterpoint.aggregation import AGGREGATIONS
from counterpoint.encryption import require_fitting_encryption
from counterpoint.errors import SettingsError, nearest
from counterpoint.files import at_home
from counterpoint.harmonise import HARMONISERS
from counterpoint.local import LOCAL_UPDATES
from counterpoint.methods import Method, absolute, find_method
from counterpoint.privacy import PRIVACIES, require_fitting_privacy, require_slices_apart
from counterpoint.ranges import Count, Seed
from counterpoint.server_update import SERVER_UPDATES
from counterpoint.strict_yaml import UNREADABLE, read_yaml, what_is_wrong

Part = TypeVar("Part")

CHOICES: dict[str, Mapping[str, type[Any]]] = {
    "harmonise": HARMONISERS,
    "local": LOCAL_UPDATES,
    "aggregation": AGGREGATIONS,
    "server": SERVER_UPDATES,
    "privacy": PRIVACIES,
}
"""Parts of a method that are chosen by kind, and the kinds there are."""


@dataclass(frozen=True)
class Data:
    """Which data, and how they are split; see :func:`counterpoint.load`."""

    name: str
    root: str | None = None
    task: Literal["classification", "segmentation"] = "classification"
    protocol: str | None = None
    sites: tuple[str, ...] | None = None
    holdout: str | None = None
    classes: tuple[str, ...] | None = None
    train_limit: int | Literal["smallest"] | None = None
    split_seed: Seed | None = None
    """Seed of a split that is made; the run's where left open."""
    volumes: Literal["slices", "patches", "whole"] | None = None
    neighbours: bool | None = None
    window: tuple[float, float] | None = None
    skip_bad: bool = False


@dataclass(frozen=True)
class Machine:
    """Where it runs. Scores depend on ``device``, ``threads`` and ``compile`` by rounding only.

    ``threads`` are those of one worker, ``workers`` the sites that train side by side. Left open,
    they are set so that sites fill the cores, side by side where a short trial says that it pays,
    one after the other on all cores where one site has most of the images.
    ``compile`` compiles networks by torch.compile.
    """

    device: str = "auto"
    workers: Count | None = None
    threads: Count | None = None
    compile: bool = False


@dataclass(frozen=True)
class Settings:
    """Everything that a run depends on, as it is saved in ``settings.yaml``."""

    method: Method
    data: Data
    machine: Machine = field(default_factory=Machine)
    seed: Seed = 1
    encrypt: bool = False
    """Whether payloads are encrypted, so that the server adds what it can't read."""
    source: str = ""
    """Name or import path by which the method is found again."""


def make_settings(method: str | Method, data: str, overrides: Mapping[str, Any]) -> Settings:
    """Make the settings of a run.

    Args:
        method: a method, its name or its import path.
        data: name of a data set, or path of a table or folder.
        overrides: values by dotted or short name; nested mappings as in a file are fine.

    Raises:
        SettingsError: naming the setting that is unknown, out of range, or does not fit another.

    >>> settings = make_settings("prrfl", "phantom", {"rounds": 3, "phase": "mean"})
    >>> settings.method.schedule.rounds, settings.method.aggregation.phase
    (3, 'mean')
    """
    source = absolute(method) if isinstance(method, str) else method.name
    found = find_method(method) if isinstance(method, str) else method
    flat = full_names(overrides)
    if flat.get("data.task") == "segmentation":
        local = found.segmentation_local or found.local
        found = dataclasses.replace(found, schedule=found.segmentation, local=local)
    parts = {name: _choose(name, getattr(found, name), flat) for name in CHOICES}
    settings = Settings(
        method=dataclasses.replace(found, **parts), data=Data(name=data), source=source
    )
    known = dict(flatten(as_dict(settings)))
    for name in ("method", "data.name", *(f"{part}.kind" for part in CHOICES)):
        known.pop(name, None)
    changes: dict[str, dict[str, Any]] = {}
    for name, value in flat.items():
        section, _, field = resolve(name, list(known)).rpartition(".")
        changes.setdefault(section, {})[field] = value
    settings = in_full(_apply(settings, changes))
    require_fitting_parts(settings.method)
    require_fitting_privacy(settings.method)
    if settings.encrypt:
        require_fitting_encryption(settings.method)
    require_slices_apart(settings.method, settings.data.neighbours)
    if settings.method.privacy.kind == "records" and settings.machine.compile:
        raise SettingsError(
            "Opacus can't watch a compiled network; with privacy 'records' leave out "
            "--set compile=true"
        )
    return settings


def in_full(settings: Settings) -> Settings:
    """Settings with the path of the first weights in full, to be found from any folder."""
    method = settings.method
    if not method.schedule.weights:
        return settings
    place = str(at_home(Path(method.schedule.weights)).absolute())
    schedule = dataclasses.replace(method.schedule, weights=place)
    return dataclasses.replace(settings, method=dataclasses.replace(method, schedule=schedule))


def require_fitting_parts(method: Method) -> None:
    """Refuse parts that run together but do not mean anything together.

    Raises:
        SettingsError: naming both parts, and options that fit.
    """
    local, sends, server = method.local.kind, method.aggregation.kind, method.server.kind
    if server != "mean" and sends in ("pfa", "none"):
        raise SettingsError(
            f"server '{server}' moves whole weights, which aggregation '{sends}' does not send; "
            "use --server mean, or --aggregation all, except-normalisation, backbone or head"
        )
    for one, other, names in (
        (sends, server, ("aggregation", "normalised", "server", "normalised")),
        (local, server, ("local", "control-variates", "server", "control")),
    ):
        part, kind, partner, its_kind = names
        if (one == kind) != (other == its_kind):
            raise SettingsError(
                f"{part} '{kind}' and {partner} '{its_kind}' go only together, not {part} '{one}' "
                f"with {partner} '{other}'; use --{part} {kind} --{partner} {its_kind}, or neither"
            )
    schedule = method.schedule
    if local == "control-variates" and sends != "all":
        raise SettingsError(
            "local 'control-variates' corrects every weight towards the federation's direction, "
            f"and with aggregation '{sends}' some stay at their site; use --aggregation all"
        )
    weighs_anew = schedule.weighting == "images" and schedule.participation < 1
    if local == "control-variates" and (schedule.weighting == "closeness" or weighs_anew):
        raise SettingsError(
            "local 'control-variates' needs the same weight for a site in every round, or the "
            f"common control is no mean of the sites'; weighting '{schedule.weighting}' gives "
            "others: use --set weighting=equal" + (", or --participation 1" if weighs_anew else "")
        )
    counts_steps = local == "control-variates" or sends == "normalised"
    momentum = schedule.momentum if schedule.optimizer == "sgd" else 0
    if counts_steps and momentum and schedule.keep_optimizer:
        raise SettingsError(
            f"method '{method.name}' takes a site's way for a sum of this round's gradients, and "
            "with --set keep_optimizer=true those of earlier rounds are in its momentum; use "
            "--set keep_optimizer=false or --set momentum=0"
        )
    if local == "prototype-deputy" and schedule.loss != "default":
        raise SettingsError(
            f"local 'prototype-deputy' has a loss of its own, in whose place loss "
            f"'{schedule.loss}' can't be; leave out --loss, or use --local deputy"
        )
    if local == "prototype-deputy" and schedule.weighting != "equal":
        raise SettingsError(
            "local 'prototype-deputy' counts the images of each class over all sites by their "
            "mean, where sites must weigh the same; use --set weighting=equal"
        )
    if local == "control-variates" and method.schedule.optimizer != "sgd":
        raise SettingsError(
            "local 'control-variates' takes a site's way for a sum of gradients, which it is not "
            f"with optimizer '{method.schedule.optimizer}'; use --optimizer sgd"
        )


def _apply(settings: Settings, changes: Mapping[str, Mapping[str, Any]]) -> Settings:
    top = dict(changes.get("", {}))
    method = settings.method
    parts: dict[str, Any] = {
        section: changed(getattr(method, section), section, changes[section])
        for section in ("schedule", *CHOICES)
        if section in changes
    }
    parts |= {
        k: top.pop(k) for k in ("perturbation", "adaptive", "statistics", "pooled") if k in top
    }
    return changed(
        settings,
        "",
        top
        | {"method": changed(method, "", parts)}
        | {s: changed(getattr(settings, s), s, changes.get(s, {})) for s in ("data", "machine")},
    )


_PLAINLY = {
    "tuple_type": "a list is needed, [a, b]",
    "missing": "there are too few values",
    "int_parsing": "a whole number is needed",
    "float_parsing": "a number is needed",
}
"""What pydantic says in words of its own, by its name for it."""


def changed(part: Part, section: str, values: Mapping[str, Any]) -> Part:
    """Return ``part`` with other values, checked."""
    for name, value in values.items():
        if isinstance(value, bool) and type(getattr(part, name, None)) in (int, float):
            raise SettingsError(
                f"setting {f'{section}.{name}'.lstrip('.')}: a number is needed (got {value!r})"
            )
    try:
        return dataclasses.replace(part, **values)  # type: ignore[type-var]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(place) for place in (section, *first["loc"][:1]) if place != "")
        what = _PLAINLY.get(first["type"], first["msg"]).removeprefix("Value error, ")
        if first["type"] == "string_type" and isinstance(first["input"], bool):
            what = "a text is needed (in YAML put yes, no, on and off in quotes)"
        if isinstance(first["input"], float) and math.isnan(first["input"]):
            what = "NaN is no number"
        got = f" (got {first['input']!r})" if first["loc"] else ""
        raise SettingsError(f"setting {where}: {what}{got}".replace("setting :", "")) from None


def _choose(name: str, present: Any, flat: dict[str, Any]) -> Any:
    """Take a choice's kind out of the overrides and return the part of that kind."""
    kind = flat.pop(f"{name}.kind", present.kind)
    if kind == present.kind:
        return present
    kinds = CHOICES[name]
    if not isinstance(kind, str) or kind not in kinds:
        hint = nearest(str(kind), list(kinds))
        raise SettingsError(f"unknown {name} '{kind}'{hint}; known are {', '.join(kinds)}")
    return kinds[kind]()


def resolve(name: str, known: list[str]) -> str:
    """Return the full name of a setting that may be given by its last part.

    >>> resolve("rounds", ["schedule.rounds", "seed"])
    'schedule.rounds'
    """
    if name in known:
        return name
    fits = [full for full in known if full.endswith(f".{name}")]
    trained = f"schedule.{name}"  # lr and momentum are the sites', unless written in full
    if len(fits) == 1 or trained in fits:
        return trained if trained in fits else fits[0]
    if fits:
        raise SettingsError(f"setting '{name}' could be {' or '.join(fits)}: write it in full")
    short = [full.rpartition(".")[2] for full in known]
    elsewhere = [
        f"{part} '{kind}'"
        for part, kinds in CHOICES.items()
        for kind, of in kinds.items()
        if name.removeprefix(f"{part}.") in {field.name for field in dataclasses.fields(of)}
    ]
    hint = nearest(name, known + short)
    if elsewhere:
        hint = f" (it belongs to {' or '.join(elsewhere)}, and there is none here)"
    raise SettingsError(
        f"unknown setting '{name}'{hint}; `counterpoint methods METHOD` lists those of a method"
    )


@cache
def always_there() -> tuple[str, ...]:
    """Full names of the settings that all methods have: no part's own, but its kind."""
    plain = (name for name, _ in flatten(as_dict(Settings(Method("", "", ""), Data("")))))
    return tuple(
        name
        for name in plain
        if name not in ("method", "data.name")
        and (name.partition(".")[0] not in CHOICES or name.endswith(".kind"))
    )


def full_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their full names, so that those of two sources can be laid over each other.

    Names of what only some kinds of parts have are left as they are: which part is meant is known
    when all is laid together.

    Raises:
        SettingsError: for one that comes twice.

    >>> full_names({"lr": 0.1, "local": "ditto", "data": {"sites": ["A", "B"]}})
    {'schedule.lr': 0.1, 'local.kind': 'ditto', 'data.sites': ['A', 'B']}
    """
    found: dict[str, Any] = {}
    said: dict[str, str] = {}
    for name, value in flatten(values):
        full = f"{name}.kind" if name in CHOICES else name
        with suppress(SettingsError):
            full = resolve(full, list(always_there()))
        if full in found:
            raise SettingsError(f"'{said[full]}' and '{name}' are one setting; give it once")
        found[full], said[full] = value, name
    return found


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted names; ``model_options`` stays a mapping.

    >>> list(flatten({"schedule": {"rounds": 2}, "schedule.model_options": {"at": 3}}))
    [('schedule.rounds', 2), ('schedule.model_options', {'at': 3})]
    """
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name.rpartition(".")[2] != "model_options":
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def as_dict(settings: Settings) -> dict[str, Any]:
    """Settings as plain nested values, in the order in which they are saved."""
    method = settings.method
    plain: dict[str, Any] = {
        "method": settings.source or method.name,
        "seed": settings.seed,
        "encrypt": settings.encrypt,
        "data": dataclasses.asdict(settings.data),
    }
    for name in CHOICES:
        part = getattr(method, name)
        plain[name] = {"kind": part.kind} | dataclasses.asdict(part)
    plain |= {
        "perturbation": method.perturbation,
        "adaptive": method.adaptive,
        "statistics": method.statistics,
        "pooled": method.pooled,
        "schedule": dataclasses.asdict(method.schedule),
        "machine": dataclasses.asdict(settings.machine),
    }
    for name in ("sites", "classes", "window"):
        if plain["data"][name] is not None:
            plain["data"][name] = list(plain["data"][name])
    return plain


def to_yaml(settings: Settings) -> str:
    """Settings as the text of ``settings.yaml``."""
    return yaml.safe_dump(as_dict(settings), sort_keys=False, allow_unicode=True)


def read_file(path: Path) -> dict[str, Any]:
    """Read settings from a YAML or TOML file, as nested values.

    Raises:
        SettingsError: if the file can't be read or holds something else.
    """
    try:
        toml = path.suffix == ".toml"
        values = tomllib.loads(path.read_text(encoding="utf-8")) if toml else read_yaml(path)
    except (*UNREADABLE, tomllib.TOMLDecodeError) as error:
        raise SettingsError(
            f"settings file {path} can't be read: {what_is_wrong(error)}; correct it there"
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"settings file {path}: expected names and values")
    return values


def from_dict(values: Mapping[str, Any], method: Method | None = None) -> Settings:
    """Settings from nested values as :func:`as_dict` gives them."""
    rest = dict(values)
    try:
        name = rest.pop("method")
        data = dict(rest.pop("data"))
        data_name = data.pop("name")
    except (KeyError, TypeError) as error:
        raise SettingsError(f"settings lack {error}") from error
    return make_settings(method or name, data_name, rest | {"data": data})
