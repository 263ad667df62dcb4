"""The three tables of a study as text cells: scores, differences, budgets."""

from dataclasses import dataclass, field

import pandas as pd

from counterpoint.report.words import heading, number, size, unit_of
from counterpoint.runs import LOWER_IS_BETTER
from counterpoint.study.findings import Findings


@dataclass(frozen=True)
class Sheet:
    """A table of texts; ``best`` are the (row, column) of cells to be set in bold."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    best: set[tuple[int, int]] = field(default_factory=set)


def sheets(found: Findings) -> list[Sheet]:
    """All tables that have something to say."""
    made = [scores_sheet(found), differences_sheet(found), budgets_sheet(found)]
    return [sheet for sheet in made if sheet.rows]


def scores_sheet(found: Findings) -> Sheet:
    """Entry by site: mean ± standard deviation, the best of each column in bold."""
    columns = list(found.table.columns.get_level_values(0).unique())
    columns = [*found.sites, *(name for name in columns if name not in found.sites)]
    rows, best = [], set()
    seeds = found.scores.groupby("entry")["seed"].nunique()
    for entry in found.entries:
        row = found.table.loc[entry]
        cells = [spread(found.metric, row[(name, "mean")], row[(name, "std")]) for name in columns]
        rows.append([entry, *cells, str(seeds[entry])])
    for place, name in enumerate(columns, start=1):
        means: pd.Series[float] = found.table[(name, "mean")].round(6)
        top = means.min() if found.metric in LOWER_IS_BETTER else means.max()
        best |= {(at, place) for at, mean in enumerate(means) if mean == top}
    names = [f"{name} (did not train)" if name in found.held_out else name for name in columns]
    title = f"{found.split.capitalize()} {heading(found.metric)}"
    return Sheet(title, ["method", *names, "seeds"], rows, best if len(rows) > 1 else set())


def differences_sheet(found: Findings) -> Sheet:
    """Every entry minus the baseline, with interval and p."""
    rows = []
    for one in found.differences:
        low, high = (signed(found.metric, end) for end in (one.low, one.high))
        tested = bool(one.test)
        rows.append(
            [
                one.entry,
                signed(found.metric, one.difference),
                f"{low} to {high}" if tested else "-",
                probability(one.p),
                probability(one.corrected),
                f"{one.better} of {len(one.seeds)}",
            ]
        )
    what = heading(found.metric, unit=False)
    unit = unit_of(found.metric)
    whats = [f"in {'points' if unit == '%' else unit}"] if unit else []
    tests = dict.fromkeys(one.test for one in found.differences if one.test)
    return Sheet(
        ", ".join([f"Difference to {found.baseline} in mean {what}", *whats, *tests]),
        ["method", "difference", "95 % interval", "p", "p (Holm)", "seeds better"],
        rows,
    )


def budgets_sheet(found: Findings) -> Sheet:
    """What each entry cost."""
    rows = [
        [
            str(entry),
            *(count(row[name]) for name in ("rounds", "local_epochs", "local_steps", "gradients")),
            *(size(row[name]) for name in ("bytes_up", "bytes_down")),
            str(row["statistics"]),
        ]
        for entry, row in found.budgets.iterrows()
    ]
    columns = ["method", "rounds", "local epochs", "local steps", "gradients"]
    title = "Budgets: gradient evaluations in all; local steps, bytes up and down a site and round"
    return Sheet(title, [*columns, "up", "down", "batch norm"], rows)


def spread(metric: str, mean: float, deviation: float) -> str:
    """Mean ± standard deviation, the mean alone where there is a single seed.

    >>> spread("dice", 0.5, 0.0123), spread("dice", 0.5, float("nan"))
    ('50.0 ± 1.2', '50.0')
    """
    text = number(metric, mean)
    return text if pd.isna(deviation) or text == "-" else f"{text} ± {number(metric, deviation)}"


def signed(metric: str, value: float) -> str:
    """A difference of scores with its sign.

    >>> signed("dice", 0.0123), signed("dice", -0.1), signed("hd95", 2.0), signed("dice", 0.0)
    ('+1.2', '-10.0', '+2.0', '0.0')
    """
    text = number(metric, value + 0.0)
    return f"+{text}" if value > 0 and float(text) > 0 else text


def probability(p: float) -> str:
    """A p-value.

    >>> probability(0.0312), probability(0.0004), probability(1.0), probability(float("nan"))
    ('0.031', '< 0.001', '1.000', '-')
    """
    return "-" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(value: float) -> str:
    """A number of things; a mean of numbers where it is not whole.

    >>> count(19200.0), count(37.5), count(float("nan"))
    ('19200', '37.5', '-')
    """
    return "-" if pd.isna(value) else f"{value:.0f}" if value == int(value) else f"{value:.1f}"
