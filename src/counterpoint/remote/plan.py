"""What all parties of a run know before it starts; it travels with the job, and is no secret."""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from counterpoint.data.site import Form
from counterpoint.encryption import require_enough
from counterpoint.errors import SettingsError
from counterpoint.federation import sites_a_round
from counterpoint.first import new_predictor
from counterpoint.folder import fingerprint
from counterpoint.methods import Method, methods
from counterpoint.models import MODELS, find_model
from counterpoint.privacy import require_slices_apart
from counterpoint.settings import Settings, as_dict, flatten, from_dict, make_settings
from counterpoint.tasks import Task, make_task

COMES_WITH_MONAI = "monai.networks.nets"
SECRET = "secret"
RECORD = "audit.csv"
TAKEN = (SECRET, RECORD, "data.npz", "cache")
"""Names of what a site keeps beside the folders of its runs."""


@dataclass(frozen=True)
class Plan:
    """A run across sites.

    Attributes:
        name: of the run; sites and server keep its files in folders of this name.
        settings: as `run` saves them, without what is a site's own (paths of data).
        classes: in the order of the network's outputs.
        form: in which form files with many slices are used.
        sites: for each client of the engine, in the order of the sites, the site's name.
        facts: what is known of the data, for `results.json`.
        said: the settings as they came, where they came from elsewhere: a later version has more
            of them, and still is in the same run.
    """

    name: str
    settings: Settings
    classes: tuple[str, ...]
    form: Form
    sites: Mapping[str, str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    said: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what sites can't have in common."""
        if self.settings.method.schedule.weights:
            raise SettingsError(
                "across sites the first weights are drawn by the run's seed: a plan names no file, "
                "which every site would have to have; leave out --weights"
            )

    @cached_property
    def task(self) -> Task:
        """The task of the run."""
        schedule = self.settings.method.schedule
        return make_task(self.settings.data.task, self.classes, schedule.loss, schedule.balance)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image as the networks see it."""
        size = self.settings.method.schedule.image_size
        return (self.form.channels, *[size] * self.form.dimensions)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of settings, classes and form: who has another one has another run."""
        return fingerprint(
            {"settings": fingerprint(self.said or as_dict(self.settings))}
            | {"classes": self.classes, "form": asdict(self.form), "sites": dict(self.sites)}
        )

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain nested values."""
        return {
            "name": self.name,
            "settings": dict(self.said or as_dict(self.settings)),
            "classes": list(self.classes),
            "form": asdict(self.form),
            "sites": dict(self.sites),
            "facts": dict(self.facts),
        }

    def require_enough(self, min_sites: int) -> None:
        """Refuse to encrypt with so few sites that a sum could be of one alone; 0 stands for all.

        Raises:
            SettingsError: saying how many there must be.
        """
        schedule, sites = self.settings.method.schedule, len(self.sites)
        fewest = min(min_sites or sites, sites_a_round(sites, schedule.participation))
        if self.settings.encrypt:
            require_enough(fewest)

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        imports: tuple[str, ...] = (),
        method: Method | None = None,
    ) -> "Plan":
        """Read a plan that came from elsewhere.

        ``imports`` are the beginnings of names that may be imported for it, beside what comes with
        Counterpoint and the networks of MONAI: a plan may name code but never bring any.

        Raises:
            SettingsError: if it is none, or names code that may not be imported.
        """
        try:
            settings = values["settings"]
            if method is None:  # its module is imported by what follows
                _require_allowed(str(settings["method"]), set(methods()), imports)
            chosen = from_dict(settings, method)
            require_slices_apart(chosen.method, values["form"]["neighbours"])
            odd = dict(flatten(settings)).keys() - dict(flatten(as_dict(chosen))).keys()
            if odd:
                raise SettingsError(f"the plan of a run has no '{sorted(odd)[0]}'")
            if method is None:
                schedule = chosen.method.schedule
                _require_network(schedule.model, schedule.model_options, imports)
            form = dict(values["form"])
            window = form.pop("window")
            form["window"] = None if window is None else (float(window[0]), float(window[1]))
            return cls(
                name=plain_name(str(values["name"])),
                settings=chosen,
                classes=tuple(str(name) for name in values["classes"]),
                form=Form(**form),
                sites={plain_name(str(c)): str(site) for c, site in values["sites"].items()},
                facts=dict(values["facts"]),
                said=settings,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SettingsError(f"this is not the plan of a run: {error!r}") from error


def plan_without_data(
    name: str,
    method: str,
    data: str,
    sites: Sequence[str],
    classes: Sequence[str] | None,
    options: Mapping[str, Any],
) -> Plan:
    """The plan of a run whose data nobody has all of.

    Args:
        name: of the run.
        method: as for `counterpoint.run`.
        data: what the results call the data.
        sites: their names, which are those of the engine's clients as well.
        classes: their names, in the order of the network's outputs.
        options: settings by dotted name.

    Raises:
        SettingsError: if something is missing, or needs the data of all sites in one place.
    """
    if not classes or len(set(classes)) < max(2, len(classes)):
        raise SettingsError(
            "name the classes that all sites use, two or more, in order: --classes a,b,c"
        )
    if not sites or len(set(sites)) < len(sites):
        raise SettingsError(f"name the sites, each once (--sites {','.join(sites or ())})")
    chosen = make_settings(method, data, {"data.task": "classification", **options})
    if chosen.method.pooled or chosen.data.holdout or chosen.data.train_limit == "smallest":
        raise SettingsError(
            "pooled training, --holdout and --train-limit smallest need the data of all sites in "
            "one place; use `counterpoint run`"
        )
    if getattr(chosen.method.privacy, "seeded", False):
        raise SettingsError(
            "noise that follows from a seed which all parties know can be taken off again; across "
            "sites leave out --set privacy.seeded=true"
        )
    form = Form(chosen.data.volumes or "slices", bool(chosen.data.neighbours), chosen.data.window)
    facts: dict[str, Any] = {
        "data": data,
        "protocol": "of each site",
        "holdout": None,
        "data_notes": [],
    }
    names = {plain_name(site): site for site in sites}
    plan = Plan(plain_name(name), chosen, tuple(classes), form, names, facts)
    new_predictor(chosen.method, plan.task, plan.shape)  # fails here, if it does
    return plan


def _require_network(name: str, options: Mapping[str, Any], imports: tuple[str, ...]) -> None:
    module = name.partition(":")[0]
    if name.startswith(imports or ("\0",)):
        return
    if module == COMES_WITH_MONAI:  # one of its networks, and nothing that it imports itself
        fetches = inspect.signature(find_model(name)).parameters.get("pretrained")
        if fetches and fetches.default is True:
            options = {"pretrained": True, **options}
    else:
        _require_allowed(name, set(MODELS), imports)
    for option, value in options.items():
        _require_harmless(str(option), value)


def _require_harmless(option: str, value: Any) -> None:
    """Refuse an option of a network by which it could read a file or fetch something.

    >>> _require_harmless("norm", ["batch", {"affine": True}])
    >>> _require_harmless("pretrained", False)
    >>> _require_harmless("weights", "http://example.org/weights.pt")
    Traceback (most recent call last):
    counterpoint.errors.SettingsError: the run's model option 'weights' could have a site read a \
file or fetch something: leave it out or make it false, or, where the site trusts it, allow the \
network by `imports` in its settings file
    """
    if isinstance(value, list | tuple):
        for one in value:
            _require_harmless(option, one)
    elif isinstance(value, Mapping):
        for name, one in value.items():
            _require_harmless(f"{option}.{name}", one)
    elif value is True or isinstance(value, str):
        speaks_of_files = re.search("pretrained|download|url|path|file|cache", option, re.I)
        if speaks_of_files or not re.fullmatch(r"[\w-]*", str(value)):
            raise SettingsError(
                f"the run's model option '{option}' could have a site read a file or fetch "
                "something: leave it out or make it false, or, where the site trusts it, allow the "
                "network by `imports` in its settings file"
            )


def _require_allowed(name: str, known: set[str], imports: tuple[str, ...]) -> None:
    if name in known or name.startswith(imports or ("\0",)):
        return
    raise SettingsError(
        f"the run uses '{name}', which does not come with Counterpoint; where you trust it and "
        "have it installed, allow it by `imports` in the site's settings file"
    )


def plain_name(name: str) -> str:
    """A name that is safe as that of a folder, or SettingsError.

    >>> plain_name("prrfl-1")
    'prrfl-1'
    """
    if not name or name != name.strip(". ") or not all(c.isalnum() or c in "-_." for c in name):
        raise SettingsError(
            f"'{name}' can't be the name of a run or client: use letters, digits, -, _ and ."
        )
    if name.lower() in TAKEN:
        raise SettingsError(f"'{name}' can't be the name of a run: sites keep a file by it")
    return name
