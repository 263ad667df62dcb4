"""Modules that need an extra are not looked through for doctests where it is not installed."""

from importlib.util import find_spec

NEEDS = {"nvflare": "src/counterpoint/flare/*", "flwr": "src/counterpoint/flower/*"}

collect_ignore_glob = [where for extra, where in NEEDS.items() if not find_spec(extra)]
