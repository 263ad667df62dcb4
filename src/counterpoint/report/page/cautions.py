"""What a reader must know before believing a number: found in the runs, said on top."""

from collections.abc import Iterator

from counterpoint.report.page.runs import FEW, Arm, Study, same_cases
from counterpoint.report.page.summary import others
from counterpoint.report.page.words import listed, named, without_names
from counterpoint.report.words import leaks
from counterpoint.resampling import TOO_FEW


def cautions(study: Study) -> list[str]:
    """Sentences, the gravest first."""
    found = [*_data(study), *_comparison(study), *_size(study), *_means(study), *_models(study)]
    return list(dict.fromkeys(found))


def _data(study: Study) -> Iterator[str]:
    notes = [note for run in study.runs for note in run.values["data_notes"]]
    yield from (f"Leakage: {without_names(note)}." for note in notes if leaks(note))
    yield from (f"{without_names(note)}." for note in notes if "twin of equal content" in note)
    protocols = {run.values["protocol"] for run in study.runs}
    if "published" in protocols:
        yield (
            "The split is the one that was published with the data, taken as it is; patients may "
            "be in more than one part of it."
        )
    if "given" in protocols:
        yield "The split is the one that came with the data, taken as it is."


def _comparison(study: Study) -> Iterator[str]:
    if len(study.arms) > 1:
        work = {arm.label: int(arm.first.values["images_with_gradient"]) for arm in study.arms}
        if max(work.values()) > 1.02 * min(work.values()):
            said = ", ".join(f"{label} {count:,}" for label, count in work.items())
            yield (
                "The methods did not train equally much, so that a difference may be due to that; "
                f"images that a gradient was computed for: {said}."
            )
        sizes = {arm.label: arm.first.settings.get("schedule.image_size") for arm in study.arms}
        if len(set(sizes.values())) > 1:
            said = ", ".join(f"{label} {size}" for label, size in sizes.items())
            yield f"Images were not equally large, in pixels: {said}."
        first = study.main
        odd = [arm.label for arm in study.arms if not _comparable(study, arm)]
        if odd:
            yield (
                f"{listed(odd)}: not tested on the same images as {first.label} with the same "
                "seed, so there are no intervals for differences to it."
            )
        seeds = {arm.label: [str(run.seed) for run in arm.runs] for arm in study.arms}
        if len({tuple(own) for own in seeds.values()}) > 1:
            said = "; ".join(f"{label} {', '.join(own)}" for label, own in seeds.items())
            yield (
                "The methods were not run with the same seeds, so scores side by side are not of "
                f"the same splits; a difference is of the seeds that both have. Seeds: {said}."
            )
    if study.unfinished:
        yield f"Not finished, and left out: {listed(list(study.unfinished))}."
    versions = {str(run.values["versions"]) for run in study.runs}
    if len(versions) > 1:
        yield "The runs were made with different versions of the software; see the end."


def _comparable(study: Study, arm: Arm) -> bool:
    seeds = {run.seed: run for run in study.main.runs}
    return all(
        same_cases(run, seeds[run.seed], site)
        for run in arm.runs
        if run.seed in seeds
        for site in study.sites
    )


def _size(study: Study) -> Iterator[str]:
    if all(len(arm.runs) == 1 for arm in study.arms):
        yield (
            "One random seed only: another seed, which draws other first weights and another order "
            "of the images, could give other numbers. The intervals do not include that."
        )
    first = study.main.first
    small = {site: first.patients_of(site, study.score).nunique() for site in study.sites}
    few = [f"{site} ({count})" for site, count in small.items() if count < FEW]
    if few:
        yield (
            f"Few test patients (or images, where patients are not known): {listed(few)}. Scores "
            "there can move a lot by chance."
        )
    if study.values["task"] == "classification" and (rare := _rare(study)):
        yield f"Few test images of some classes, on which macro-F1 leans heavily: {listed(rare)}."


def _means(study: Study) -> Iterator[str]:
    for metric in (study.score, *others(study)):
        there = study.averaged(metric)
        if left := [site for site in study.training_sites if site not in there]:
            how = "which its means leave out" if there else "so there is no mean of it"
            yield f"{named(metric)} is not defined in every run at {listed(left)}, {how}."


def _rare(study: Study) -> list[str]:
    """Hospitals with their classes of fewer than ten test images."""
    found = []
    for site in study.sites:
        counts = study.main.first.cases_of(site)["class"].value_counts()
        rare = [f"{count} {name}" for name, count in counts.items() if count < TOO_FEW]
        found += [f"{site} ({', '.join(rare)})"] if rare else []
    return found


def _models(study: Study) -> Iterator[str]:
    if study.values["task"] == "classification":
        blind = {
            arm.label: [site for site in study.sites if _always_the_same(arm, site)]
            for arm in study.arms
        }
        said = [f"{label} ({', '.join(sites)})" for label, sites in blind.items() if sites]
        if said:
            yield (
                "Models that call every test image of a hospital the same class tell nothing "
                f"apart there: {listed(said)}."
            )
    late = [
        arm.label
        for arm in study.arms
        if all(
            run.values["chosen_round"] == run.values["rounds"]
            and run.values.get("chosen_from", 1) < run.values["rounds"]
            for run in arm.runs
        )
    ]
    if late:
        yield (
            f"{listed(late)}: validation preferred the very last round, so longer training may "
            "well give more."
        )
    batch = [arm.label for arm in study.arms if arm.first.values["statistics"] == "batch"]
    if batch:
        yield (
            f"{listed(batch)}: normalised by the images that are shown together (batch "
            "statistics), so that a single image's answer depends on its neighbours."
        )
    # a network without batch norm has no statistics, whatever the setting says
    averaged = [
        arm.label
        for arm in study.arms
        if arm.kind == "common"
        and arm.first.values["statistics"] == "averaged"
        and arm.first.payloads["name"].str.startswith("statistics.").any()
    ]
    if averaged and not any(a.first.values["statistics"] == "recalibrated" for a in study.arms):
        yield (
            f"{listed(averaged)}: batch norm's statistics were averaged as well, which alone can "
            "cost a common model much. Compare with `fedavg --statistics recalibrated`."
        )


def _always_the_same(arm: Arm, site: str) -> bool:
    tables = [run.cases_of(site) for run in arm.runs]
    return all(t["predicted"].nunique() == 1 and t["class"].nunique() > 1 for t in tables)
