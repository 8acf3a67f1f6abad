"""The table of families: which golden files are understood, and what checks them.

A new family is one row and one function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.parity.audio_features import check_audio_features, is_audio_features
from tests.parity.backbones import check_backbone, is_backbone
from tests.parity.collaborative_memory import check_end_to_end, check_memory_block
from tests.parity.corrnet import check_corrnet, is_corrnet
from tests.parity.golden import CPU, Golden, NotUnderstood, Outcome, load_golden
from tests.parity.memvit import check_memvit, is_memvit
from tests.parity.memvit_rules import check_memvit_rules, is_memvit_rules
from tests.parity.metrics import (
    check_ava,
    check_charades,
    check_coco,
    check_epic,
    check_posetrack,
    check_views,
    companions,
    is_ava,
    is_charades,
    is_coco,
    is_epic,
    is_posetrack,
    is_views,
)
from tests.parity.torchvision_models import check_torchvision_model, is_torchvision_layout

__all__ = ["FAMILIES", "Line", "check_file", "golden_files"]


@dataclass(frozen=True)
class Family:
    """`claims` says from the meta alone whether a file belongs here; `check` builds, runs and compares.

    `anywhere`: it does so on `golden.device`; others are of the CPU alone.
    """

    claims: Callable[[Golden], bool]
    check: Callable[[Golden], Outcome]
    anywhere: bool = False


FAMILIES: dict[str, Family] = {
    "memory_block": Family(lambda golden: golden.meta.get("kind") == "memory_block", check_memory_block),
    "end_to_end": Family(lambda golden: golden.meta.get("kind") == "end_to_end", check_end_to_end),
    "audio_features": Family(is_audio_features, check_audio_features),
    "ava": Family(is_ava, check_ava),
    "epic": Family(is_epic, check_epic),
    "charades": Family(is_charades, check_charades),
    "views": Family(is_views, check_views),
    "posetrack": Family(is_posetrack, check_posetrack),
    "coco": Family(is_coco, check_coco),
    "backbones": Family(is_backbone, check_backbone, anywhere=True),
    "corrnet": Family(is_corrnet, check_corrnet, anywhere=True),
    "memvit": Family(is_memvit, check_memvit),
    "memvit_rules": Family(is_memvit_rules, check_memvit_rules),
    "torchvision": Family(is_torchvision_layout, check_torchvision_model, anywhere=True),
}


@dataclass(frozen=True)
class Line:
    """What is said about one file: `status` is `pass`, `FAIL` or `skip`."""

    status: str
    text: str


def golden_files(directory: Path) -> list[Path]:
    """All golden files of a directory tree, sorted; not those that only go with another one."""
    paths = [path for path in directory.rglob("*") if path.suffix in (".npz", ".json") and path.is_file()]
    return sorted(set(paths) - companions(paths))


def check_file(path: Path, device: torch.device = CPU) -> Line:
    """Build what a file asks for and compare; whatever goes wrong becomes a line, so that a walk goes on."""
    try:
        golden = load_golden(path, device)
        family = next((family for family in FAMILIES.values() if family.claims(golden)), None)
        if family is None:
            raise NotUnderstood(_no_builder(golden))
        if device.type != "cpu" and not family.anywhere:
            raise NotUnderstood("compared on the CPU alone")
        outcome = family.check(golden)
    except NotUnderstood as reason:
        return Line("skip", f"({reason})")
    except Exception as error:
        message = " ".join(str(error).split())
        return Line("FAIL", f"({type(error).__name__}: {message})")
    return _line(outcome)


def _no_builder(golden: Golden) -> str:
    for field in ("layout", "kind"):
        if golden.meta.get(field) is not None:
            return f"no builder for {field} {str(golden.meta[field])[:80]!r}"
    return f"no builder for group {golden.group!r}"


def _line(outcome: Outcome) -> Line:
    rest = f"; not compared: {', '.join(outcome.not_compared)}" if outcome.not_compared else ""
    failed = [comparison for comparison in outcome.comparisons if not comparison.passed]
    if failed:
        # The first, not the worst: intermediates come in the order of the network, so it names the faulty stage.
        worst = failed[0]
        also = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        return Line("FAIL", f"{worst.name}: error {worst.error:.2e}, tolerance {worst.tolerance:.0e}{also}{rest}")
    if not outcome.comparisons:
        return Line("FAIL", f"(nothing to compare{rest})")
    worst = max(outcome.comparisons, key=lambda comparison: comparison.error / (comparison.tolerance or 1.0))
    count = len(outcome.comparisons)
    return Line(
        "pass", f"{count} arrays, largest error {worst.error:.2e} ({worst.name}, tolerance {worst.tolerance:.0e}){rest}"
    )
