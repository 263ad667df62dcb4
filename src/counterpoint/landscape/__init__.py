"""The loss around the models of runs: directions and planes, the walk, runs side by side."""

from counterpoint.landscape.directions import Plane, filter_normalised, plane_through
from counterpoint.landscape.numbers import numbers
from counterpoint.landscape.walk import losses_around

__all__ = ["Plane", "filter_normalised", "losses_around", "numbers", "plane_through"]
