"""Figures of the papers, one short file each.

``numbers(runs)`` gives what is to be seen as a table, ``draw(numbers)`` makes a matplotlib figure
of nothing but that table. Runs come from `counterpoint.runs`.
"""

FIGURES = {
    "retrogress": "score before and after every communication, a panel a method (PRR-FL, fig. 1)",
    "convergence": "validation score and loss against rounds, gradients or bytes (HarmoFL, fig. 5)",
    "landscape": "loss around the global and local optima, method beside method (HarmoFL, fig. 1)",
    "sweep": "score against a setting: alpha and local epochs (HarmoFL, fig. 5), PFA's threshold",
    "ablation": "amplitude, perturbation, both, neither (HarmoFL); PFA, DET, both (PRR-FL)",
    "sites": "test score of every site, a row a method",
}
"""What `counterpoint figure` draws; each is a module of this package."""
