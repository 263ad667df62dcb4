"""A run as TensorBoard shows it: a curve a site in one chart, settings, and the test scores."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from torch.utils.tensorboard import SummaryWriter

from counterpoint.report.logs import Point


class TensorBoard:
    """Writes ``RUN/tensorboard``, a folder a site. Look with ``tensorboard --logdir RUN``.

    A run that goes on has its log written anew, so that no point is there twice or missing.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / "tensorboard"
        self.writers: dict[str, SummaryWriter] = {}
        self.settings: dict[str, str | int | float | bool] = {}

    def open(self, settings: Mapping[str, Any], goes_on: bool) -> None:
        """Begin the log."""
        shutil.rmtree(self.folder, ignore_errors=True)
        plain = (str, int, float, bool)
        self.settings = {n: v if isinstance(v, plain) else str(v) for n, v in settings.items()}
        rows = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
        self._writer("mean").add_text("settings", f"| setting | value |\n|---|---|\n{rows}")

    def write(self, points: Iterable[Point]) -> None:
        """Add points to the sites' curves."""
        for point in points:
            self._writer(point.site).add_scalar(point.name, point.value, point.step)
        for writer in self.writers.values():
            writer.flush()

    def close(self, results: Mapping[str, float] | None, status: str) -> None:
        """Add the test scores, beside the settings, and close the files."""
        if results is not None:
            self._writer("mean").add_hparams(self.settings, dict(results), run_name=".")
        for writer in self.writers.values():
            writer.close()

    def _writer(self, site: str) -> SummaryWriter:
        if site not in self.writers:
            folder = self.folder / quote(site, safe=" ")[:100]
            # step 0: a TensorBoard that is open forgets what it has read of an earlier log
            self.writers[site] = SummaryWriter(str(folder), purge_step=0)
        return self.writers[site]
