"""Two small tasks whose answers are known: what the clips of a video can tell only together.

*Exclusive or*: a video is N clips in random order. One shows object A with bit a, one object B with bit b, the others a
distractor with a random bit. Labels are (a, b, a xor b). Sums over clips of anything that a clip knows alone call at
most three of the four cases of the third label right (accuracy 0.75), and their best loss is ln 2; so the third label
measures the exchange between clips and nothing else, and the first two show that a model learns at all. In numbers, a
clip shows a vector of its object and bit; in pixels, a square whose colour is the object and whose direction the bit.

*Key frame*: only clip 0 is judged, and it shows nothing. One of the others shows u p1 + v p2 with signs u and v, the
label says whether they are equal; the rest shows a constant. So all that a backbone learns arrives through the memory.

Tasks, sizes and thresholds are our own; no paper uses them. Extra axes: S positions (2 x 2), K labels, P pixels of a
frame (12 x 12).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholereel import config
from wholereel.batches import ClipBatch, Losses, LossPart, Target
from wholereel.layers.convolution import Conv3d
from wholereel.memory import CollaborativeMemory, CollaborativeState, VideoState
from wholereel.models.clip_model import ClipModel, ModelInfo, init_convolutions
from wholereel.models.video_model import VideoModel, merge_clips
from wholereel.tasks.classification import ClassificationTask
from wholereel.training.strategies import create_strategy

CHANNELS, WIDTH, CLIPS, BATCH, NOISE = 12, 32, 4, 32, 0.3
SIDE, FRAMES, SQUARE, PIXEL_NOISE = 12, 4, 3, 0.1
XOR = 2  # column of the third label
LN2 = math.log(2)

Read = Callable[[CollaborativeMemory, Tensor], Tensor]
Show = Callable[[Tensor, Tensor, torch.Generator], Tensor]  # objects_BN, bits_BN -> clips_BNCTHW

# -------------------------------------------------------------------------------------------------------- exclusive or


def videos(count: int, show: Show, generator: torch.Generator, clips: int = CLIPS) -> tuple[Tensor, Tensor]:
    """Clips and labels.

    Args:
        show: makes clips of objects (A, B, distractor) and bits.
        clips: N, at least 2.
    Returns: clips_BNCTHW; labels_BK, float32.
    """
    objects_BN = torch.tensor([0, 1] + [2] * (clips - 2)).expand(count, -1)
    bits_BN = torch.randint(2, (count, clips), generator=generator)
    labels_BK = torch.stack([bits_BN[:, 0], bits_BN[:, 1], bits_BN[:, 0] ^ bits_BN[:, 1]], dim=1).float()
    order_BN = torch.rand(count, clips, generator=generator).argsort(1)
    return show(objects_BN.gather(1, order_BN), bits_BN.gather(1, order_BN), generator), labels_BK


def vectors(generator: torch.Generator) -> Show:
    """A clip of T = 1, H = W = 2 with its object's and bit's vector, drawn once, at one of the four positions."""
    codes_CKD = torch.randn(3, 2, CHANNELS, generator=generator)

    def show(objects_BN: Tensor, bits_BN: Tensor, generator: torch.Generator) -> Tensor:
        place_BN = torch.randint(4, objects_BN.shape, generator=generator)
        return _placed(codes_CKD[objects_BN, bits_BN], place_BN, generator)

    return show


def moving_squares(generator: torch.Generator) -> Show:
    """A clip of T = 4, H = W = 12 in which a 3 x 3 square of the object's colour moves left (0) or right (1).

    It takes the same four places in either direction, two pixels apart: only their order shows the bit.
    """

    def show(objects_BN: Tensor, bits_BN: Tensor, generator: torch.Generator) -> Tensor:
        left_BN = torch.randint(SIDE - SQUARE - 2 * (FRAMES - 1) + 1, objects_BN.shape, generator=generator)
        top_BN = torch.randint(SIDE - SQUARE + 1, objects_BN.shape, generator=generator)
        steps_BNT = torch.arange(FRAMES).expand(*bits_BN.shape, -1)
        steps_BNT = torch.where(bits_BN[..., None] == 1, steps_BNT, FRAMES - 1 - steps_BNT)
        columns_BNTW = _between(left_BN[..., None] + 2 * steps_BNT)
        rows_BNTH = _between(top_BN[..., None].expand_as(steps_BNT))
        square_BNTHW = (rows_BNTH[..., None] & columns_BNTW[..., None, :]).float()
        colour_BNC = F.one_hot(objects_BN, 3).float()
        noise_BNCTHW = PIXEL_NOISE * torch.randn(*objects_BN.shape, 3, FRAMES, SIDE, SIDE, generator=generator)
        return noise_BNCTHW + colour_BNC[..., None, None, None] * square_BNTHW[:, :, None]

    return show


def _between(begin: Tensor) -> Tensor:
    """Which of `SIDE` pixels lie in a square that begins there, on a last axis."""
    pixel_P, begin = torch.arange(SIDE), begin[..., None]
    return (pixel_P >= begin) & (pixel_P < begin + SQUARE)


def _placed(shown_BND: Tensor, place_BN: Tensor, generator: torch.Generator) -> Tensor:
    """Each clip's vector at one of four positions, in noise."""
    place_BNS = F.one_hot(place_BN, 4)
    clips_BNDS = NOISE * torch.randn(*shown_BND.shape, 4, generator=generator)
    clips_BNDS = clips_BNDS + shown_BND[..., None] * place_BNS[:, :, None]
    return clips_BNDS.unflatten(3, (1, 2, 2))


def read_together(block: CollaborativeMemory, x_BNCTHW: Tensor) -> Tensor:
    """The block as it is."""
    return block(x_BNCTHW, pooled=True)[0]


def read_own_push(block: CollaborativeMemory, x_BNCTHW: Tensor) -> Tensor:
    """Each clip is a video of its own: the block's weights and shape without any exchange."""
    single = x_BNCTHW.flatten(0, 1).unsqueeze(1)
    return block(single, pooled=True)[0].unflatten(0, x_BNCTHW.shape[:2]).squeeze(2)


def read_truncated(block: CollaborativeMemory, x_BNCTHW: Tensor) -> Tensor:
    """The same values, but for each clip the pushes of the others are constants."""
    batch, clips = x_BNCTHW.shape[:2]
    single = x_BNCTHW.flatten(0, 1).unsqueeze(1)
    own_BNPV = block.push(single).sum_BPV.unflatten(0, (batch, clips))
    sum_BNPV = own_BNPV.sum(1, keepdim=True).detach() + own_BNPV - own_BNPV.detach()
    state = CollaborativeState(sum_BNPV.flatten(0, 1), torch.full((batch * clips,), clips))
    popped = block.pop_pooled(state, single)
    pooled = block.infuse_pooled(popped, single.flatten(3).mean(3))
    return pooled.unflatten(0, (batch, clips)).squeeze(2)


def two_pointwise() -> nn.Module:
    """For vectors: two 1 x 1 convolutions."""
    return nn.Sequential(nn.Conv3d(CHANNELS, 64, 1), nn.ReLU(), nn.Conv3d(64, WIDTH, 1), nn.ReLU())


def three_cubes() -> nn.Module:
    """For pixels: three 3 x 3 x 3 convolutions with GroupNorm, halving rows and columns twice."""
    layers: list[nn.Module] = []
    for planes, out, stride in ((3, 16, (1, 2, 2)), (16, WIDTH, (1, 2, 2)), (WIDTH, WIDTH, 1)):
        layers += [Conv3d(planes, out, 3, stride, 1, bias=False), nn.GroupNorm(4, out), nn.ReLU()]
    return nn.Sequential(*layers)


class Model(nn.Module):
    """A backbone, perhaps a memory, a pooling classifier."""

    def __init__(self, backbone: nn.Module, block: CollaborativeMemory | None, read: Read) -> None:
        super().__init__()
        self.backbone, self.block, self.read = backbone, block, read
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, clips_BNCTHW: Tensor) -> Tensor:
        """Mean logits of the clips, `(B, K)`."""
        x_BNCTHW = self.backbone(clips_BNCTHW.flatten(0, 1)).unflatten(0, clips_BNCTHW.shape[:2])
        pooled_BND = x_BNCTHW.flatten(3).mean(3) if self.block is None else self.read(self.block, x_BNCTHW)
        return self.head(pooled_BND).mean(1)


@dataclass(frozen=True)
class Learned:
    """Loss of the third label over the last steps, and accuracies (a, b, a xor b) on videos never seen, by their N."""

    xor_loss: float
    by_count: Mapping[int, tuple[float, ...]]

    @property
    def accuracies(self) -> tuple[float, ...]:
        return next(iter(self.by_count.values()))

    @property
    def xor(self) -> float:
        return self.accuracies[XOR]


def learn(
    memory: dict[str, str] | None,
    *,
    seed: int,
    steps: int,
    read: Read = read_together,
    last: int = 100,
    clips: tuple[int, int] = (CLIPS, CLIPS),
    test_clips: tuple[int, ...] = (CLIPS,),
    shown: str = "vectors",
) -> Learned:
    """Train one model; a pure function of its arguments.

    Args:
        shown: of `SHOWN`.
        clips: smallest and largest N in training; it is drawn for each step.
        test_clips: N of the tests.
    """
    generator = torch.Generator().manual_seed(1000 + seed)
    begin, backbone = SHOWN[shown]
    show = begin(generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        block = None if memory is None else CollaborativeMemory(WIDTH, 16, position_norm="mean", **memory)
        model = Model(backbone(), block, read)
    counts = torch.randint(clips[0], clips[1] + 1, (steps,), generator=torch.Generator().manual_seed(seed)).tolist()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for count in counts:
        clips_BNCTHW, labels_BK = videos(BATCH, show, generator, count)
        loss_BK = F.binary_cross_entropy_with_logits(model(clips_BNCTHW), labels_BK, reduction="none")
        optimizer.zero_grad()
        loss_BK.mean().backward()
        optimizer.step()
        schedule.step()
        losses.append(loss_BK[:, XOR].mean().item())
    by_count = {}
    with torch.no_grad():
        for count in test_clips:
            clips_BNCTHW, labels_BK = videos(2000, show, generator, count)
            right_K = ((model(clips_BNCTHW) > 0) == labels_BK.bool()).float().mean(0)
            by_count[count] = tuple(right_K.tolist())
    return Learned(sum(losses[-last:]) / last, by_count)


# What clips show, and the backbone that looks at it.
SHOWN: dict[str, tuple[Callable[[torch.Generator], Show], Callable[[], nn.Module]]] = {
    "vectors": (vectors, two_pointwise),
    "pixels": (moving_squares, three_cubes),
}
SEPARATE = {"interaction": "assoc", "value": "separate", "infusion": "gate"}
# Name of a row -> memory, how it is read.
SOLVE: dict[str, tuple[dict[str, str], Read]] = {
    "avg, gate": ({"interaction": "avg", "infusion": "gate"}, read_together),
    "assoc tied, gate": ({"interaction": "assoc", "infusion": "gate"}, read_together),
    "assoc separate, gate": (SEPARATE, read_together),
    "assoc tied, residual": ({"interaction": "assoc", "infusion": "residual"}, read_together),
    "assoc separate, gate, truncated gradient": (SEPARATE, read_truncated),
}
CANNOT: dict[str, tuple[dict[str, str] | None, Read]] = {
    "none (late averaging)": (None, read_together),
    "avg, residual": ({"interaction": "avg", "infusion": "residual"}, read_together),
    "assoc separate, gate, own push only": (SEPARATE, read_own_push),
}

IN_PIXELS: dict[str, tuple[dict[str, str] | None, Read]] = {
    name: {**CANNOT, **SOLVE}[name] for name in ("none (late averaging)", "assoc separate, gate")
}


def is_at_the_bound(learned: Learned) -> bool:
    """What every sum over clips must show: the first two labels learned, the third as if nothing were known."""
    at_ln2 = LN2 - 0.013 < learned.xor_loss < LN2 + 0.02
    return min(learned.accuracies[:XOR]) > 0.95 and learned.xor <= 0.75 and at_ln2


# ----------------------------------------------------------------------------------------------------------- key frame

KEY_BATCH, KEY_LR = 64, 5e-3


def key_frame_videos(count: int, codes_3D: Tensor, generator: torch.Generator) -> ClipBatch:
    """Videos of which clip 0 is to be judged; pixels are numbers already.

    Args:
        codes_3D: p1, p2 and the constant.
    """

    def below(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    signs_B2 = 2 * below(2, count, 2) - 1
    shown_BND = codes_3D[2].expand(count, CLIPS, -1).clone()
    shown_BND[:, 0] = 0.0
    shown_BND[torch.arange(count), 1 + below(CLIPS - 1, count)] = signs_B2.float() @ codes_3D[:2]
    clips_BNCTHW = _placed(shown_BND, below(4, count, CLIPS), generator)
    return ClipBatch(
        clips_BNTCHW=clips_BNCTHW.transpose(2, 3),
        seconds_BNT=torch.zeros(count, CLIPS, 1, dtype=torch.float64),
        valid_BN=torch.ones(count, CLIPS, dtype=torch.bool),
        target=Target({"label": (signs_B2.prod(1) > 0).float()[:, None]}),
        ids=tuple(map(str, range(count))),
    )


class Numbers(ClipModel):
    """12 -> 16 -> 8 channels at every position. `small`: PyTorch's initial weights, of 4 and 12 times less variance."""

    stage_names: ClassVar[tuple[str, ...]] = ("positions",)

    def __init__(self, *, small: bool = False) -> None:
        super().__init__()
        self.info = ModelInfo(mean=(0.0,), std=(1.0,), crop=2, frames=1, stride=1, frame_rate=1.0)
        self.num_features = 8
        self.feature_info = [{"name": "positions", "channels": 8, "reduction": (1, 1, 1)}]
        self.positions = nn.Sequential(nn.Conv3d(CHANNELS, 16, 1), nn.ReLU(), nn.Conv3d(16, 8, 1), nn.ReLU())
        self.fc = nn.Linear(8, 1)
        self.dropout, self.num_classes = nn.Dropout(0.0), 1
        if not small:  # as all backbones here; with small ones 5 of 24 runs did not learn the task
            init_convolutions(self)


class KeyFrameTask(ClassificationTask):
    """Clip 0 is judged, the others only push."""

    every_clip_predicts: ClassVar[bool] = False

    def inputs(self, batch: ClipBatch, clips: slice | None = None) -> Tensor:
        chosen = batch.clips_BNTCHW if clips is None else batch.clips_BNTCHW[:, clips]
        return chosen.transpose(2, 3)

    def losses(self, clip_logits_BNK: Tensor, batch: ClipBatch, valid_BN: Tensor | None = None) -> Losses:
        loss = F.binary_cross_entropy_with_logits(
            clip_logits_BNK[:, 0], batch.target.labels[self.label], reduction="sum"
        )
        return Losses({"video": LossPart(loss, torch.tensor(float(len(batch.ids))))})

    def predict_key(self, batch: ClipBatch, alone: bool) -> Tensor:
        clips_BNCTHW = self.inputs(batch)
        return self.model(clips_BNCTHW[:, :1] if alone else clips_BNCTHW)[0][:, 0]


def _exact(task: KeyFrameTask, batch: ClipBatch) -> None:
    create_strategy(config.Strategy("exact"), torch.enable_grad).backward(task, batch, Losses.total, lambda: None)


def _truncated(task: KeyFrameTask, batch: ClipBatch) -> None:
    """What `multi_iteration` would do if it did not refuse this task: pushes of the other clips are constants."""
    summaries = [task.model.encode(clip) for clip in task.inputs(batch).unbind(1)]
    pushes: list[VideoState] = [summaries[0].push, *(summary.push.detach() for summary in summaries[1:])]
    logits_BK = task.model.read(summaries[0], merge_clips(pushes, batch.valid_BN))
    task.losses(logits_BK[:, None], batch).total().backward()


def _full(task: KeyFrameTask, batch: ClipBatch) -> None:
    task(batch).total().backward()


def _alone(task: KeyFrameTask, batch: ClipBatch) -> None:
    task.losses(task.predict_key(batch, alone=True)[:, None], batch).total().backward()


@dataclass(frozen=True)
class KeyFrameRow:
    """How the key frame is trained.

    Args:
        gradient: adds a batch's gradient.
        detach: the memory is a constant. frozen: the backbone stays as it began. alone: nothing but clip 0 is read.
        small: the backbone begins with PyTorch's weights, from which random features do not suffice.
    """

    gradient: Callable[[KeyFrameTask, ClipBatch], None]
    detach: bool = False
    frozen: bool = False
    alone: bool = False
    small: bool = False


KEY_FRAME: dict[str, KeyFrameRow] = {
    "clip 0 alone": KeyFrameRow(_alone, alone=True),
    "exact": KeyFrameRow(_exact),
    "truncated": KeyFrameRow(_truncated),
    "memory detached": KeyFrameRow(_full, detach=True),
    "backbone frozen at random": KeyFrameRow(_full, frozen=True),
}


def learn_key_frame(row: KeyFrameRow, *, seed: int, steps: int) -> float:
    """Accuracy on 4,000 videos never seen; a pure function of its arguments."""
    generator = torch.Generator().manual_seed(1000 + seed)
    codes_3D = torch.randn(3, CHANNELS, generator=generator)
    memory = config.Memory(value="separate", dim=8, detach=row.detach)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        task = KeyFrameTask(VideoModel(Numbers(small=row.small), memory), config.Task(multi_label=True), 1)
    if row.frozen:
        task.model.clip_model.positions.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in task.parameters() if p.requires_grad], lr=KEY_LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        row.gradient(task, key_frame_videos(KEY_BATCH, codes_3D, generator))
        optimizer.step()
        schedule.step()
    batch = key_frame_videos(4000, codes_3D, generator)
    with torch.no_grad():
        right_BK = (task.predict_key(batch, row.alone) > 0) == batch.target.labels["label"].bool()
    return right_BK.float().mean().item()
