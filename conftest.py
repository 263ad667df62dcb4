"""Modules that need an extra are not looked through for doctests where it is not installed."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("nvflare") else ["src/counterpoint/flare/*"]
