"""Differential privacy, beside any method: see the page on privacy of the documentation."""

from counterpoint.privacy.account import account
from counterpoint.privacy.choice import PRIVACIES, NoPrivacy, PayloadNoise, Privacy, RecordNoise
from counterpoint.privacy.fitting import require_fitting_privacy

__all__ = [
    "PRIVACIES",
    "NoPrivacy",
    "PayloadNoise",
    "Privacy",
    "RecordNoise",
    "account",
    "require_fitting_privacy",
]
