"""The site's process on FLARE: an executor that stays warm for the whole job."""

from pathlib import Path

from nvflare.apis.executor import Executor
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from counterpoint.errors import CounterpointError, SettingsError
from counterpoint.flare.job import read_plans
from counterpoint.flare.startup_kit import read_kit
from counterpoint.flare.talk import from_shareable, to_shareable
from counterpoint.remote import Desk, Message, Plan
from counterpoint.remote.reporter import reporter
from counterpoint.remote.site_file import read_site_file, settings_file


class Site(Executor):  # type: ignore[misc]
    """Answers the server's messages at the desk of the run that they are for."""

    def __init__(self) -> None:
        super().__init__()
        self.desks: dict[str, Desk] = {}

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """Answer one message; whatever goes wrong, nothing of the site's own leaves with it."""
        run = ""
        try:
            run, message = from_shareable(shareable)
            reply = self.desk(run, fl_ctx).answer(message)
        except Exception as error:  # whatever it is, it must not leave as it is
            known = isinstance(error, CounterpointError)
            self.logger.error(str(error), exc_info=None if known else error)
            reply = Message("refused", {"reason": "the site can't take part; its own log says why"})
        return to_shareable(run, reply)

    def desk(self, run: str, fl_ctx: FLContext) -> Desk:
        """The site's desk for a run, made when its first message comes."""
        if run not in self.desks:
            client = fl_ctx.get_identity_name()
            workspace = fl_ctx.get_engine().get_workspace()
            own = read_site_file(Path(workspace.get_site_config_dir()) / settings_file(client))
            plans = read_plans(fl_ctx)
            if run not in plans:
                raise SettingsError(f"the job has no run '{run}'")
            plan = Plan.from_dict(plans[run], own.imports)
            server = server_of(Path(workspace.get_site_config_dir()).parent)
            self.desks[run] = own.desk_at(plan, client, reporter(self.logger), server)
        return self.desks[run]


def server_of(kit: Path) -> str:
    """Name and port of the server that a kit is for; a word on the simulator, which has none."""
    try:
        found = read_kit(kit)
    except SettingsError:
        return "server"
    return f"{found.host}:{found.port}"
