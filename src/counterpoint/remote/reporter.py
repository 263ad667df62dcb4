"""Where the events of a site or server go: to its own log, and to a file that somebody follows."""

import json
import logging
from pathlib import Path

from counterpoint.crew import Event, Report
from counterpoint.files import append_text


def reporter(log: logging.Logger, events: Path | None = None) -> Report:
    """Write events to a log of one's own, and where wanted to a file, a line each."""

    def report(event: Event) -> None:
        error = event.get("error")
        if isinstance(error, Exception):
            log.error("an error of the site's own", exc_info=error)
        elif "warning" in event:
            log.warning("%s", event["warning"])
        else:
            log.info("%s", event)
        if events:
            append_text(events, json.dumps(event) + "\n")

    return report
