"""One run of a study, in a process of its own: ``python -m counterpoint.study.job``.

The job comes as a line of JSON by standard input; events go as such lines to standard output, and
all words to standard error, which is the run's log. The process ends with whoever started it: then
its standard input ends.
"""

import json
import os
import shutil
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

UNFINISHED = {"state", "scores.csv", "payloads.csv"}
"""What a run that was killed while its folder was made may have left there."""


def work(job: dict[str, Any], report: Any) -> None:
    """Do the run, or what is missing of it."""
    from counterpoint.api import resume, run

    folder = Path(job["folder"])
    if (folder / "settings.yaml").is_file():
        resume(folder, workers=job["workers"], report=report)
        return
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= UNFINISHED:
        shutil.rmtree(folder)
    run(job["method"], job["data"], out=folder, settings=job["settings"], report=report)


def main() -> None:
    """Entry point."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what anybody prints belongs to the log
    with open(0, "rb", buffering=0, closefd=False) as pipe:
        job = json.loads(pipe.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    sys.path += [place for place in job["path"] if place not in sys.path]

    def report(event: dict[str, object]) -> None:
        for kind in ("warning", "note"):
            if kind in event:
                print(f"{kind}: {event[kind]}", file=sys.stderr, flush=True)
        print(json.dumps(event, default=str), file=events, flush=True)

    from counterpoint.errors import CounterpointError

    try:
        work(job, report)
    except CounterpointError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        traceback.print_exc()
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)


def _end_with_input() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
