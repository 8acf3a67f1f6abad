"""The part of a bank of features that clips of a video may read: entries around each clip's middle.

Extra axes: M entries, E numbers of an entry. The axis `2` is begin and end.
Not here: what is made of them (`layers/feature_bank.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wholereel.batches import Bank
from wholereel.config import BankWindow
from wholereel.datasets.feature_shards import FeatureShards
from wholereel.errors import ConfigError, DataError

__all__ = ["BankWindows", "Window", "batched_bank"]

Window = tuple[Tensor, Tensor]
"""entries_ME float32, and inside_NM bool: which of them clip n may read."""
SLACK = 1e-6  # seconds


class BankWindows:
    """Looks up entries by sample and time.

    Args:
        bank: where the shards are, and how long a window is.
    Raises: ConfigError: a window that cannot be. DataError: no complete shards with features.
    """

    def __init__(self, bank: BankWindow) -> None:
        if not bank.seconds > 0:
            raise ConfigError(f"bank.seconds must be positive, got {bank.seconds}")
        self.shards, self.half = FeatureShards(bank.root), bank.seconds / 2
        if "features" not in self.shards.settings.get("what", ()):
            raise DataError(bank.root, "has no features", "shards with them", "Extract with what=features for a bank.")

    def read(self, id_: str, middles_N: Tensor) -> Window:
        """All entries whose middle lies in the window of some clip.

        Args:
            id_: of the sample. middles_N: float64, seconds.
        Raises: DataError: no such sample.
        """
        entries_M = self.shards.seconds(id_).mean(1)
        inside_NM = (entries_M - middles_N[:, None]).abs() <= self.half + SLACK
        places = inside_NM.any(0).nonzero().flatten()
        part = slice(0, 0) if len(places) == 0 else slice(int(places[0]), int(places[-1]) + 1)
        return self.shards.read(id_, part).clips["features"], inside_NM[:, part]


def batched_bank(windows: Sequence[Window], clips: int) -> Bank:
    """Windows of several videos, padded to the largest; clips that only pad read what the last one reads."""
    entries = max(max((len(own) for own, _ in windows), default=0), 1)
    width = windows[0][0].shape[1]
    entries_BME = torch.zeros(len(windows), entries, width)
    inside_BNM = torch.zeros(len(windows), clips, entries, dtype=torch.bool)
    for row, (own_ME, inside_NM) in enumerate(windows):
        entries_BME[row, : len(own_ME)] = own_ME
        inside_BNM[row, : len(inside_NM), : len(own_ME)] = inside_NM
        inside_BNM[row, len(inside_NM) :, : len(own_ME)] = inside_NM[-1:]
    return Bank(entries_BME, inside_BNM)
