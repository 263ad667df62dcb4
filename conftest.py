"""What holds for all tests: one thread, and no doctests of modules whose extra is not installed."""

import os
from importlib.util import find_spec

# Processes that are compared bit for bit must add up in the same order. PyTorch reads it at import.
os.environ.setdefault("OMP_NUM_THREADS", "1")

NEEDS = {"nvflare": "src/counterpoint/flare/*", "flwr": "src/counterpoint/flower/*"}

collect_ignore_glob = [where for extra, where in NEEDS.items() if not find_spec(extra)]
