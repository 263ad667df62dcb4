"""The server's process on FLARE: a controller that conducts a run and holds nothing but means."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from counterpoint.errors import CounterpointError, PayloadError
from counterpoint.flare.job import TASK, read_plans
from counterpoint.flare.talk import TENSORS, from_shareable, to_shareable
from counterpoint.processor import settle
from counterpoint.remote import Message, Plan
from counterpoint.remote.afar import conduct_afar
from counterpoint.remote.reporter import reporter
from counterpoint.remote.server_file import SETTINGS, read_server_file

TO_COLLECT = "counterpoint"
"""Folder in a job's results with copies of its runs."""


class AbortedError(Exception):
    """The administrator has aborted the job."""


class Server(Controller):  # type: ignore[misc]
    """Conducts one run. A job may have several of these, for runs one after the other.

    Args:
        run: its name among the plans of the job.
        min_sites: so many sites must answer in every round; all where left out.
        deadline: seconds that a site has for a round; 0 for no limit.
    """

    def __init__(self, run: str, min_sites: int = 0, deadline: int = 0) -> None:
        super().__init__()
        self.run, self.min_sites, self.deadline = run, min_sites, deadline

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Read the plan and the server's own settings."""
        try:
            workspace = fl_ctx.get_engine().get_workspace()
            own = read_server_file(Path(workspace.get_site_config_dir()) / SETTINGS)
            self.report = reporter(self.logger, own.events)
            self.plan = Plan.from_dict(read_plans(fl_ctx)[self.run], own.imports)
            self.path = own.runs / self.plan.name
            self.to_collect = Path(workspace.get_run_dir(fl_ctx.get_job_id())) / TO_COLLECT
            settle(self.plan.settings.machine.threads or 1)
        except CounterpointError as error:
            self.system_panic(str(error), fl_ctx)

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Conduct the run, from its last complete round to its results."""

        def send(messages: Mapping[str, Message]) -> dict[str, Message]:
            return self.carry(messages, abort_signal, fl_ctx)

        try:
            enough = self.min_sites or len(self.plan.sites)
            conduct_afar(self.plan, self.path, send, enough, self.report)
            self.report({"finished": self.plan.name})
        except AbortedError:
            self.log_info(fl_ctx, "aborted; complete rounds are kept", fire_event=False)
        except CounterpointError as error:
            self.report({"failed": str(error), "kind": type(error).__name__})
            self.system_panic(str(error), fl_ctx)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Put a copy of the run among the job's results, for who has submitted it."""
        if self.path.is_dir():
            leave_out = shutil.ignore_patterns("state", ".*")
            shutil.copytree(
                self.path, self.to_collect / self.path.name, ignore=leave_out, dirs_exist_ok=True
            )

    def carry(
        self, messages: Mapping[str, Message], abort_signal: Signal, fl_ctx: FLContext
    ) -> dict[str, Message]:
        """Bring every site its message; gives the answers that come before the deadline."""
        clients = {site: client for client, site in self.plan.sites.items()}
        there = {client.name for client in fl_ctx.get_engine().get_clients()}
        tasks: dict[str, Task] = {}
        replies: dict[str, Message] = {}

        def take(client_task: ClientTask, fl_ctx: FLContext) -> None:
            site = self.plan.sites[client_task.client.name]
            try:
                replies[site] = from_shareable(client_task.result)[1]
            except PayloadError as error:
                replies[site] = Message("refused", {"reason": str(error)})

        for site, message in messages.items():
            if clients[site] not in there:
                continue
            data = to_shareable(self.plan.name, message)
            task = Task(TASK, data, timeout=self.deadline, result_received_cb=take)
            self.send(task, fl_ctx, targets=[clients[site]])
            tasks[site] = task
        while any(task.completion_status is None for task in tasks.values()):
            if abort_signal.triggered:
                raise AbortedError
            time.sleep(0.05)
        found = dict(replies)
        replies.clear()  # FLARE's tasks outlive this, and hold it
        for task in tasks.values():
            task.data.pop(TENSORS, None)
        return found

    def process_result_of_unknown_task(
        self,
        client: Client,
        task_name: str,
        client_task_id: str,
        result: Shareable,
        fl_ctx: FLContext,
    ) -> None:
        """An answer that came too late: the site takes part again in the next round."""
        self.log_warning(fl_ctx, f"an answer of {client.name} came too late", fire_event=False)
