"""Take a model elsewhere: one file a format, each with its card and checked against the model."""

from counterpoint.exporting.api import FORMATS, Exported, export

__all__ = ["FORMATS", "Exported", "export"]
