"""Imports that register models, products and metrics: of geo_seg's own modules, and of the user's."""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from geo_seg.errors import ConfigError, first_line


def import_modules(package: ModuleType) -> None:
    """Import the modules of a package of geo_seg."""
    for module in iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")


def import_own_module(module: str | None) -> None:
    """Import a module of the user's; None for none.

    Args:
        module: dotted name from the user's own configuration or command line; never from a checkpoint, whose
            author would choose what is run.

    Raises:
        ConfigError: it can't be imported.
    """
    if module is not None:
        try:
            import_module(module)
        except Exception as error:  # the user's code may raise anything
            raise ConfigError(f"the module {module} can't be imported: {first_line(error)}") from error
