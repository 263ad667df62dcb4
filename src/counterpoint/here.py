"""All sites on this machine: their data are at hand, and their files lie in the run's folder."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from counterpoint.at_site import Answer, Job, Order, work
from counterpoint.client import ClientData
from counterpoint.crew import Crew
from counterpoint.data.site import Form
from counterpoint.encryption import Lock
from counterpoint.exam import Exam, Tested, score_test
from counterpoint.files import flush_file
from counterpoint.folder import RunFolder
from counterpoint.kept import Kept
from counterpoint.results import write_models
from counterpoint.settings import Settings
from counterpoint.tasks import Task


@dataclass(frozen=True)
class Here:
    """Sites whose orders are worked by a crew of this machine."""

    folder: RunFolder
    settings: Settings
    task: Task
    shape: tuple[int, ...]
    form: Form
    clients: Mapping[str, ClientData]
    holdout: ClientData | None
    fingerprint: str
    crew: Crew[Any]
    lock: Lock | None = None

    def visit(self, orders: Sequence[Order]) -> Iterator[Answer]:
        """Have the sites work a round; at its end their files are on the disk."""
        place = self.folder.state
        jobs = [Job(order, self.clients[order.site], place, self.lock) for order in orders]
        with ThreadPoolExecutor(1) as beside:  # the disk works while the next site trains
            flushed = []
            for answer in self.crew(work, jobs):
                files = [place / kept.file for kept in (answer.state, answer.candidate) if kept]
                flushed += [beside.submit(flush_file, file) for file in files]
                yield answer
            for done in flushed:
                done.result()

    def test(self, round: int, chosen: Mapping[str, Kept]) -> Iterator[list[Tested]]:
        """Score each site's test images with its model, a site held out with all of them."""
        files = {site: self.folder.state / kept.file for site, kept in chosen.items()}
        seed = self.settings.seed
        exams = [Exam(self.clients[site], (file,), seed) for site, file in files.items()]
        if self.holdout:
            exams.append(Exam(self.holdout, tuple(files.values()), seed, elsewhere=True))
        return self.crew(score_test, exams)

    def leave_models(self, round: int, chosen: Mapping[str, Kept]) -> bool:
        """Write the chosen models into the run's folder; tell whether they are all one."""
        out, state = self.folder.path, self.folder.state
        return write_models(
            out, self.settings, self.task, self.shape, self.form, round, chosen, state
        )

    def about_data(self) -> Mapping[str, object]:
        """Each site's number of training images, and the data's fingerprint."""
        images = {name: data.images for name, data in self.clients.items()}
        return {"training_images": images, "data_fingerprint": self.fingerprint}
