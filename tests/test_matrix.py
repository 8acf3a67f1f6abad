"""Every architecture with every memory and every task makes one step; `docs/matrix.md` says which do, and why others
do not.

    python -m tests.test_matrix        writes the page anew
"""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tasks.detections import key_batch
from wholereel import config
from wholereel.batches import ClipBatch, Losses, StreamBatch, Target
from wholereel.errors import ConfigError
from wholereel.models import list_models
from wholereel.models.package import build_model
from wholereel.models.registry import MODELS
from wholereel.tasks.create import STREAM_TASKS, TASKS
from wholereel.training.norms import set_training_mode
from wholereel.training.strategies import create_strategy

PAGE = Path(__file__).parents[1] / "docs" / "matrix.md"
CLASSES = 3
MEMORIES = {"plain": None, "collaborative": config.Memory(dim=4, value="separate"), "cached": None}
TASK_NAMES = (*TASKS, *STREAM_TASKS)
# Of each architecture the one that is tried by default, narrow, and the names of all; they differ in depth and sizes.
ARCHITECTURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ResNets with 3-D and factorised convolutions": (
        "r2plus1d_18",
        ("mc?_18", "rmc?_18", "r3d_*", "r2plus1d_*", "resnet3d_*"),
    ),
    "ResNets of pytorchvideo": ("r2plus1d_ptv_26", ("r2d_ptv_*", "r2plus1d_ptv_*")),
    "CSN": ("ir_csn_26", ("i?_csn_*",)),
    "CorrNet": ("corrnet_26", ("corrnet_*",)),
    "Slow, C2D, I3D (non-local)": ("i3d_nl_50", ("slow_*", "c2d_*", "i3d_*")),
    "SlowFast (non-local)": ("slowfast_nl_4x16_50", ("slowfast_*",)),
    "MViT": ("mvit_tiny", ("mvit*",)),
    "MeMViT": ("memvit_tiny", ("memvit_*",)),
    "tiny": ("tiny2d", ("tiny2d", "tiny_r2d")),
    "tiny with maxima": ("tiny2d_peak", ("tiny2d_peak",)),
    "tiny 3-D": ("tiny_r3d", ("tiny_r3d", "tiny_r2plus1d")),
    "tiny with correlation": ("tiny_corrnet", ("tiny_corrnet",)),
}
SHOWN = {title: shown for title, (shown, _) in ARCHITECTURES.items()}
REASONS = {
    "own": "has a memory of its own, which is cached and causal: tasks `stream` and `stream_detect`",
    "none": "caches nothing, and detects in windows: task `detect`",
}


def row_of(name: str) -> str:
    """The architecture that a model belongs to."""
    rows = [title for title, (_, patterns) in ARCHITECTURES.items() if any(fnmatch(name, one) for one in patterns)]
    special = [title for title in rows if title == "ResNets of pytorchvideo"]
    assert rows, f"{name} belongs to no row: add one to ARCHITECTURES"
    return (special or rows)[0]


def expected(name: str, memory: str, task: str) -> str:
    """What the page says: "yes", or a key of REASONS."""
    own = MODELS[name].kind == "memory"
    if (memory == "cached") != own or (task == "stream_detect" and not own):
        return "own" if own else "none"
    return "yes" if not own or task in STREAM_TASKS else "own"


def spec(name: str, memory: str, task: str) -> config.Model:
    options: dict[str, Any] = {}
    for option, value in {"width": 8, "frames": 2 if name.startswith("memvit") else 8, "crop": 32}.items():
        if option in inspect.signature(MODELS[name].build).parameters:
            options[option] = value
    if "width" in options and not name.startswith("tiny"):
        options["width"] = 16
    if task == "stream_detect" and MODELS[name].kind == "memory":
        options["boxes"] = True
    boxes = config.BoxHead() if task == "detect" else None
    return config.Model(name, options=options, memory=MEMORIES[memory], boxes=boxes)


def step(name: str, memory: str, task: str) -> Losses:
    """One optimiser step's gradient: clip by clip where there is a collaborative memory."""
    model = build_model(spec(name, memory, task), CLASSES)
    frames = 2 if name.startswith("memvit") else 8
    generator = torch.Generator().manual_seed(0)

    def pixels(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, (*shape, frames, 3, 32, 32), generator=generator, dtype=torch.uint8)

    if task in STREAM_TASKS:
        settings = config.Task(multi_label=task == "stream_detect")
        learner = STREAM_TASKS[task](model, settings, {"label": ("a", "b", "c")})
        boxes = key_batch(1, 1).target.boxes if task == "stream_detect" else None
        batch = StreamBatch(
            clip_BTCHW=pixels(1),
            valid_B=torch.ones(1, dtype=torch.bool),
            starts_B=torch.ones(1, dtype=torch.bool),
            seconds_B2=torch.zeros(1, 2, dtype=torch.float64),
            target=Target({"label": torch.tensor([1])}, boxes),
            ids=("a",),
        )
        set_training_mode(learner, "frozen")  # maps may have one position, of which there are no statistics
        strategy: Any = create_strategy(config.Strategy("sequential"), nullcontext)
        losses, _ = strategy.backward(learner, batch, Losses.total, lambda: None, None)
    else:
        videos = ClipBatch(
            clips_BNTCHW=pixels(1, 2),
            seconds_BNT=torch.zeros(1, 2, frames, dtype=torch.float64),
            valid_BN=torch.ones(1, 2, dtype=torch.bool),
            target=Target({"label": torch.tensor([1])}),
            ids=("a",),
        )
        if task == "detect":
            boxes = key_batch(1, 2).target.boxes
            videos = ClipBatch(**{**vars(videos), "target": Target({"label": torch.zeros(1, CLASSES)}, boxes)})
        learner = TASKS[task](model, config.Task(multi_label=task == "detect"), CLASSES)
        set_training_mode(learner, "frozen")
        strategy = create_strategy(config.Strategy("full" if memory == "plain" else "exact"), nullcontext)
        losses, _ = strategy.backward(learner, videos, Losses.total, lambda: None)
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)
    if memory == "collaborative":
        assert all(p.grad is not None for p in model.memories.parameters())
    return losses


@pytest.mark.parametrize("task", TASK_NAMES)
@pytest.mark.parametrize("name", SHOWN.values())
def test_one_step(name: str, task: str) -> None:
    for memory in MEMORIES:
        says = expected(name, memory, task)
        if says == "yes":
            assert step(name, memory, task).total().isfinite()
        elif says == "own" and not (memory == "plain" and task in STREAM_TASKS):  # that is the cached one
            with pytest.raises((ConfigError, ValueError, TypeError, AttributeError)):
                step(name, memory, task)


@pytest.mark.effects
@pytest.mark.parametrize("name", sorted(set(MODELS) - set(SHOWN.values())))
def test_one_step_of_the_others(name: str) -> None:
    if name in ("memvit_16", "memvit_24", "mvitv1_b", "mvitv2_b", "mvitv2_l", "mvitv2_s"):
        pytest.skip("has no narrow form; its architecture is that of the tiny one")
    for memory in MEMORIES:
        for task in TASK_NAMES:
            if expected(name, memory, task) == "yes":
                assert step(name, memory, task).total().isfinite()


def page() -> str:
    """`docs/matrix.md`."""
    rows: dict[str, list[str]] = {title: [] for title in SHOWN}
    for name in [*list_models(kind="clip"), *list_models(kind="tokens"), *list_models(kind="memory")]:
        rows[row_of(name)].append(name)
    columns = [(memory, task) for memory in MEMORIES for task in TASK_NAMES]
    lines = [
        "# What goes with what",
        "",
        "<!-- written by `python -m tests.test_matrix`; a test fails where it is stale -->",
        "",
        "Every architecture with every memory and every task, each tried by a test with one step on a tiny batch:",
        "without memory with strategy `full`, with collaborative memory with `exact` (tasks of streams: `sequential`).",
        "",
        "| architecture | " + " | ".join(f"{memory}, `{task}`" for memory, task in columns) + " |",
        "| --- " * (len(columns) + 1) + "|",
    ]
    for title, shown in SHOWN.items():
        cells = [expected(shown, memory, task) for memory, task in columns]
        lines.append(f"| {title} | " + " | ".join("yes" if cell == "yes" else "–" for cell in cells) + " |")
    lines += [
        "",
        "“–”: MeMViT " + REASONS["own"] + "; every other architecture " + REASONS["none"] + ".",
        "",
        "| architecture | models |",
        "| --- | --- |",
        *(f"| {title} | {', '.join(f'`{name}`' for name in names)} |" for title, names in rows.items()),
        "",
    ]
    return "\n".join(lines)


def test_the_page_is_not_stale() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "stale: run `python -m tests.test_matrix`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
