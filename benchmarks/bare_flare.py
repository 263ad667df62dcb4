"""What FLARE alone takes to carry bytes to four sites and back: none of our code is in it.

Its controller sends every site as many bytes as the network has, each site sends as many back.
"""

import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from nvflare.apis.controller_spec import Task
from nvflare.apis.executor import Executor
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from counterpoint.flare.job import ASK_AGAIN
from counterpoint.flare.simulate import main as simulator

TASK = "carry"


class Sender(Controller):  # type: ignore[misc]
    """Sends bytes to all sites, ``rounds`` times; writes when each round was done."""

    def __init__(self, size: int, rounds: int, file: str) -> None:
        super().__init__()
        self.size, self.rounds, self.file = size, rounds, Path(file)

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Nothing is needed."""

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing is left."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Carry the rounds."""
        ends = [time.time()]
        for _ in range(self.rounds):
            tasks = []
            for client in fl_ctx.get_engine().get_clients():
                tasks.append(Task(TASK, Shareable({"bytes": bytes(self.size)})))
                self.send(tasks[-1], fl_ctx, targets=[client.name])
            while any(task.completion_status is None for task in tasks):
                time.sleep(0.05)
            ends.append(time.time())
        self.file.write_text(json.dumps(ends))

    def process_result_of_unknown_task(self, *given: object) -> None:
        """Nothing comes late."""


class Echo(Executor):  # type: ignore[misc]
    """Sends as many bytes back."""

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """Answer with other bytes."""
        return Shareable({"bytes": bytes(len(shareable["bytes"]))})


def carry(size: int, rounds: int) -> list[float]:
    """Carry bytes on FLARE's simulator to four sites; when it began, and each round was done."""
    began, clients = time.time(), [f"site-{number}" for number in range(1, 5)]
    with tempfile.TemporaryDirectory() as name:
        workspace, times = Path(name), Path(name) / "times"
        given = {"size": size, "rounds": rounds, "file": str(times)}
        paths = [f"{__name__}.Sender", f"{__name__}.Echo"]
        sender = {"id": TASK, "path": paths[0], "args": given}
        echo = {"tasks": [TASK], "executor": {"path": paths[1], "args": {}}}
        filters: dict[str, Any] = {
            "components": [],
            "task_data_filters": [],
            "task_result_filters": [],
        }
        files = {
            "meta.json": {
                "name": "job",
                "resource_spec": {},
                "min_clients": len(clients),
                "deploy_map": {"app": ["@ALL"]},
            },
            "app/config/config_fed_server.json": filters
            | {
                "format_version": 2,
                "server": {"task_request_interval": ASK_AGAIN},
                "workflows": [sender],
            },
            "app/config/config_fed_client.json": filters
            | {"format_version": 2, "executors": [echo]},
        }
        local = workspace / "flare" / "local" / "resources.json"
        local.parent.mkdir(parents=True)
        local.write_text(json.dumps({"class_allow_list": paths}))
        for file, values in files.items():
            place = workspace / "job" / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(values))
        with contextlib.suppress(SystemExit):
            simulator(str(workspace), ",".join(clients))
        return [began, *json.loads(times.read_text())[1:]]
