"""Figures, one short file each: a function that draws a matplotlib figure from a run's numbers."""
