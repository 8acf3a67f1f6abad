"""Measure a trained model on a data set under a named protocol (views as in facebookresearch/SlowFast).

That a memory belongs to the clips of one crop or to all views is our choice. Extra axes: V views (clips x crops), K
classes. Runs in one process or in all processes of a process group: each evaluates a disjoint part, then all hold the
same results, and the first one writes them.
Not here: how views are read and judged (`inference/`), the numbers and files (`results.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wholereel.batches import Bank, Fault
from wholereel.config import Data, Views
from wholereel.datasets.bank_windows import BankWindows
from wholereel.datasets.frame_cache import FrameCache
from wholereel.datasets.manifest import Manifest, Sample
from wholereel.datasets.prepare import prepared_as
from wholereel.errors import ConfigError, DataError
from wholereel.evaluation.class_places import class_places
from wholereel.evaluation.gather import gather
from wholereel.evaluation.loading import ViewBatch, batches, shard
from wholereel.evaluation.protocol import Parts, describe
from wholereel.evaluation.results import Results, VideoRecord, summarise, write_results
from wholereel.inference.predictor import combine_views, find_package, precision_context
from wholereel.inference.scoring import ClipChunk, from_rows, score_clips, to_rows
from wholereel.inference.views import check_views
from wholereel.media.model_input import to_model_input
from wholereel.models.package import Package, load_package

__all__ = ["eval_mode", "evaluate"]

RESIDENT_VIEWS = 64  # views that go through the network together; bounds memory, does not change results


def evaluate(
    package: Package | str | Path,
    manifest: Manifest,
    views: Views,
    *,
    data: Data | None = None,
    batch: int = 8,
    workers: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: torch.device | str | None = None,
    cache_dir: str | Path | None = None,
    out: str | Path | None = None,
) -> Results:
    """Evaluate every sample of the manifest; what cannot be read is listed and left out, never replaced.

    Args:
        package: loaded, or the folder of a model package or run.
        manifest: the samples (of one split).
        views: the protocol.
        data: `labels` (the first label column counts), `limit`, `workers`, and `split` for the record.
        batch: videos decoded and judged together. workers: decoding processes; `None` = as in `data`.
        precision: "bf16" runs the clip model under autocast.
        device: `None` = this process's GPU where there is one, else the CPU.
        cache_dir: folder of decoded frames, used where `data.cache` is set, to evaluate again and again in training;
            files that are cut off are not recognised through it.
        out: folder for `results.json`, `predictions.jsonl`, `per_class.csv`, `confusion.csv`; `None` = no files.
    Returns: the same on every rank.
    Raises: ConfigError: a protocol that does not fit. DataError: labels or classes that do not fit the model, or no
        sample that can be read.
    """
    check_views(views)
    data = data or Data(root=None, split=None)
    package = package if isinstance(package, Package) else load_package(find_package(package))
    if (data.bank is None) != (package.spec.bank is None):
        raise ConfigError(
            f"model {package.spec.name!r} reads a bank of features of each video and needs data.bank"
            if data.bank is None
            else f"data.bank is set, but model {package.spec.name!r} reads no bank"
        )
    samples = manifest.samples[: data.limit]
    if not samples:
        raise DataError(manifest.root, "has no samples to evaluate", "at least one")
    targets = _targets(samples, manifest, data.labels[0], package)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    cache = FrameCache(Path(cache_dir), views.short_side) if data.cache and cache_dir is not None else None
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    records: list[VideoRecord] = []
    faults: list[Fault] = []
    with eval_mode(package.model.to(device)):
        for one in batches(
            samples,
            shard(len(samples), rank, world_size),
            views,
            batch=batch,
            workers=data.workers if workers is None else workers,
            cache=cache,
            pin_memory=device.type == "cuda",
            bank=None if data.bank is None else BankWindows(data.bank),
        ):
            faults.extend(one.faults)
            if one.indices:
                with precision_context(precision, device):
                    records.extend(_judge(package, one, views, samples, targets, device))
    records = [record for part in gather(records) for record in part]
    faults = [fault for part in gather(faults) for fault in part]
    if not records:
        raise DataError(manifest.root, f"none of {len(samples)} videos could be read; the first: {faults[0].reason}")
    protocol = describe(
        views,
        model=package.spec,
        task=package.task,
        classes=len(package.classes),
        samples=len(samples),
        split=data.split,
        precision=precision,
        parts=_parts(samples),
        source=prepared_as(manifest.root),
    )
    multi_label = package.task.multi_label
    results = summarise(records, faults, classes=package.classes, multi_label=multi_label, protocol=protocol)
    if out is not None and rank == 0:
        write_results(results, Path(out))
    return results


def _parts(samples: Sequence[Sample]) -> Parts:
    """What the samples are of their videos."""
    if samples[0].key_seconds is not None:
        return "key_frames"
    return "padded" if any("left_pad" in sample.meta for sample in samples) else "plain"


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while; a model in training gets back the mode of each of its modules."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _judge(
    package: Package,
    one: ViewBatch,
    views: Views,
    samples: Sequence[Sample],
    targets: Sequence[tuple[int, ...]],
    device: torch.device,
) -> list[VideoRecord]:
    valid_BV = one.valid_BV.to(device)
    pixels_BV = one.views_BVTCHW.to(device, non_blocking=True)
    bank = _rows_of_bank(None if one.bank is None else one.bank.to(device), views)
    logits = score_clips(package.video_model, lambda: _chunks(package, pixels_BV, valid_BV, views, bank), alone=True)
    if logits.alone_RNK is None:
        raise RuntimeError("score_clips left out the clips alone")
    shared_BVK, alone_BVK = (
        from_rows(rows, views.crops, memory_over=views.memory_over).float().cpu()
        for rows in (logits.shared_RNK, logits.alone_RNK)
    )
    scores_BK = combine_views(shared_BVK, one.valid_BV, views, package)
    wanted = torch.tensor([targets[index][0] if len(targets[index]) == 1 else -1 for index in one.indices])
    wanted = torch.full_like(wanted, -1) if package.task.multi_label else wanted
    right = [_right_B(part, wanted, one.valid_BV) for part in (shared_BVK, alone_BVK)]
    return [
        VideoRecord(
            index=index,
            id=samples[index].id,
            target=targets[index],
            scores=tuple(scores_BK[row].tolist()),
            views=int(one.valid_BV[row].sum()),
            shared_right=int(right[0][row]),
            alone_right=int(right[1][row]),
            truncated=one.truncated[row],
        )
        for row, index in enumerate(one.indices)
    ]


def _right_B(logits_BVK: Tensor, target_B: Tensor, valid_BV: Tensor) -> Tensor:
    """Number of valid views of each video whose best class is right (of equal logits the first class is best)."""
    finite_BV = logits_BVK.isfinite().all(-1)
    called_BV = logits_BVK.argsort(dim=-1, descending=True, stable=True)[..., 0]
    return ((called_BV == target_B[:, None]) & valid_BV & finite_BV).sum(1)


def _rows_of_bank(bank: Bank | None, views: Views) -> Bank | None:
    """The bank of each row: crops of a clip read the same."""
    if bank is None or views.crops == 1:
        return bank
    inside_BVM = bank.inside_BNM.repeat_interleave(views.crops, dim=1)
    if views.memory_over == "all":
        return Bank(bank.entries_BME, inside_BVM)
    inside_RNM = to_rows(inside_BVM, views.crops, memory_over=views.memory_over)
    return Bank(bank.entries_BME.repeat_interleave(views.crops, dim=0), inside_RNM)


def _chunks(
    package: Package, pixels_BV: Tensor, valid_BV: Tensor, views: Views, bank: Bank | None
) -> Iterator[ClipChunk]:
    crops = views.crops
    order_BV = torch.arange(pixels_BV.shape[1], device=pixels_BV.device).div(crops, rounding_mode="floor")
    order_BV = order_BV.expand(len(pixels_BV), -1)
    rows, valid, order = (
        to_rows(part, crops, memory_over=views.memory_over) for part in (pixels_BV, valid_BV, order_BV)
    )
    step = max(1, RESIDENT_VIEWS // len(rows))
    for begin in range(0, rows.shape[1], step):
        part = slice(begin, begin + step)
        of_part = None if bank is None else bank.of_clips(part)
        clips = to_model_input(rows[:, part], mean=package.mean, std=package.std)
        yield ClipChunk(clips, valid[:, part], order[:, part], of_part)


def _targets(samples: Sequence[Sample], manifest: Manifest, label: str, package: Package) -> list[tuple[int, ...]]:
    """The samples' classes as indices into the model's classes."""
    places = class_places(manifest, label, package.classes)
    if package.task.kind != "classify":
        raise ConfigError(
            f"evaluate measures tasks of kind 'classify'; this package was trained for {package.task.kind!r}"
        )
    return [_target(sample, label, places, package.task.multi_label) for sample in samples]


def _target(sample: Sample, label: str, places: Sequence[int], multi_label: bool) -> tuple[int, ...]:
    found = sample.labels.get(label)
    indices = found if isinstance(found, tuple) else () if found is None else (found,)
    if not multi_label and len(indices) != 1:
        raise DataError(
            sample.path,
            f"{len(indices)} labels in column {label!r}",
            "exactly one",
            "The model knows one label a video.",
        )
    return tuple(places[index] for index in indices)
