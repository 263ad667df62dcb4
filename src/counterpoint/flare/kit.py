"""What Counterpoint adds to the startup kits of `nvflare provision`."""

import json
import shutil
from pathlib import Path

from nvflare.lighter.ctx import ProvisionContext
from nvflare.lighter.entity import Project
from nvflare.lighter.spec import Builder

from counterpoint.flare.job import SERVER, SITE

RESOURCES = "resources.json.default"


class AllowCounterpoint(Builder):  # type: ignore[misc]
    """Lets server and sites load Counterpoint's two classes, and puts in the settings files.

    FLARE loads only classes that are on the list in a site's ``local/resources.json``. These two
    come with the installed package, so that no job has to bring code.
    """

    def build(self, project: Project, ctx: ProvisionContext) -> None:
        """Change the folders ``local`` of the kits."""
        for participant, allowed in [
            (project.get_server(), SERVER),
            *((client, SITE) for client in project.get_clients()),
        ]:
            local = Path(ctx.get_local_dir(participant))
            resources = json.loads((local / RESOURCES).read_text(encoding="utf-8"))
            resources["class_allow_list"] = [allowed]
            (local / RESOURCES).write_text(json.dumps(resources, indent=2), encoding="utf-8")
            name = "server" if allowed == SERVER else participant.name
            own = Path("sites") / f"counterpoint-{name}.yaml"
            if own.is_file():
                shutil.copy(own, local)
