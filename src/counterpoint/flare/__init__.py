"""Runs across sites on NVIDIA FLARE.

What FLARE loads in a job are `counterpoint.flare.server.Server` and `counterpoint.flare.site.Site`,
from the package as it is installed: a job brings settings, never code.
"""
