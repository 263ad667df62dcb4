"""Differential privacy, beside any method: see the page on privacy of the documentation."""

from counterpoint.privacy.account import account, epsilon_of_run
from counterpoint.privacy.choice import PRIVACIES, NoPrivacy, PayloadNoise, Privacy, RecordNoise
from counterpoint.privacy.fitting import require_fitting_privacy, require_slices_apart

__all__ = [
    "PRIVACIES",
    "NoPrivacy",
    "PayloadNoise",
    "Privacy",
    "RecordNoise",
    "account",
    "epsilon_of_run",
    "require_fitting_privacy",
    "require_slices_apart",
]
