"""What is compared: a method, with settings of its own."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from counterpoint.errors import SettingsError
from counterpoint.methods import absolute, find_method
from counterpoint.settings import full_names

_ENTRY = re.compile(r"(?P<method>.+?)(:(?P<settings>[\w.]+\s*=.*))?", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        method: a method's name or import path.
        settings: its own settings, by name; they win over those that all entries share.
        name: what the table calls it; made from both where left out.

    >>> Entry("fedavg", {"statistics": "recalibrated"}).label
    'fedavg:statistics=recalibrated'
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def label(self) -> str:
        """The name by which tables and options call the entry."""
        if self.name:
            return self.name
        own = ",".join(f"{name}={written(value)}" for name, value in self.settings.items())
        return f"{short_name(self.method)}:{own}" if own else short_name(self.method)


def short_name(method: str) -> str:
    """A method's name; that of a file's method is what the method calls itself."""
    return find_method(method).name if ":" in method else method


def written(value: object) -> str:
    """A value as one would type it.

    >>> written(0.05), written(True), written(["A", "B"])
    ('0.05', 'true', '[A, B]')
    """
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def parse_entry(text: str) -> Entry:
    """Read ``METHOD`` or ``METHOD:NAME=VALUE,NAME=VALUE``; values are read as YAML reads them.

    Raises:
        SettingsError: if a part is no NAME=VALUE, or there is no such method.

    >>> entry = parse_entry("harmofl:perturbation=0,model_options={growth: 8, depth: 2}")
    >>> entry.method, entry.settings["model_options"]
    ('harmofl', {'growth': 8, 'depth': 2})
    """
    found = _ENTRY.fullmatch(text.strip())
    if found is None:
        raise SettingsError("an entry is empty; write METHOD or METHOD:NAME=VALUE")
    method = absolute(found["method"])
    find_method(method)
    own = re.split(r",(?=\s*[\w.]+\s*=)", found["settings"] or "")
    settings: dict[str, Any] = {}
    for part in filter(None, own):
        name, _, value = part.partition("=")
        if name.strip() in settings:
            raise SettingsError(f"entry '{text}': {name.strip()} is given twice; give it once")
        settings[name.strip()] = _value(value, f"entry '{text}'")
    return Entry(method, settings)


def parse_vary(text: str) -> tuple[str, list[Any]]:
    """Read ``NAME=VALUE,VALUE,...``.

    >>> parse_vary("perturbation=0,0.05")
    ('perturbation', [0, 0.05])
    """
    name, equals, values = text.partition("=")
    if not equals or not name.strip() or not values.strip():
        raise SettingsError(f"--vary {text}: write it as NAME=VALUE,VALUE,...")
    return name.strip(), list(_value(f"[{values}]", f"--vary {text}"))


def varied(entries: Sequence[Entry], grid: Mapping[str, Sequence[Any]]) -> list[Entry]:
    """Every entry with every combination of the grid's values.

    Raises:
        SettingsError: if an entry has a value of its own for what is varied.

    >>> grid = {"lr": [0.1, 0.2], "momentum": [0, 0.9]}
    >>> [entry.label for entry in varied([Entry("fedavg")], grid)][:2]
    ['fedavg:lr=0.1,momentum=0', 'fedavg:lr=0.1,momentum=0.9']
    """
    for entry in entries:
        if both := full_names(entry.settings).keys() & full_names(grid).keys():
            raise SettingsError(
                f"entry '{entry.label}': {', '.join(sorted(both))} is varied for all entries; take "
                "it out of the entry, or give entries for its values in place of --vary"
            )
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return [
        replace(entry, settings={**entry.settings, **point})
        for entry in entries
        for point in points
    ]


def folder_name(label: str, taken: Sequence[str]) -> str:
    """A name for an entry's folders: readable, safe on every disk, and not one of ``taken``.

    >>> folder_name("fedavg:statistics=recalibrated", [])
    'fedavg-statistics-recalibrated'
    >>> folder_name("FedAvg", ["fedavg"])
    'FedAvg-2'
    """
    stem = re.sub(r"[^\w.-]+", "-", label, flags=re.ASCII).strip("-.")[:80] or "entry"
    known = {name.lower() for name in taken}
    numbered = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(name for name in numbered if name.lower() not in known)


def _value(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{where}: can't read {text.strip()!r}") from error
