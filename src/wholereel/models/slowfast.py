"""SlowFast: a slow pathway of few frames and a thin fast one of many, which speaks to the slow one (arXiv 1812.03982).

Forms as in facebookresearch/SlowFast; open-mmlab/mmaction2's is another network (`form="mmaction2"`): its slow pathway
reads every alpha-th frame, and what the fast one tells it is neither normalised nor rectified. Between stages both
pathways travel as one tensor, so that whatever works on stages (memories, strategies, streams) needs to know nothing:
`pack` folds the `alpha` fast frames that belong to a slow one into channels. Nothing is lost by it.
Extra axes: S slow channels, F fast channels, A fast frames of a slow one (`alpha`); T counts slow frames here.
Order: packing, stages, network, key layouts, named networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from wholereel.layers.batch_norm import BatchNorm3d
from wholereel.layers.bottleneck import DEPTHS, BlockPlan, Stage, Stem, begin_residuals_at_zero, stage_blocks
from wholereel.layers.checkpointing import CheckpointedStage
from wholereel.layers.convolution import Conv3d
from wholereel.layers.non_local import Affinity, NonLocal
from wholereel.models.clip_model import ClipModel, MemoryView, ModelInfo, init_convolutions
from wholereel.models.layouts import ImageTrunk, Layout, renaming
from wholereel.models.slow import (
    IMAGE,
    PYSLOWFAST_BLOCK,
    PYTORCHVIDEO_BLOCK,
    RES_STAGES,
    caffe2_names,
    pyslowfast_info,
)
from wholereel.ops.relative_positions import constant

__all__ = ["NETWORKS", "SlowFast", "pack", "slow_frames", "slowfast", "unpack"]

Pathways = tuple[Tensor, Tensor]
Form = Literal["pyslowfast", "mmaction2"]

EXACT_FRAMES = 160  # in shorter clips the floats of `slow_frames` never fall short of a whole number


def pack(slow_BSTHW: Tensor, fast_BFTHW: Tensor) -> Tensor:
    """Both pathways as `(B, S + F * A, T, H, W)`; channel `S + f * A + a` is frame a of fast channel f.

    Raises: ValueError: the fast pathway has no multiple of the slow one's frames.
    """
    frames = slow_BSTHW.shape[2]
    if fast_BFTHW.shape[2] % frames:
        raise ValueError(f"{fast_BFTHW.shape[2]} fast frames are no multiple of {frames} slow ones")
    fast_BFTAHW = fast_BFTHW.unflatten(2, (frames, -1))
    return torch.cat((slow_BSTHW, fast_BFTAHW.transpose(2, 3).flatten(1, 2)), 1)


def unpack(x_BCTHW: Tensor, alpha: int, fast_channels: int) -> Pathways:
    """The pathways `(B, S, T, H, W)` and `(B, F, T * alpha, H, W)` of a packed tensor."""
    slow_channels = x_BCTHW.shape[1] - fast_channels * alpha
    fast_BFATHW = x_BCTHW[:, slow_channels:].unflatten(1, (fast_channels, alpha))
    return x_BCTHW[:, :slow_channels], fast_BFATHW.transpose(2, 3).flatten(2, 3)


def _slow_of(x_BCTHW: Tensor, slow: int) -> Tensor:
    return x_BCTHW[..., :slow, :, :, :]


def _slow_alone(change_BSTHW: Tensor, others: int) -> Tensor:
    """Nothing changes in the other channels."""
    return nn.functional.pad(change_BSTHW, (0, 0, 0, 0, 0, 0, 0, others))


def _joined(x_BCTHW: Tensor, slow: int, alpha: int) -> Tensor:
    """Slow channels and the means of the fast ones, of a packed tensor."""
    fast_BFATHW = x_BCTHW[..., slow:, :, :, :].unflatten(-4, (-1, alpha))
    return torch.cat((x_BCTHW[..., :slow, :, :, :], fast_BFATHW.mean(-4)), -4)


def _to_frames(change_BDTHW: Tensor, slow: int, alpha: int) -> Tensor:
    """Changes of `_joined` channels for a packed tensor: all fast frames of a slow one change alike."""
    fast = change_BDTHW[..., slow:, :, :, :].repeat_interleave(alpha, dim=-4)
    return torch.cat((change_BDTHW[..., :slow, :, :, :], fast), -4)


def slow_frames(frames: int, alpha: int, form: Form = "pyslowfast") -> Tensor:
    """Indices of the frames that the slow pathway reads: `linspace` over the clip, cut to integers.

    In MMAction2's form they are 0, alpha, 2 alpha, ...
    """
    if form == "mmaction2":
        return torch.arange(frames // alpha) * alpha
    return torch.linspace(0, frames - 1, frames // alpha).long()


def _slow_index(frames: int, alpha: int, form: Form, device: torch.device) -> Tensor:
    """`slow_frames` on a device, made there, so that nothing waits for a copy."""
    if frames >= EXACT_FRAMES and form != "mmaction2":
        return slow_frames(frames, alpha, form).to(device)
    slow = torch.arange(frames // alpha, device=device)
    return slow * alpha if form == "mmaction2" else slow * (frames - 1) // max(frames // alpha - 1, 1)


class Fusion(nn.Module):
    """Fast to slow: `kernel` x 1 x 1 with temporal stride `alpha`, norm, ReLU; joined behind the slow channels.

    In MMAction2's form there are no norm and no ReLU.
    """

    def __init__(self, fast_channels: int, alpha: int, kernel: int, ratio: int, bn_eps: float, form: Form) -> None:
        super().__init__()
        self.conv = Conv3d(
            fast_channels,
            ratio * fast_channels,
            (kernel, 1, 1),
            stride=(alpha, 1, 1),
            padding=(kernel // 2, 0, 0),
            bias=False,
        )
        self.norm = BatchNorm3d(ratio * fast_channels, eps=bn_eps) if form == "pyslowfast" else None

    def forward(self, pathways: Pathways) -> Pathways:
        slow, fast = pathways
        lateral = self.conv(fast) if self.norm is None else torch.relu_(self.norm(self.conv(fast)))
        return torch.cat((slow, lateral), 1), fast


class TwoStems(nn.Module):
    """Pixels to both pathways. The last frame is repeated until `alpha` divides their number (our choice)."""

    def __init__(self, slow: Stem, fast: Stem, alpha: int, form: Form) -> None:
        super().__init__()
        self.pathways = nn.ModuleList((slow, fast))
        self.form: Form = form
        self.alpha, self.fast_channels_out = alpha, fast.conv.out_channels

    def forward(self, x: Tensor | Pathways) -> Tensor:
        slow, fast = self.divided(x) if isinstance(x, Tensor) else x
        return pack(self.pathways[0](slow), self.pathways[1](fast))

    def divided(self, x_BCTHW: Tensor) -> Pathways:
        """The clips of the two pathways; fast frames are those given."""
        lacking = -x_BCTHW.shape[2] % self.alpha
        if lacking:
            x_BCTHW = torch.cat((x_BCTHW, x_BCTHW[:, :, -1:].expand(-1, -1, lacking, -1, -1)), 2)
        index = constant(_slow_index, x_BCTHW.shape[2], self.alpha, self.form, device=x_BCTHW.device)
        return x_BCTHW.index_select(2, index), x_BCTHW


class TwoStages(CheckpointedStage):
    """The fast pathway joins the slow one, then each goes through its stage."""

    def __init__(self, fusion: Fusion, slow: Stage, fast: Stage, alpha: int, fast_channels: tuple[int, int]) -> None:
        super().__init__()
        self.fusion = fusion
        self.pathways = nn.ModuleList((slow, fast))
        self.alpha = alpha
        self.fast_channels, self.fast_channels_out = fast_channels

    def run(self, x_BCTHW: Tensor) -> Tensor:
        slow, fast = self.fusion(unpack(x_BCTHW, self.alpha, self.fast_channels))
        return pack(self.pathways[0](slow), self.pathways[1](fast))


class SlowFast(ClipModel):
    """Two pathways; reads one clip of fast frames, or a pair (slow, fast).

    `feature_info` and stages speak of packed channels; the head averages each pathway over its own frames.

    Args:
        depth: row of `DEPTHS`.
        frames, stride: clip of the fast pathway that the network is meant for.
        alpha: fast frames for a slow one. beta: width of the slow pathway over that of the fast one.
        fusion_kernel: frames that the fast-to-slow convolutions see. fusion_ratio: their width over the fast one's.
        temporal_blocks: blocks of res4 that see three frames, `None` = all; the rest sees one.
        non_local: stage -> indices of blocks of the slow pathway behind which a non-local block stands.
        affinity, num_classes, in_channels, dropout, width, bn_eps, zero_init, dilated: as in `SlowResNet`.
        form: of the frames that the slow pathway reads and of what it is told, see `slow_frames` and `Fusion`.
    """

    stage_names: ClassVar[tuple[str, ...]] = RES_STAGES

    def __init__(
        self,
        depth: int,
        frames: int,
        stride: int,
        *,
        alpha: int,
        beta: int,
        fusion_kernel: int,
        fusion_ratio: int,
        temporal_blocks: int | None,
        num_classes: int,
        in_channels: int,
        dropout: float,
        width: int,
        bn_eps: float,
        non_local: Mapping[str, tuple[int, ...]],
        affinity: Affinity,
        zero_init: bool = True,
        dilated: bool = False,
        form: Form = "pyslowfast",
    ) -> None:
        super().__init__()
        self.info = INFO[form](frames, stride)
        self.depth, self.alpha, self.fast_channels = depth, alpha, 32 * width // beta
        self.num_features = 32 * width + self.fast_channels
        self.settings = {"bn_eps": bn_eps, "alpha": alpha, "dilated": dilated}
        self.form: Form = form
        if any(non_local.values()):
            self.settings["affinity"] = affinity
        thin = width // beta
        self.stem = TwoStems(
            Stem(in_channels, width, 1, bn_eps=bn_eps), Stem(in_channels, thin, 5, bn_eps=bn_eps), alpha, form
        )
        self.feature_info: list[dict[str, Any]] = [
            {"name": "stem", "channels": width + alpha * thin, "reduction": (alpha, 4, 4)}
        ]
        planes, fast_planes, space = width, thin, 4
        for index, (name, count) in enumerate(zip(RES_STAGES[1:], DEPTHS[depth], strict=True)):
            inner, out = width << index, 4 * width << index
            step = 1 if index == 0 or (dilated and index == 3) else 2
            slow_plan = BlockPlan(
                planes + fusion_ratio * fast_planes,
                inner,
                out,
                (1, step),
                dilation=2 if dilated and index == 3 else 1,
                bn_eps=bn_eps,
            )
            fast_plan = BlockPlan(
                fast_planes, inner // beta, out // beta, (1, step), dilation=slow_plan.dilation, bn_eps=bn_eps
            )
            temporal = temporal_blocks if name == "res4" and temporal_blocks is not None else count
            fast_kernels_t = [3] * temporal + [1] * (count - temporal)
            kernels_t = fast_kernels_t if index >= 2 else [1] * count
            inserted = {block: NonLocal(out, affinity, bn_eps=bn_eps) for block in non_local.get(name, ())}
            slow_stage = Stage(stage_blocks(count, slow_plan, kernels_t), inserted)
            fast_stage = Stage(stage_blocks(count, fast_plan, fast_kernels_t))
            fusion = Fusion(fast_planes, alpha, fusion_kernel, fusion_ratio, bn_eps, form)
            fast_channels = (fast_planes, out // beta)
            setattr(self, name, TwoStages(fusion, slow_stage, fast_stage, alpha, fast_channels))
            planes, fast_planes, space = out, out // beta, space * step
            self.feature_info.append(
                {"name": name, "channels": planes + alpha * fast_planes, "reduction": (alpha, space, space)}
            )
        init_convolutions(self)
        if zero_init:
            begin_residuals_at_zero(self)
        self.reset_classifier(num_classes, dropout)

    def forward_head(self, x_BDTHW: Tensor, pre_logits: bool = False) -> Tensor:
        pooled_BD = torch.cat(
            [pathway.mean((2, 3, 4)) for pathway in unpack(x_BDTHW, self.alpha, self.fast_channels)], 1
        )
        if pre_logits:
            return pooled_BD
        return self.classify(pooled_BD)

    def memory_view(self, stage: str, pathway: str = "concat") -> MemoryView:
        """Both pathways joined, the fast one averaged over the frames of a slow one; or the slow one alone."""
        whole = super().memory_view(stage, pathway)
        last = stage == RES_STAGES[-1]  # there both are joined already
        fast = self.fast_channels if last else getattr(self, stage).fast_channels_out
        alpha = 1 if last else self.alpha
        slow = whole.dim - fast * alpha
        if pathway == "slow":
            return MemoryView(slow, partial(_slow_of, slow=slow), partial(_slow_alone, others=fast * alpha))
        if last:
            return whole
        return MemoryView(
            slow + fast, partial(_joined, slow=slow, alpha=alpha), partial(_to_frames, slow=slow, alpha=alpha)
        )

    def head_map(self, x_BDTHW: Tensor) -> Tensor:
        slow_BSTHW, fast_BFTHW = unpack(x_BDTHW, self.alpha, self.fast_channels)
        return torch.cat((slow_BSTHW, fast_BFTHW.unflatten(2, (-1, self.alpha)).mean(3)), 1)

    def pool_windows(self, x_BDTHW: Tensor, window: tuple[int, int]) -> Tensor:
        pathways = unpack(x_BDTHW, self.alpha, self.fast_channels)
        return torch.cat([super(SlowFast, self).pool_windows(pathway, window) for pathway in pathways], 1)

    def stage_inputs(self, stage: str) -> tuple[str, ...]:
        # Behind other stages the fast-to-slow convolution with its norm reads too.
        return super().stage_inputs(stage) if stage == RES_STAGES[-1] else ()

    def own_form(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """MMAction2's classifier reads the fast pathway first."""
        key = MMACTION2_CLASSIFIER
        if self.form != "mmaction2" or key not in tensors:
            return dict(tensors)
        return {**tensors, key: tensors[key].roll(-self.fast_channels, 1)}

    def image_trunks(self) -> tuple[ImageTrunk, ...]:
        return tuple(_image_trunk(number) for number in (0, 1))

    def layouts(self) -> tuple[Layout, ...]:
        if self.form == "mmaction2":
            return (replace(MMACTION2, written=partial(_fast_first, fast=self.fast_channels)),)
        lasts = {number: DEPTHS[self.depth][number - 2] - 1 for number in range(2, 6)}
        return (PYSLOWFAST, PYTORCHVIDEO, caffe2(lasts))


# --------------------------------------------------------------------------------------------------------- key layouts

SETTINGS = {"bn_eps": 1e-5, "dilated": False}
PYSLOWFAST = Layout(
    "pyslowfast",
    renaming(
        *((rf"^res{n}\.fusion\.", f"s{n - 1}_fuse.") for n in range(2, 6)),
        (r"_fuse\.conv\.", "_fuse.conv_f2s."),
        (r"_fuse\.norm\.", "_fuse.bn."),
        (r"^stem\.pathways\.(\d)\.conv\.", r"s1.pathway\1_stem.conv."),
        (r"^stem\.pathways\.(\d)\.norm\.", r"s1.pathway\1_stem.bn."),
        (r"^res(\d)\.pathways\.(\d)\.blocks\.(\d+)\.", r"s\1.pathway\2_res\3."),
        (r"^res(\d)\.pathways\.(\d)\.inserted\.(\d+)\.", r"s\1.pathway\2_nonlocal\3."),
        *PYSLOWFAST_BLOCK,
    ),
    SETTINGS,
)


def caffe2(lasts: Mapping[int, int]) -> Layout:
    """Lateral connections are named after what they read: the pool, or the last block of a stage (`lasts`)."""
    lateral = renaming(
        (r"^s1_fuse\.", "t_pool1_subsample."),
        *((rf"^s{stage}_fuse\.", f"t_res{stage}_{last}_branch2c_bn_subsample.") for stage, last in lasts.items()),
        (r"_subsample\.(?:conv_f2s)?(?=bn|\.)", "_subsample_"),
        (r"_subsample_\.", "_subsample."),
    )
    return Layout("pyslowfast-caffe2", lambda key: caffe2_names(lateral(PYSLOWFAST.key(key))), SETTINGS)


PYTORCHVIDEO = Layout(
    "pytorchvideo",
    renaming(
        *((rf"^res{n}\.fusion\.", f"blocks.{n - 2}.multipathway_fusion.") for n in range(2, 6)),
        (r"multipathway_fusion\.conv\.", "multipathway_fusion.conv_fast_to_slow."),
        *((rf"^{name}\.pathways\.", f"blocks.{n}.multipathway_blocks.") for n, name in enumerate(RES_STAGES)),
        (r"(multipathway_blocks\.\d)\.blocks\.", r"\1.res_blocks."),
        (r"(multipathway_blocks\.\d)\.inserted\.", r"\1.nonlocal."),
        *PYTORCHVIDEO_BLOCK,
        (r"^fc\.", "blocks.6.proj."),
    ),
    SETTINGS,
)


def _image_trunk(number: int) -> ImageTrunk:
    """A pathway; what it reads of the other one stands behind its own channels, and begins at zero as in MMAction2."""
    pathway = renaming(
        (rf"^stem\.pathways\.{number}\.", "stem."), (rf"^(res\d)\.pathways\.{number}\.blocks\.", r"\1.blocks.")
    )

    def key(name: str) -> str:
        shortened = pathway(name)
        return IMAGE.key(shortened) if shortened != name else name

    within = tuple(f"{stage}.pathways.{number}." for stage in RES_STAGES)
    return ImageTrunk(replace(IMAGE, key=key), within, ("blocks.0.conv_a.weight", "blocks.0.shortcut_conv.weight"))


MMACTION2_CLASSIFIER = "cls_head.fc_cls.weight"
MMACTION2 = Layout(
    "mmaction2",
    renaming(
        (r"^stem\.pathways\.(\d)\.", r"pathway\1.conv1."),
        (r"^res2\.fusion\.", "pathway0.conv1_lateral."),
        *((rf"^res{n}\.fusion\.", f"pathway0.layer{n - 2}_lateral.") for n in range(3, 6)),
        *((rf"^res{n}\.pathways\.(\d)\.blocks\.", rf"pathway\1.layer{n - 1}.") for n in range(2, 6)),
        (r"\.shortcut_(conv|norm)\.", r".downsample.\1."),
        *((rf"\.(conv|norm)_{letter}\.", rf".conv{number}.\1.") for number, letter in enumerate("abc", 1)),
        (r"\.norm\.", ".bn."),
        (r"^pathway0\.", "backbone.slow_path."),
        (r"^pathway1\.", "backbone.fast_path."),
        (r"^fc\.", "cls_head.fc_cls."),
    ),
    SETTINGS,
    licence="Apache-2.0 (MMAction2)",
)


def _fast_first(tensors: Mapping[str, Tensor], fast: int) -> dict[str, Tensor]:
    """Under our names, the classifier as MMAction2's reads."""
    classifier = {"fc.weight": tensors["fc.weight"].roll(fast, 1)} if "fc.weight" in tensors else {}
    return {**tensors, **classifier}


# ------------------------------------------------------------------------------------------------------ named networks


def _mmaction2_info(frames: int, stride: int) -> ModelInfo:
    info = pyslowfast_info(frames, stride, "arXiv 1812.03982; open-mmlab/mmaction2")
    return replace(info, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), licence="Apache-2.0 (MMAction2)")


INFO: dict[str, Callable[[int, int], ModelInfo]] = {
    "pyslowfast": partial(pyslowfast_info, origin="arXiv 1812.03982; facebookresearch/SlowFast"),
    "mmaction2": _mmaction2_info,
}

NON_LOCAL: dict[int, dict[str, tuple[int, ...]]] = {
    50: {"res3": (1, 3), "res4": (1, 3, 5)},
    101: {"res4": (6, 13, 20)},
}


def slowfast(
    depth: int,
    frames: int,
    published_alpha: int,
    kernel: int,
    temporal_blocks: int | None = None,
    nonlocal_blocks: bool = False,
    form: Form = "pyslowfast",
    /,
    *,
    num_classes: int = 400,
    in_channels: int = 3,
    dropout: float = 0.5,
    width: int = 64,
    bn_eps: float = 1e-5,
    alpha: int | None = None,
    beta: int = 8,
    fusion_kernel: int | None = None,
    fusion_ratio: int = 2,
    non_local: Mapping[str, tuple[int, ...]] | None = None,
    affinity: Affinity = "dot_product",
    zero_init: bool = True,
    dilated: bool = False,
) -> SlowFast:
    """A row of `NETWORKS`; keyword arguments as in `SlowFast`, by default as published."""
    published = NON_LOCAL[depth] if nonlocal_blocks else {}
    return SlowFast(
        depth,
        frames,
        2,
        alpha=published_alpha if alpha is None else alpha,
        beta=beta,
        fusion_kernel=kernel if fusion_kernel is None else fusion_kernel,
        fusion_ratio=fusion_ratio,
        temporal_blocks=temporal_blocks,
        num_classes=num_classes,
        in_channels=in_channels,
        dropout=dropout,
        width=width,
        bn_eps=bn_eps,
        non_local=published if non_local is None else non_local,
        affinity=affinity,
        zero_init=zero_init,
        dilated=dilated,
        form=form,
    )


NETWORKS: dict[str, Callable[..., SlowFast]] = {
    "slowfast_4x16_50": partial(slowfast, 50, 32, 8, 5),
    "slowfast_8x8_50": partial(slowfast, 50, 32, 4, 7),
    "slowfast_16x8_50": partial(slowfast, 50, 64, 4, 7),
    "slowfast_nl_4x16_50": partial(slowfast, 50, 32, 8, 5, None, True),
    "slowfast_nl_8x8_50": partial(slowfast, 50, 32, 4, 5, None, True),
    "slowfast_4x16_50_mmaction2": partial(slowfast, 50, 32, 8, 5, None, False, "mmaction2"),
    "slowfast_8x8_50_mmaction2": partial(slowfast, 50, 32, 4, 7, None, False, "mmaction2"),
    "slowfast_8x8_101": partial(slowfast, 101, 32, 4, 5),
    "slowfast_16x8_101": partial(slowfast, 101, 64, 4, 5, 6),
    "slowfast_nl_16x8_101": partial(slowfast, 101, 64, 4, 5, 6, True),
}
