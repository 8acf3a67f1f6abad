"""Key layouts of published weights: one renaming a layout, read in both directions.

A layout turns *our* parameter names into those of a public code base. Its inverse follows from a model's own names, so
nothing is renamed that the model does not have, and both directions are the same table.
Settings that the shapes of a network don't show (epsilon, strides, affinities) belong to a layout where all networks
published in it have them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["OWN", "ImageTrunk", "Layout", "rename", "rename_norms", "renaming"]


@dataclass(frozen=True)
class Layout:
    """The parameter names of a public code base.

    Args:
        name: as in `wholereel convert --to`.
        key: our name -> theirs; different names stay different.
        settings: settings that keys and shapes don't show, where all networks in this layout agree.
        written: what else its files do to tensors, under our names: join them, split them, drop axes of one.
        licence: of the weights published in it.
    """

    name: str
    key: Callable[[str], str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    written: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict
    licence: str = ""


OWN = Layout("wholereel", lambda key: key)


@dataclass(frozen=True)
class ImageTrunk:
    """A part of a network that is an image network, kernel for kernel, but for time.

    Args:
        layout: our names of this part -> the image network's.
        within: what our names of this part begin with.
        wider: ends of names of weights that read further channels behind those of the image network.
    """

    layout: Layout
    within: tuple[str, ...] = ("",)
    wider: tuple[str, ...] = ()

    def holds(self, key: str) -> bool:
        """Whether one of our names is of this part; inserted blocks are of no image network."""
        return key.startswith(self.within) and ".inserted." not in key


def renaming(*rules: tuple[str, str]) -> Callable[[str], str]:
    """A function that applies regular-expression substitutions one after the other."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def key(name: str) -> str:
        for pattern, replacement in compiled:
            name = pattern.sub(replacement, name)
        return name

    return key


def rename_norms(key: str) -> str:
    """Ends of names as in Caffe2: `_s`, `_b`, `_rm`, `_riv` of a norm (`_bn`, `spatbn...`), else `_w`, `_b`."""
    for ours, theirs in (("weight", "s"), ("bias", "b"), ("running_mean", "rm"), ("running_var", "riv")):
        key = re.sub(rf"(_bn|spatbn\w*)\.{ours}$", rf"\1_{theirs}", key)
    return re.sub(r"\.weight$", "_w", re.sub(r"\.bias$", "_b", key))


def rename(keys: Iterable[str], layout: Layout) -> dict[str, str]:
    """Their name -> ours, for all of `keys`.

    Raises: ValueError: two of our names become the same.
    """
    renamed: dict[str, str] = {}
    for key in keys:
        theirs = layout.key(key)
        if theirs in renamed:
            raise ValueError(f"layout {layout.name}: {key} and {renamed[theirs]} both become {theirs}")
        renamed[theirs] = key
    return renamed
