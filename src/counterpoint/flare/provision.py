"""What a consortium needs to start: who takes part, the job, and each site's own settings file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from counterpoint.encryption.key import PRIMES, RING, SCALE
from counterpoint.errors import SettingsError
from counterpoint.files import new_folder, write_text
from counterpoint.flare.job import write_job
from counterpoint.remote.plan import Plan
from counterpoint.remote.server_file import SETTINGS
from counterpoint.remote.site_file import example, settings_file
from counterpoint.strict_yaml import UNREADABLE, read_yaml, what_is_wrong

BUILDER = "counterpoint.flare.kit.AllowCounterpoint"


KEY = "startup/client_context.tenseal"
"""The sites' encryption key in their kits, as FLARE calls it."""


def project(
    name: str,
    server: str,
    port: int,
    sites: Sequence[str],
    organisation: str,
    admin: str,
    encrypt: bool = False,
) -> dict[str, Any]:
    """The project of `nvflare provision`: server, sites, one administrator, and their builders.

    With ``encrypt``, FLARE makes a key for homomorphic encryption and puts it in the sites' kits.
    """
    clients = [{"name": site, "type": "client", "org": organisation} for site in sites]
    impl = "nvflare.lighter.impl"
    return {
        "api_version": 3,
        "name": name,
        "description": "A federation of Counterpoint",
        "participants": [
            {
                "name": server,
                "type": "server",
                "org": organisation,
                "fed_learn_port": port,
                "admin_port": port,
            },
            *clients,
            {"name": admin, "type": "admin", "org": organisation, "role": "project_admin"},
        ],
        "builders": [
            {
                "path": f"{impl}.workspace.WorkspaceBuilder",
                "args": {"template_file": ["master_template.yml"]},
            },
            {"path": f"{impl}.static_file.StaticFileBuilder", "args": {"config_folder": "config"}},
            {"path": BUILDER, "args": {}},
            *([{"path": f"{impl}.he.HEBuilder", "args": parameters()}] if encrypt else []),
            {"path": f"{impl}.cert.CertBuilder"},
            {"path": f"{impl}.signature.SignatureBuilder"},
        ],
    }


def parameters() -> dict[str, Any]:
    """The parameters of the encryption, as FLARE's builder takes them."""
    return {"poly_modulus_degree": RING, "coeff_mod_bit_sizes": list(PRIMES), "scale_bits": SCALE}


def write_consortium(
    folder: Path,
    plan: Plan,
    *,
    server: str,
    port: int,
    organisation: str,
    admin: str,
    data: Mapping[str, str | None],
    min_sites: int,
    deadline: int,
) -> None:
    """Write a consortium's folder: project.yml, the job, and a settings file for each site.

    Raises:
        SettingsError: if there is something in the folder already.
    """
    plan.require_enough(min_sites)
    sites, encrypt = list(plan.sites), plan.settings.encrypt
    made = project(plan.name, server, port, sites, organisation, admin, encrypt)
    with new_folder(folder) as aside:
        write_text(aside / "project.yml", yaml.safe_dump(made, sort_keys=False))
        write_job(aside / "job" / plan.name, [plan], min_sites, deadline)
        for site in sites:
            text = example(site, data, KEY if encrypt else None)
            write_text(aside / "sites" / settings_file(site), text)
        write_text(aside / "sites" / SETTINGS, "runs: runs\n")


def read_project(folder: Path) -> Mapping[str, Any]:
    """Read a consortium's project.yml.

    Raises:
        SettingsError: if it is not there or is none.
    """
    path = folder / "project.yml"
    try:
        values = read_yaml(path)
        names = {one["type"]: one["name"] for one in values["participants"]}
        assert {"server", "client", "admin"} <= names.keys()
    except (*UNREADABLE, KeyError, TypeError, AssertionError) as error:
        raise SettingsError(
            f"{path} can't be read as the project of a consortium ({what_is_wrong(error)}); "
            "`counterpoint flare init` makes one"
        ) from error
    return dict(values)


def make_kits(folder: Path) -> Path:
    """Make the startup kits with certificates, as `nvflare provision` does; returns their folder.

    Raises:
        SettingsError: if the project can't be read or provisioned.
    """
    import subprocess
    import sys

    values = read_project(folder)
    command = [sys.executable, "-m", "nvflare.cli", "provision", "-p", "project.yml", "-w", "kits"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    kits = sorted((folder / "kits" / str(values["name"])).glob("prod_*"))
    if done.returncode or not kits:
        raise SettingsError(f"nvflare provision failed: {(done.stderr or done.stdout)[-500:]}")
    for key in kits[-1].glob(f"*/{KEY}"):
        key.chmod(0o600)
    return kits[-1]
