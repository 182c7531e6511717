"""What most commands open first: the registry and the store that the settings name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.settings import load_settings
from tasks.site import Site


@contextmanager
def open_site(settings_file: Path | None) -> Iterator[Site]:
    """Open the site of a settings file, and close it at the end; its registry must be at the newest revision.

    Raises
    ------
    SettingsError
    RegistryOutdated
        ``musecal db upgrade`` has to be run first.
    """
    site = Site.of(load_settings(settings_file))
    try:
        site.registry.check()
        yield site
    finally:
        site.registry.close()
