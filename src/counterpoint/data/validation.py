"""Give a published split the parts that it lacks; every site says so in a note (pure)."""

import pandas as pd

from counterpoint.data.split import grouped_split

_SEED = 1  # part of what "published" means here: the same whatever else is asked for


def complete_split(
    tables: dict[str, pd.DataFrame], least: int = 1
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return the tables of `Reading` with a validation part at every site, and notes on it.

    Where there is none, a tenth of the training images, but about ``least`` of them or more, become
    validation: groups stay together, also across sites, and labels in proportion. A site
    without any split gets one of 70, 10 and 20 %.

    >>> table = pd.DataFrame({"label": 0, "split": "train", "group": list("abcdefghij")})
    >>> complete_split({"x": table})[0]["x"]["split"].value_counts().to_dict()
    {'train': 9, 'validation': 1}
    """
    frame = pd.concat(tables, names=["site", "line"]).reset_index()
    fractions = {}
    for site, table in tables.items():
        training = int((table["split"] == "train").sum())
        if (table["split"] == "").all():
            fractions[site] = (0.7, 0.1, 0.2)
        elif training and not (table["split"] == "validation").any():
            part = min(1.0, max(0.1, least / training))
            fractions[site] = (1 - part, part, 0.0)
    made = frame["site"].isin(list(fractions)) & frame["split"].isin(["", "train"])
    # A patient that trains elsewhere trains here, too; one without a split is where he is there.
    places = frame[~made].drop_duplicates("group").set_index("group")["split"]
    placed = frame["group"].map(places).astype(object).fillna("")
    stays = made & ((placed == "train") | ((frame["split"] == "") & (placed != "")))
    frame.loc[stays, "split"] = placed[stays]
    made &= ~stays
    rows = frame[made]
    groups, labels, sites = (rows[name].tolist() for name in ("group", "label", "site"))
    frame.loc[made, "split"] = grouped_split(groups, labels, sites, fractions, _SEED)
    done, notes = {}, []
    for site, table in tables.items():
        done[site] = table.assign(split=frame.loc[frame["site"] == site, "split"].tolist())
        if site in fractions:
            notes.append(_note(site, table["split"], done[site]["split"]))
    return done, notes


def _note(site: str, before: pd.Series, after: pd.Series) -> str:
    if (before == "").all():
        return (
            f"site '{site}': its source gives no split; one was made with seed {_SEED}: about 70 % "
            "training, 10 % validation and 20 % test images"
        )
    return (
        f"site '{site}': its split has no validation part; "
        f"{(after == 'validation').sum()} of {(before == 'train').sum()} training images became it "
        f"(seed {_SEED}, no known patient or lesion in both)"
    )
