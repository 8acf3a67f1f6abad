"""What a run writes as it goes: `metrics.jsonl`, `faults.tsv`, TensorBoard if asked, a live line in the terminal."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from wholereel.batches import Fault
from wholereel.errors import import_extra

__all__ = ["Display", "LineFile", "RunLog", "format_seconds"]


class LineFile:
    """A text file that only grows, and can be cut back to a size that a checkpoint remembers.

    Args:
        path: appended to. size: bytes that are kept of what is there; `None` = all.
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        self.path = path
        if size is not None and path.exists() and path.stat().st_size > size:
            os.truncate(path, size)

    def append(self, line: str) -> None:
        """Add one line; opened each time, so that nothing is left in a buffer when the process is killed."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0


class RunLog:
    """Records of one process of a run; only the first process writes metrics, each writes its own faults.

    Args:
        directory: of the run.
        rank: of this process.
        tensorboard: also write event files (extra `tensorboard`).
        sizes: what an earlier checkpoint said of the files, see `sizes`; `None` = a new run.
    Raises: MissingExtraError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self, directory: Path, *, rank: int, tensorboard: bool = False, sizes: Mapping[str, int] | None = None
    ) -> None:
        sizes = sizes or {}
        self.first = rank == 0
        self.metrics = LineFile(directory / "metrics.jsonl", sizes.get("metrics")) if self.first else None
        name = _faults_name(rank)
        self.faults = LineFile(directory / f"{name}.tsv", sizes.get(name))
        self.writer: Any = None
        if tensorboard and self.first:
            import_extra("tensorboard", extra="tensorboard", purpose="Writing TensorBoard logs")
            module = import_extra("torch.utils.tensorboard", extra="tensorboard", purpose="Writing TensorBoard logs")
            self.writer = module.SummaryWriter(str(directory / "tensorboard"), purge_step=sizes.get("updates"))

    def write(self, kind: str, *, update: int, **values: object) -> None:
        """One record; numbers also go to TensorBoard as `kind/name`. NaN becomes null, which JSON has."""
        if self.metrics is None:
            return
        record = {"kind": kind, "update": update, **_jsonable(values)}
        self.metrics.append(json.dumps(record))
        if self.writer is not None:
            for name, value in _scalars(values):
                self.writer.add_scalar(f"{kind}/{name}", value, update)

    def fault(self, epoch: int, step: int, faults: Iterable[Fault]) -> None:
        """List samples that could not be read, or not to their end; epoch and step count from 1, as in the metrics."""
        for fault in faults:
            if self.faults.size == 0:
                self.faults.append("epoch\tstep\tid\tpath\treason\treplaced_by")
            fields = [str(epoch), str(step), fault.id, fault.path, fault.reason, fault.replaced_by or ""]
            self.faults.append("\t".join(" ".join(field.split()) for field in fields))

    def sizes(self, updates: int, faults: Sequence[int]) -> dict[str, int]:
        """For the checkpoint: what is in the files now, so that a resumed run writes no record twice.

        Args:
            updates: made so far. faults: each rank's `faults.size`.
        """
        metrics = 0 if self.metrics is None else self.metrics.size
        return {"metrics": metrics, "updates": updates, **{_faults_name(i): size for i, size in enumerate(faults)}}

    def close(self) -> None:
        """Finish TensorBoard's file."""
        if self.writer is not None:
            self.writer.close()


class Display:
    """Progress for a person: one line that is rewritten on a terminal, a plain line now and then elsewhere.

    Args:
        stream: where to write; `None` = be silent.
        every: seconds between plain lines.
    """

    def __init__(self, stream: TextIO | None, *, every: float = 30.0) -> None:
        self.stream, self.every = stream, every
        self.live = stream is not None and stream.isatty()
        self.last = -math.inf

    def progress(self, text: str) -> None:
        """Show where the run is; may be dropped."""
        if self.stream is None:
            return
        if self.live:
            self.stream.write(f"\r\x1b[2K{text}")
            self.stream.flush()
        elif time.monotonic() - self.last >= self.every:
            self.line(text)
            self.last = time.monotonic()

    def line(self, text: str) -> None:
        """Write something that stays."""
        if self.stream is None:
            return
        self.stream.write(f"\r\x1b[2K{text}\n" if self.live else f"{text}\n")
        self.stream.flush()


def format_seconds(seconds: float) -> str:
    """`75` is `1:15`, `4000` is `1:06:40`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _faults_name(rank: int) -> str:
    return f"faults.{rank}" if rank else "faults"


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _scalars(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            yield f"{prefix}{name}", float(value)
