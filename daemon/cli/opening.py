"""What most commands open first: the registry and the store that the settings name."""

from pathlib import Path

from tasks.settings import load_settings
from tasks.site import Site


def open_site(settings_file: Path | None) -> Site:
    """Open the site of a settings file; its registry must be at the newest revision.

    Raises
    ------
    SettingsError
    RegistryOutdated
        ``musecal db upgrade`` has to be run first.
    """
    site = Site.of(load_settings(settings_file))
    site.registry.check()
    return site
