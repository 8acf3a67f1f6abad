"""Colour, then noise: what only a memory can know, and how far a truncated gradient teaches it to look.

In step 0 of a video an 18 x 18 square of one of four colours lies somewhere in a clip of four frames of 32 x 32 noise;
all later steps are noise; the label is always the colour. The house's own loop trains (`train_task`, strategy
`sequential`), on tensors in memory. d counts steps behind the colour.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch

from wholereel import config
from wholereel.batches import IGNORED, StreamBatch, Target
from wholereel.models.memvit import MeMViT
from wholereel.models.memvit_state import MemoryConfig
from wholereel.models.package import build_model
from wholereel.tasks.stream_classification import StreamClassification
from wholereel.training.distributed import Ranks
from wholereel.training.fit import train_task
from wholereel.training.strategies import create_strategy

COLOURS = ("red", "green", "blue", "yellow")
OFFSETS = torch.tensor([[2.0, -1, -1], [-1, 2.0, -1], [-1, -1, 2.0], [2.0, 2.0, -1]])  # of the channels
FRAMES, SIDE, SQUARE, NOISE = 4, 32, 18, 0.3
ROWS = 32
MEAN, STD = 0.5, 0.25  # as memvit_tiny reads pixels


@dataclass
class Videos:
    """A loader: `videos` of so many steps for each row; one epoch.

    Args:
        steps: of a video. asked: steps that have a label.
        interleaved: every second row is one step ahead, so that videos of a batch begin at different times.
    """

    videos: int
    steps: int
    asked: Sequence[int]
    seed: int = 0
    rows: int = ROWS
    interleaved: bool = False
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    @property
    def steps_per_epoch(self) -> int:
        return self.videos * self.steps

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[StreamBatch]:
        colour_B = torch.randint(len(COLOURS), (self.rows,), generator=self.generator)
        for step in range(self.steps_per_epoch):
            ahead_B = torch.arange(self.rows) % 2 if self.interleaved else torch.zeros(self.rows, dtype=torch.int64)
            step_B = (step + ahead_B) % self.steps
            drawn_B = torch.randint(len(COLOURS), (self.rows,), generator=self.generator)
            colour_B = torch.where(step_B == 0, drawn_B, colour_B)
            yield self.batch(step_B, colour_B, starts_B=(step_B == 0) | (step == 0))

    def batch(self, step_B: torch.Tensor, colour_B: torch.Tensor, starts_B: torch.Tensor) -> StreamBatch:
        noise = torch.randn(self.rows, FRAMES, 3, SIDE, SIDE, generator=self.generator) * NOISE
        for row in torch.nonzero(step_B == 0).flatten().tolist():
            top, left = torch.randint(SIDE - SQUARE + 1, (2,), generator=self.generator).tolist()
            noise[row, :, :, top : top + SQUARE, left : left + SQUARE] += OFFSETS[colour_B[row]][:, None, None]
        asked_B = torch.isin(step_B, torch.tensor(list(self.asked)))
        seconds_B2 = torch.stack([step_B, step_B + 1], 1).double()
        return StreamBatch(
            clip_BTCHW=((noise * STD + MEAN) * 255).clamp(0, 255).to(torch.uint8),
            valid_B=torch.ones(self.rows, dtype=torch.bool),
            starts_B=starts_B,
            seconds_B2=seconds_B2,
            target=Target({"label": torch.where(asked_B, colour_B, IGNORED)}),
            ids=tuple(map(str, range(self.rows))),
        )


def learn(loader: Videos, *, reach: int = 2, gap: int = 1, remember: bool = True, lr: float = 3e-3, seed: int = 0,
          constant: bool = True, memory: MemoryConfig | None = None) -> StreamClassification:  # fmt: skip
    """Train the trial network of the specification: four blocks of width 24, all of which remember.

    Args:
        reach, gap, remember: of `memvit_tiny`. memory: all settings of the memory, in their place.
    """
    train = config.Train(
        model=config.Model("memvit_tiny", options={"reach": reach, "gap": gap, "remember": remember}),
        data=config.Data(streams=config.Streams()),
        task=config.Task(kind="stream"),
        strategy=config.Strategy("sequential"),
        optim=config.Optim("adamw", lr=lr, schedule="constant" if constant else "cosine", clip_norm=1.0),
        epochs=1,
        batch=loader.rows,
        seed=seed,
    )
    torch.manual_seed(seed)
    model = build_model(train.model, len(COLOURS))
    if memory is not None:
        assert isinstance(model, MeMViT)
        model = MeMViT(model.config, memory, num_classes=len(COLOURS), info=model.info)
    task = StreamClassification(model, train.task, {"label": COLOURS})
    with tempfile.TemporaryDirectory() as folder:
        train_task(
            task, create_strategy(train.strategy, nullcontext), loader, train, Path(folder), classes=COLOURS,
            ranks=Ranks(), device=torch.device("cpu"), sample_ids=[],
        )  # fmt: skip
    return task


@torch.no_grad()
def accuracies(task: StreamClassification, *, steps: int, videos: int = 4, seed: int = 10_000,
               foreign: bool = False) -> dict[int, float]:  # fmt: skip
    """Accuracy by step d, on new videos.

    Args:
        foreign: give each row the memory of its neighbour's video before every step behind the first.
    """
    task.eval()
    right: dict[int, list[float]] = defaultdict(list)
    loader, state = Videos(videos, steps, range(steps), seed=seed), None
    for number, batch in enumerate(loader.epoch(0)):
        step = number % steps
        state = task.begin(batch) if state is None else state
        if foreign and step:
            state = task.restore({name: tensor.roll(1, 0) for name, tensor in state.as_dict().items()})
        prediction, state = task.predict(batch, state.reset(batch.starts_B))
        label_B = batch.target.labels["label"]
        right[step] += (prediction.scores["label"].argmax(-1) == label_B).double().tolist()
    return {step: sum(values) / len(values) for step, values in right.items()}


@torch.no_grad()
def among_switches(
    task: StreamClassification, *, steps: int = 120, seed: int = 20_000
) -> tuple[dict[int, float], float]:
    """Videos that begin at random steps, row by row, one step in four; every second one shows no colour.

    Returns: accuracy by step d of videos with a colour; how often a video without one is given the colour of the last
    video of its row that had one, which a memory that leaks would know (1/4 by chance).
    """
    task.eval()
    loader = Videos(1, 1, (0,), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    step_B, colour_B = torch.zeros(2, loader.rows, dtype=torch.int64)
    shown_B = torch.ones(loader.rows, dtype=torch.bool)
    right: dict[int, list[bool]] = defaultdict(list)
    leaked, state = [], None
    for step in range(steps):
        starts_B = (torch.rand(loader.rows, generator=generator) < 0.25) | (step == 0)
        shown_B = torch.where(starts_B, (torch.rand(loader.rows, generator=generator) < 0.5) | (step == 0), shown_B)
        drawn_B = torch.randint(len(COLOURS), (loader.rows,), generator=generator)
        step_B = torch.where(starts_B, 0, step_B + 1)
        colour_B = torch.where(starts_B & shown_B, drawn_B, colour_B)
        batch = loader.batch(torch.where(shown_B, step_B, 1), colour_B, starts_B)
        state = task.begin(batch) if state is None else state
        prediction, state = task.predict(batch, state.reset(starts_B))
        hit_B = prediction.scores["label"].argmax(-1) == colour_B
        leaked += hit_B[~shown_B].tolist()
        for d, hit in zip(step_B[shown_B].tolist(), hit_B[shown_B].tolist(), strict=True):
            right[d].append(hit)
    return {d: sum(right[d]) / len(right[d]) for d in sorted(right)}, sum(leaked) / len(leaked)
