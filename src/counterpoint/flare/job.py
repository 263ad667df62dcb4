"""A job of FLARE as files: which classes run, and with which plans. No code is in it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoint.errors import SettingsError
from counterpoint.files import write_text
from counterpoint.remote.plan import Plan

SERVER, SITE = "counterpoint.flare.server.Server", "counterpoint.flare.site.Site"
TASK = "counterpoint"
PLANS = "plans.json"
"""File beside FLARE's own configuration with the plans of a job's runs, by name."""
ASK_AGAIN = 0.5
"""Seconds after which a site without work asks the server for some; FLARE's default is 2."""


def write_job(folder: Path, plans: Sequence[Plan], min_sites: int = 0, deadline: int = 0) -> Path:
    """Write the folder of a job that does runs one after the other.

    Args:
        folder: of the job; its name becomes the job's.
        plans: of the runs; all have the same clients.
        min_sites: sites that must take part in every round; all where 0.
        deadline: seconds that a site has for a round; 0 for no limit.
    """
    clients = list(plans[0].sites)
    runs = {plan.name: plan.as_dict() for plan in plans}
    meta = {
        "name": folder.name,
        "resource_spec": {},
        "min_clients": min_sites or len(clients),
        "deploy_map": {"app_server": ["server"], "app_sites": clients},
    }
    workflows = [
        {
            "id": name,
            "path": SERVER,
            "args": {"run": name, "min_sites": min_sites, "deadline": deadline},
        }
        for name in runs
    ]
    server = {
        "format_version": 2,
        "server": {"task_request_interval": ASK_AGAIN},
        "workflows": workflows,
        "components": [],
        "task_data_filters": [],
        "task_result_filters": [],
    }
    site = {
        "format_version": 2,
        "executors": [{"tasks": [TASK], "executor": {"path": SITE, "args": {}}}],
        "components": [],
        "task_data_filters": [],
        "task_result_filters": [],
    }
    _write(folder / "meta.json", meta)
    for app, file, values in (
        ("app_server", "config_fed_server.json", server),
        ("app_sites", "config_fed_client.json", site),
    ):
        _write(folder / app / "config" / file, values)
        _write(folder / app / "config" / PLANS, runs)
    return folder


def read_plans(fl_ctx: Any) -> dict[str, Any]:
    """Read the plans of the job that a context of FLARE belongs to.

    Raises:
        SettingsError: if there are none.
    """
    workspace = fl_ctx.get_engine().get_workspace()
    path = Path(workspace.get_app_config_dir(fl_ctx.get_job_id())) / PLANS
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} can't be read as the plans of a job: {error}") from error


def _write(path: Path, values: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")
