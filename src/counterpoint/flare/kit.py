"""What Counterpoint changes in the startup kits of `nvflare provision`."""

import importlib.metadata
import json
import platform
import shutil
from pathlib import Path
from typing import Any

from nvflare.lighter.ctx import ProvisionContext
from nvflare.lighter.entity import Participant, Project
from nvflare.lighter.spec import Builder

from counterpoint.errors import StateError
from counterpoint.flare.job import PLANS, SERVER, SITE

RIGHTS = (
    "submit_job",
    "clone_job",
    "manage_job",
    "download_job",
    "view",
    "operate",
    "shell_commands",
    "byoc",
)
REFUSED = ("byoc", "shell_commands")
"""Code that comes with a job, which would pass by the list; and reading a site's files and logs."""

KNOWN = "counterpoint-kit.json"
"""File in a kit's folder ``local`` by which `counterpoint flare check` looks: plan and versions."""
FLARES_OWN = "/tmp/nvflare"
"""Where a server of FLARE keeps its jobs, if not told otherwise: one place for all of a machine."""
KIT = "COUNTERPOINT_KIT"
"""Variable of the environment of a server's processes: the folder of its kit."""
PACKAGES = ("python", "counterpoint", "nvflare", "torch", "monai", "numpy", "safetensors")


class AllowCounterpoint(Builder):  # type: ignore[misc]
    """Makes kits in which Counterpoint's classes run and nothing else that a job may name.

    FLARE loads only classes that are on the list in a site's ``local/resources.json``. Ours come
    with the installed package, so that no job has to bring code, and none may. A site's log can
    name files: it is not streamed to the server, and no administrator of another place reads it.
    """

    def build(self, project: Project, ctx: ProvisionContext) -> None:
        """Change the folders ``local`` of the kits."""
        known = known_here(Path("job"))
        for participant in project.get_all_participants():
            if participant.type in ("server", "client", "admin"):
                _write(Path(ctx.get_local_dir(participant)) / KNOWN, known)
        server = project.get_server()
        self.change(server, ctx, SERVER, "counterpoint-server.yaml")
        keep_jobs_in_kit(Path(ctx.get_local_dir(server)), Path(ctx.get_kit_dir(server)))
        for client in project.get_clients():
            self.change(client, ctx, SITE, f"counterpoint-{client.name}.yaml")

    def change(
        self, participant: Participant, ctx: ProvisionContext, allowed: str, own: str
    ) -> None:
        """Change one kit, and put its settings file in it."""
        local = Path(ctx.get_local_dir(participant))
        resources = _read(local / "resources.json.default")
        resources["class_allow_list"] = [allowed]
        if allowed == SITE:
            resources["allow_log_streaming"] = False
        _write(local / "resources.json.default", resources)
        rules = _read(local / "authorization.json.default")
        for role, rights in rules["permissions"].items():
            given = dict.fromkeys(RIGHTS, "any") if rights == "any" else dict(rights)
            rules["permissions"][role] = given | dict.fromkeys(REFUSED, "none")
        _write(local / "authorization.json.default", rules)
        if (Path("sites") / own).is_file():
            shutil.copy(Path("sites") / own, local)


def keep_jobs_in_kit(local: Path, startup: Path) -> None:
    """Have a server keep its jobs in its own kit, wherever that lies.

    FLARE fills in variables of the environment where it reads its configuration.
    """
    _replace(local / "resources.json.default", FLARES_OWN, f"{{${KIT}}}/flare")
    start = 'echo "WORKSPACE set to $WORKSPACE"\n'
    _replace(startup / "sub_start.sh", start, f'{start}export {KIT}="$WORKSPACE"\n')


def _replace(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    if before not in text:
        raise StateError(f"{path} is not as NVIDIA FLARE 2.9 makes it: it has no {before!r}")
    path.write_text(text.replace(before, after), encoding="utf-8")


def known_here(jobs: Path) -> dict[str, Any]:
    """What kits are checked by: the plans of the job, and the versions of packages here."""
    plans = [_read(file) for file in jobs.glob(f"*/app_sites/config/{PLANS}")]
    return {"versions": versions(), "plans": plans[0] if plans else {}}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a run depends on, as they are here."""
    found = {"python": platform.python_version()}
    for one in PACKAGES[1:]:
        try:
            found[one] = importlib.metadata.version(one)
        except importlib.metadata.PackageNotFoundError:
            found[one] = "none"
    return found


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
