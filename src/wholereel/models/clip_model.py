"""What every clip model promises, so that heads, memories, tasks and exports need to know no architecture.

A clip model is a sequence of named stages, each `(B, C, T, H, W)` to `(B, C', T', H', W')`, then an average over all
positions, dropout and one linear layer. Any number of frames and any size are legal.
Not here: architectures (one a file), the table of names (`registry.py`), memory (`video_model.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.layers.bottleneck import begin_residuals_at_zero
from wholereel.layers.checkpointing import CheckpointedStage
from wholereel.layers.mlp import DropPath
from wholereel.models.layouts import ImageTrunk, Layout

__all__ = ["BEGINNINGS", "PATHWAYS", "Beginning", "ClipModel", "MemoryView", "ModelInfo", "init_convolutions"]

PATHWAYS = ("concat", "slow")
Beginning = Literal["caffe2", "torchvision", "slowfast"]


@dataclass(frozen=True)
class ModelInfo:
    """What is needed in order to use a model rightly.

    Args:
        mean, std: of the pixels in [0, 1], per channel.
        crop: side of the training crop in pixels.
        frames, stride, frame_rate: the clip it is meant for: T frames at a stride, at so many frames per second.
        licence: of published weights in this layout; empty where there are none.
        origin: paper and public implementation that the architecture follows.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int
    frames: int
    stride: int
    frame_rate: float
    licence: str = ""
    origin: str = ""


def _as_it_is(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class MemoryView:
    """What a memory block sees of the features behind a stage, and how what it says comes back to them.

    Args:
        dim: D, channels that the block sees.
        channels: features to D channels, positions as they are.
        spread: changes of the D channels to those of the features, zero for features that the block does not see.
        class_token: the first frame is not of the clip: it holds the class token, at each of its positions. It does not
            push and asks for nothing on behalf of the clip; it is changed like all other tokens.

    The channel axis is the fourth from the end, frames the third.
    """

    dim: int
    channels: Callable[[Tensor], Tensor] = _as_it_is
    spread: Callable[[Tensor], Tensor] = _as_it_is
    class_token: bool = False

    def seen(self, x_BCTHW: Tensor) -> Tensor:
        """The clip's own positions, which push, and whose mean asks."""
        x_BDTHW = self.channels(x_BCTHW)
        return x_BDTHW[..., 1:, :, :] if self.class_token else x_BDTHW

    def judged(self, x_BCTHW: Tensor) -> Tensor:
        """The positions whose mean the head reads, of features in front of it."""
        x_BDTHW = self.channels(x_BCTHW)
        return x_BDTHW[..., :1, :, :] if self.class_token else x_BDTHW


class ClipModel(nn.Module):
    """Base of clip models: subclasses define their stages as attributes named in `stage_names`, `dropout` and the
    classifier.

    Class attributes:
        stage_names: attributes that are the stages, in order.
        classifier: attribute that is the linear layer.
        feature_layout: order of the axes of features, "BDTHW" or "BLD". Between stages they are `BDTHW` always.
    Attribute `settings`: what changes the function of the network and cannot be seen from its keys and shapes.
    """

    stage_names: ClassVar[tuple[str, ...]] = ()
    classifier: ClassVar[str] = "fc"
    feature_layout: ClassVar[str] = "BDTHW"

    info: ModelInfo
    dropout: nn.Dropout
    num_features: int
    num_classes: int
    feature_info: list[dict[str, Any]]
    settings: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.settings = {}

    def layouts(self) -> tuple[Layout, ...]:
        """Key layouts of published weights for this network, besides its own."""
        return ()

    def own_form(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a file joined and split as this network has them; names are otherwise as they were."""
        return dict(tensors)

    def image_trunks(self) -> tuple[ImageTrunk, ...]:
        """Parts that weights of an image network can be inflated into. All of the first must fit, the others may."""
        return ()

    @property
    def stages(self) -> Mapping[str, nn.Module]:
        """The stages by name, in order; a memory can stand after any of them."""
        return {name: getattr(self, name) for name in self.stage_names}

    def reset_classifier(self, num_classes: int, dropout: float = 0.0) -> None:
        """A new classifier with fresh weights; `num_classes=0` removes it, then `forward` returns pooled features.

        Args:
            num_classes: K.
            dropout: probability in front of the classifier.
        Raises: ValueError: negative classes or a probability outside [0, 1).
        """
        if num_classes < 0 or not 0.0 <= dropout < 1.0:
            raise ValueError(f"needs num_classes >= 0 and dropout in [0, 1), got {num_classes} and {dropout}")
        like = next(self.parameters())
        self.num_classes = num_classes
        self.dropout = nn.Dropout(dropout)
        head: nn.Module = nn.Identity()
        if num_classes:
            head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        setattr(self, self.classifier, head)

    def begin_as(self, beginning: Beginning) -> None:
        """Fresh weights as a public code base draws them: convolutions, norms, and the classifier.

        Args:
            beginning: row of `BEGINNINGS`.
        Raises: ValueError: another one, or a network that is no residual one of convolutions.
        """
        if beginning not in BEGINNINGS:
            raise ValueError(f"there is no beginning {beginning!r}; there are {', '.join(BEGINNINGS)}")
        if not any(isinstance(getattr(module, "last_norm", None), nn.BatchNorm3d) for module in self.modules()):
            raise ValueError(f"{type(self).__name__} has no residual blocks of convolutions that begin in another way")
        draw_classifier, at_zero = BEGINNINGS[beginning]
        init_convolutions(self)
        if at_zero:
            begin_residuals_at_zero(self)
        classifier = self.get_submodule(self.classifier)
        if isinstance(classifier, nn.Linear):
            draw_classifier(classifier.weight)
            nn.init.zeros_(classifier.bias)

    def set_stochastic_depth(self, rate: float) -> None:
        """Drop residual branches in training for whole clips (arXiv 1603.09382).

        Args:
            rate: probability of the last block; grows linearly from zero at the first, in each pathway.
        Raises: ValueError: a rate outside [0, 1), or a network without residual blocks.
        """
        pathways: dict[str, list[DropPath]] = {}
        for name, module in self.named_modules():
            if isinstance(module, DropPath):
                pathway = re.search(r"pathways\.\d", name)
                pathways.setdefault(pathway[0] if pathway else "", []).append(module)
        if not 0.0 <= rate < 1.0 or not pathways:
            found = f"a rate of {rate}" if pathways else f"{type(self).__name__}, which has no residual blocks"
            raise ValueError(f"stochastic depth needs a rate in [0, 1) and residual blocks, got {found}")
        for drops in pathways.values():
            for index, drop in enumerate(drops):
                drop.probability = rate * index / max(len(drops) - 1, 1)

    def checkpoint_stages(self, names: Sequence[str] | bool = True) -> None:
        """Keep only the inputs of these stages for the backward pass, which then computes them again.

        Args:
            names: of stages; True = all that can, False = none.
        Raises: ValueError: a stage that there is not or that cannot.
        """
        able = {name: stage for name, stage in self.stages.items() if isinstance(stage, CheckpointedStage)}
        chosen = (list(able) if names else []) if isinstance(names, bool) else list(names)
        wrong = sorted(set(chosen) - set(able))
        if wrong or (chosen == [] and names):
            raise ValueError(f"{type(self).__name__} can checkpoint {', '.join(able) or 'no stage'}, got {names}")
        for name, stage in able.items():
            stage.checkpointed = name in chosen

    def stage_inputs(self, stage: str) -> tuple[str, ...]:
        """Names of the weights that are the only readers of a stage's output and linear in it; empty where there are
        others."""
        last = stage == self.stage_names[-1]
        return (f"{self.classifier}.weight",) if last and self.num_classes else ()

    def forward_features(self, x_BCTHW: Tensor) -> Tensor:
        """Output of the last stage, `(B, D, T', H', W')`."""
        for stage in self.stages.values():
            x_BCTHW = stage(x_BCTHW)
        return x_BCTHW

    def memory_view(self, stage: str, pathway: str = "concat") -> MemoryView:
        """How a memory block sees what flows behind a stage; behind the last one, the map that the head reads.

        Args:
            pathway: of networks of two pathways, which a block sees: both (`concat`) or `slow`.
        Raises: ValueError: another pathway.
        """
        if pathway not in PATHWAYS:
            raise ValueError(f"pathway must be one of {', '.join(PATHWAYS)}; got {pathway!r}")
        channels = {info["name"]: info["channels"] for info in self.feature_info}
        last = stage == list(self.stages)[-1]
        return MemoryView(self.num_features if last else channels[stage])

    def ignores_scale(self, stage: str) -> bool:
        """Do all readers of a stage's output give the same for its multiples?"""
        return False

    def head_map(self, x_BDTHW: Tensor) -> Tensor:
        """Of the last stage's output the map of `num_features` channels whose positions the head averages."""
        return x_BDTHW

    def grid_map(self, x_BDTHW: Tensor) -> Tensor:
        """Of a `head_map` the part that has a place in the picture, for heads that look at boxes."""
        return x_BDTHW

    def pool(self, x_BDTHW: Tensor) -> Tensor:
        """What the classifier reads of a `head_map`, `(B, D)`: the average over positions."""
        return x_BDTHW.mean((2, 3, 4))

    def classify(self, pooled_BD: Tensor) -> Tensor:
        """Dropout and classifier, `(B, K)`."""
        logits_BK: Tensor = self.get_submodule(self.classifier)(self.dropout(pooled_BD))
        return logits_BK

    def forward_head(self, x_BDTHW: Tensor, pre_logits: bool = False) -> Tensor:
        """Average over positions, dropout, classifier: `(B, K)`; `(B, D)` before dropout if `pre_logits`.

        Args:
            x_BDTHW: what `forward_features` gives.
        """
        pooled_BD = self.pool(self.head_map(x_BDTHW))
        return pooled_BD if pre_logits else self.classify(pooled_BD)

    def pool_windows(self, x_BDTHW: Tensor, window: tuple[int, int]) -> Tensor:
        """Averages over all frames and each window of positions, `(B, D, H', W')`.

        Raises: ValueError: the map is smaller than the window.
        """
        if window[0] > x_BDTHW.shape[3] or window[1] > x_BDTHW.shape[4]:
            raise ValueError(f"windows of {window} positions in a map of {tuple(x_BDTHW.shape[3:])}")
        return F.avg_pool2d(x_BDTHW.mean(2), window, stride=1)

    def forward_windows(self, x_BDTHW: Tensor, window: tuple[int, int]) -> Tensor:
        """Logits `(B, K, H', W')` of every window of positions in a larger picture than the model was trained on.

        Published scores of fully convolutional tests are the mean over windows of their softmax; `window` is the size
        of the feature map in training, 7 x 7 for crops of 224 pixels.
        Args:
            x_BDTHW: what `forward_features` gives.
            window: height and width in positions.
        Raises: ValueError: the map is smaller than the window.
        """
        pooled_BDHW = self.pool_windows(x_BDTHW, window)
        logits_BHWK: Tensor = getattr(self, self.classifier)(self.dropout(pooled_BDHW.movedim(1, -1)))
        return logits_BHWK.movedim(-1, 1)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Logits `(B, K)` of normalised clips."""
        return self.forward_head(self.forward_features(x_BCTHW))


def init_convolutions(model: nn.Module) -> None:
    """He normal (fan out) for convolutions, ones and zeros for norms, as torchvision's video networks begin."""
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def _as_xavier_fill(weight_KD: Tensor) -> Tensor:
    """Caffe2's XavierFill: uniform in +- sqrt(3 / D), not Glorot's rule."""
    return nn.init.kaiming_uniform_(weight_KD, nonlinearity="linear")


def _narrow(weight_KD: Tensor) -> Tensor:
    return nn.init.normal_(weight_KD, std=0.01)


# Code base -> how a classifier is drawn, whether residual branches begin at zero. Convolutions begin alike in all
# three: Caffe2's MSRAFill divides by fan out, as its source says.
BEGINNINGS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "caffe2": (_as_xavier_fill, False),
    "torchvision": (_narrow, False),
    "slowfast": (_narrow, True),
}
