"""A site's own settings: where its data are and what may leave. This file never leaves the site."""

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from counterpoint.cores import physical_cores
from counterpoint.crew import Report
from counterpoint.data.site import SiteData
from counterpoint.errors import SettingsError
from counterpoint.files import write_bytes, write_text
from counterpoint.processor import settle
from counterpoint.remote.desk import Desk, make_private
from counterpoint.remote.plan import Plan
from counterpoint.remote.policy import Policy
from counterpoint.strict_yaml import UNREADABLE, read_yaml, what_does_not_fit, what_is_wrong

EXAMPLE = """\
# Settings of {site}, which stay at {site}: nothing sends this folder anywhere.
# Paths that are not said in full begin at the folder that holds this one.

# Your data: a table or folder as `counterpoint inspect` reads it, or the name of a data set.
data: {data}
{root}
# What the site keeps (models, state between rounds, record): private, and worth a backup.
storage: counterpoint
# Where decoded images are kept, made again when needed: in storage, if not said.
# cache: /scratch/counterpoint

# How your images are split, if the table does not say: given, grouped, published.
# protocol: grouped

{key}# device: cuda
# threads: 4                     # as many as there are cores, if not said here or by the run

# What may leave, whatever the server asks; remove the marks to use it.
# policy:
#   forbid_names: ["head.*"]     # tensors that never leave; * stands for anything
#   max_bytes: 200000000         # of tensors in one message
#   max_rounds: 100              # of one run
#   share_model: false           # not even a model that all sites have
#   encrypted: true              # payloads leave encrypted or not at all
#   privacy: records             # only runs with this kind of noise, payload or records,
#   min_noise: 1.0               # and with so much of it,
#   max_epsilon: 8               # and of which epsilon, at delta 1e-5, is no more in the end
"""

KEY = """\
# The encryption key that all sites share. The server must never have it.
key: {key}

"""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SiteFile:
    """What a site's settings file says.

    Attributes:
        storage: folder for what the site keeps: states, models, record.
        cache: folder for decoded images, which are made again when needed; in ``storage`` where
            left out.
        data: your table or folder, or the name of a data set.
        root: folder of a named data set.
        decoded: instead of ``data``, a file of `write_decoded`.
        protocol: how the data are split, as for `run`.
        seed: of a split that is made; the run's where left out.
        train_limit: most training images.
        skip_bad: leave unreadable images out.
        device: to compute on; the run's where left out.
        threads: of PyTorch; the run's where left out, and if it says none, one a core.
        key: file with the encryption key of all sites, for runs that encrypt.
        secret: file with what marks of the data are made with; in ``storage`` where left out.
        imports: beginnings of names (``my_package.``) that a run may import here.
        policy: what may leave.
    """

    storage: Path
    cache: Path | None = None
    data: str | None = None
    root: str | None = None
    decoded: Path | None = None
    protocol: str | None = None
    seed: int | None = None
    train_limit: int | None = None
    skip_bad: bool = False
    device: str | None = None
    threads: int | None = None
    key: Path | None = None
    secret: Path | None = None
    imports: tuple[str, ...] = ()
    policy: Policy = field(default_factory=Policy)

    def threads_for(self, plan: Plan) -> int:
        """Threads that a run may use here."""
        return self.threads or plan.settings.machine.threads or physical_cores()

    def private_cache(self) -> Path:
        """Folder for decoded images, made for its owner alone."""
        make_private(self.storage)
        folder = self.cache or self.storage / "cache"
        make_private(folder)
        return folder

    def bring(self, plan: Plan, site: str) -> tuple[SiteData, str]:
        """Read and decode the site's data; gives them and their fingerprint."""
        if self.decoded:
            return read_decoded(self.decoded)
        from counterpoint.remote.site_data import own_data

        return own_data(self, plan, site)

    def desk_at(self, plan: Plan, client: str, report: Report, server: str) -> Desk:
        """The site's desk in a run, in the process that it has for itself.

        Raises:
            SettingsError: if the run has no such client.
        """
        if client not in plan.sites:
            raise SettingsError(f"the run '{plan.name}' has no client '{client}'")
        settle(self.threads_for(plan))
        return Desk(
            plan,
            plan.sites[client],
            self.storage,
            bring=lambda plan: self.bring(plan, plan.sites[client]),
            policy=self.policy,
            device=self.device,
            key=self.key,
            secret=self.secret,
            report=report,
            server=server,
        )


def read_site_file(path: Path) -> SiteFile:
    """Read a site's settings file.

    Raises:
        SettingsError: naming what is wrong in it.
    """
    try:
        values = read_yaml(path)
        if not isinstance(values, dict):
            raise SettingsError(f"{path}: expected names and values")
        own = SiteFile(**values)
        # what is not said in full is told from the kit's folder, in whose `local` this file is
        place = path.absolute().parent.parent
        key, secret, cache = (
            None if one is None else place / one for one in (own.key, own.secret, own.cache)
        )
        data, root = (
            str(place / one) if one and (place / one).exists() else one
            for one in (own.data, own.root)
        )
        return replace(
            own,
            storage=place / own.storage,
            cache=cache,
            key=key,
            secret=secret,
            data=data,
            root=root,
        )
    except UNREADABLE as error:
        raise SettingsError(f"{path} can't be read: {what_is_wrong(error)}") from error
    except (ValidationError, TypeError) as error:
        raise SettingsError(f"{path}: {what_does_not_fit(error)}") from error


def settings_file(site: str) -> str:
    """Name of a site's own settings file in the folder ``local`` of its kit.

    >>> settings_file("hospital-1")
    'counterpoint-hospital-1.yaml'
    """
    return f"counterpoint-{site}.yaml"


def example(site: str, data: Mapping[str, str | None], key: str | None = None) -> str:
    """The text of a settings file to begin with: the data, and in comments what else there is.

    Args:
        site: its name in the certificates.
        data: ``data`` and ``root``, as the file has them.
        key: path of the encryption key, where there is one.
    """
    root = data["root"]
    return EXAMPLE.format(
        site=site,
        data=_scalar(str(data["data"])),
        root=f"root: {_scalar(root)}\n" if root else "",
        key=KEY.format(key=key) if key else "",
    )


def _scalar(text: str) -> str:
    """A text as YAML has it on one line, in quotes where it needs them."""
    dumped: str = yaml.safe_dump(text, width=10**9, allow_unicode=True)
    return dumped.removesuffix("\n").removesuffix("\n...")


def write_site_file(path: Path, values: Mapping[str, Any]) -> None:
    """Write a site's settings file."""
    write_text(path, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))


def write_decoded(path: Path, data: SiteData, fingerprint: str) -> None:
    """Write what is known of a decoded site, so that another process can use its arrays."""
    import io

    file = io.BytesIO()
    np.savez(
        file,
        name=np.array(data.name),
        array=np.array(str(data.array)),
        targets=np.array(str(data.targets or "")),
        sizes=np.array(str(data.sizes or "")),
        labels=data.labels,
        splits=data.splits,
        cases=data.cases,
        groups=data.groups,
        fingerprint=np.array(fingerprint),
    )
    write_bytes(path, file.getvalue())


def read_decoded(path: Path) -> tuple[SiteData, str]:
    """Read what `write_decoded` wrote.

    Raises:
        SettingsError: if it can't be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} can't be read: {what_is_wrong(error)}") from error
    targets, sizes = str(found["targets"]), str(found["sizes"])
    data = SiteData(
        str(found["name"]),
        Path(str(found["array"])),
        found["labels"],
        found["splits"],
        found["cases"],
        found["groups"],
        Path(targets) if targets else None,
        Path(sizes) if sizes else None,
    )
    return data, str(found["fingerprint"])
