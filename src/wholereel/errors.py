"""Errors that a user can act on: what file, what was found, what was expected, what to do.

Every error that leaves the library because of data, configuration or environment is one of these, and the command line
prints them without a traceback. Faults of the calling program raise `ValueError` or `TypeError` with names and numbers
instead.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

__all__ = [
    "WholereelError",
    "DataError",
    "VideoError",
    "CheckpointError",
    "ConfigError",
    "DeviceError",
    "MissingExtraError",
    "closest",
    "counted",
    "import_extra",
]


class WholereelError(Exception):
    """Base of all errors that are meant for the user; `str(error)` is the whole message."""


class DataError(WholereelError):
    """Something on disk is not as expected.

    Args:
        file: the file (or folder) concerned; printed first.
        found: what is there, as a fact ("no video stream").
        expected: what would have been right; may be empty where `found` says it all.
        remedy: what the user can do now.
    """

    def __init__(self, file: str | Path, found: str, expected: str = "", remedy: str = "") -> None:
        self.file, self.found, self.expected, self.remedy = str(file), found, expected, remedy
        parts = [f"{self.file}: {found}"]
        if expected:
            parts.append(f"expected {expected}")
        message = ", ".join(parts) + "."
        super().__init__(f"{message} {remedy}" if remedy else message)

    def __reduce__(self) -> tuple[type[DataError], tuple[str, str, str, str]]:
        return type(self), (self.file, self.found, self.expected, self.remedy)


class VideoError(DataError):
    """A media file that cannot be read as asked."""


class CheckpointError(DataError):
    """A weight or checkpoint file that does not fit what it is loaded into."""


class ConfigError(WholereelError, ValueError):
    """A setting (name, type or value) that cannot be used; says what would be legal."""


class DeviceError(WholereelError):
    """A device that this process asks for and does not get; other processes may have theirs."""


class MissingExtraError(WholereelError, ImportError):
    """An optional dependency is needed and not installed; names the extra to install."""


def closest(word: str, names: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the most similar name, or an empty string; goes behind an error's first sentence."""
    matches = difflib.get_close_matches(word, list(names), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def counted(number: int, one: str, several: str) -> str:
    """`"1 class"`, `"2 classes"`."""
    return f"{number} {one if number == 1 else several}"


def import_extra(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it.

    Args:
        module: dotted module name, e.g. `"matplotlib.pyplot"`.
        extra: name of the extra in `pyproject.toml`.
        purpose: what needs it, as the subject of a sentence ("writing TensorBoard logs").
    Raises: MissingExtraError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs the package {module.split('.')[0]!r}, which is not installed. "
            f"Install it with: pip install 'wholereel[{extra}]'"
        ) from error
