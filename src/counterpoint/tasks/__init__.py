"""What is learnt: losses and scores. Tasks know nothing of methods."""

from counterpoint.tasks.classification import Classification

__all__ = ["Classification"]
