"""A site's own data, read and decoded at the site for a run that others take part in."""

import counterpoint.data as readers
from counterpoint.data.site import SiteData
from counterpoint.errors import DataError
from counterpoint.remote.plan import Plan
from counterpoint.remote.site_file import SiteFile


def own_data(own: SiteFile, plan: Plan, site: str) -> tuple[SiteData, str]:
    """The decoded site with its fingerprint.

    Raises:
        DataError: if the data can't be used, or their classes are not the plan's.
        SettingsError: if there is no such site in them.
    """
    if own.data is None:
        raise DataError("the site's settings file names no data")
    settings, cache = plan.settings, own.private_cache()
    limit = settings.data.train_limit
    federation = readers.load(
        own.data,
        own.root,
        protocol=own.protocol,
        seed=next(
            seed for seed in (own.seed, settings.data.split_seed, settings.seed) if seed is not None
        ),
        sites=[site],
        classes=None if own.data in readers.datasets() else plan.classes,
        train_limit=own.train_limit or (limit if isinstance(limit, int) else None),
        task=settings.data.task,
        volumes=plan.form.volumes,
        neighbours=plan.form.neighbours,
        window=plan.form.window,
        skip_bad=own.skip_bad,
        fewest=1,
        cache=cache,
    )
    if federation.classes != plan.classes:
        raise DataError(
            f"the data have the classes {', '.join(federation.classes)}; "
            f"the run has {', '.join(plan.classes)}"
        )
    size = settings.method.schedule.image_size
    federation, (decoded,) = readers.decode(federation, size, cache, skip_bad=own.skip_bad)
    return decoded, federation.fingerprint
