"""C2D, I3D and Slow: residual networks over clips whose time axis sits in the first 1 x 1 convolution of a block.

Source: arXiv 1705.07750, 1711.07971 (non-local blocks), 1812.03982 (Slow); forms as in facebookresearch/SlowFast. The
form of open-mmlab/mmaction2's I3D, with temporal strides in the stem, is `stem_stride_t = pool_stride_t = 2`.
Order: settings, network, key layouts, named networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

from wholereel.layers.bottleneck import DEPTHS, BlockPlan, Stage, Stem, begin_residuals_at_zero, stage_blocks
from wholereel.layers.non_local import Affinity, NonLocal
from wholereel.models.clip_model import ClipModel, ModelInfo, init_convolutions
from wholereel.models.layouts import ImageTrunk, Layout, rename_norms, renaming

__all__ = [
    "IMAGE",
    "NETWORKS",
    "PYSLOWFAST_BLOCK",
    "PYTORCHVIDEO_BLOCK",
    "RES_STAGES",
    "SlowResNet",
    "caffe2_names",
    "pyslowfast_info",
    "slow_resnet",
]

RES_STAGES = ("stem", "res2", "res3", "res4", "res5")
Arch = Literal["c2d", "i3d", "slow"]
# Frames seen by the stem, and in turn by the blocks of res2, res3, res4, res5.
KERNELS_T: dict[str, tuple[int, tuple[tuple[int, ...], ...]]] = {
    "c2d": (1, ((1,), (1,), (1,), (1,))),
    "i3d": (5, ((3,), (3, 1), (3, 1), (1, 3))),
    "slow": (1, ((1,), (1,), (3,), (3,))),
}
# Stage -> blocks behind which a non-local block stands.
NON_LOCAL: dict[int, dict[str, tuple[int, ...]]] = {
    50: {"res3": (1, 3), "res4": (1, 3, 5)},
    101: {"res3": (1, 3), "res4": (6, 13, 20)},
}


def pyslowfast_info(frames: int, stride: int, origin: str) -> ModelInfo:
    """How the networks of PySlowFast's model zoo read clips."""
    return ModelInfo(
        mean=(0.45,) * 3,
        std=(0.225,) * 3,
        crop=224,
        frames=frames,
        stride=stride,
        frame_rate=30.0,
        licence="Apache-2.0 (PySlowFast)",
        origin=origin,
    )


class SlowResNet(ClipModel):
    """One pathway.

    Args:
        arch: row of `KERNELS_T`; C2D and I3D also pool two frames in front of res3.
        depth: row of `DEPTHS`.
        info: clip that the network is meant for.
        num_classes: K; 0 = no classifier. in_channels: C of the input. dropout: in front of the classifier.
        width: channels of the stem; stages have 4, 8, 16 and 32 times as many.
        bn_eps: of all norms.
        non_local: stage -> indices of the blocks behind which a non-local block stands.
        affinity: of the non-local blocks.
        stem_stride_t, pool_stride_t: temporal strides of the stem's convolution and pool.
        zero_init: residual branches begin at zero.
        dilated: res5 keeps the size of res4 and looks twice as far (for detection).
    """

    stage_names: ClassVar[tuple[str, ...]] = RES_STAGES

    def __init__(
        self,
        arch: Arch,
        depth: int,
        info: ModelInfo,
        *,
        num_classes: int,
        in_channels: int,
        dropout: float,
        width: int,
        bn_eps: float,
        non_local: Mapping[str, tuple[int, ...]],
        affinity: Affinity,
        stem_stride_t: int = 1,
        pool_stride_t: int = 1,
        zero_init: bool = True,
        dilated: bool = False,
    ) -> None:
        super().__init__()
        self.info, self.num_features = info, 32 * width
        self.settings = {"bn_eps": bn_eps, "strides_t": (stem_stride_t, pool_stride_t), "dilated": dilated}
        if any(non_local.values()):
            self.settings["affinity"] = affinity
        stem_kernel_t, kernels_t = KERNELS_T[arch]
        self.pooled = arch != "slow"
        self.stem = Stem(
            in_channels, width, stem_kernel_t, bn_eps=bn_eps, stride_t=stem_stride_t, pool_stride_t=pool_stride_t
        )
        time = stem_stride_t * pool_stride_t
        self.feature_info: list[dict[str, Any]] = [{"name": "stem", "channels": width, "reduction": (time, 4, 4)}]
        planes, space = width, 4
        for index, (name, count) in enumerate(zip(RES_STAGES[1:], DEPTHS[depth], strict=True)):
            inner, out = width << index, 4 * width << index
            stride = 1 if index == 0 or (dilated and index == 3) else 2
            pool_t = 2 if name == "res3" and self.pooled else 1
            plan = BlockPlan(
                planes, inner, out, (1, stride), dilation=2 if dilated and index == 3 else 1, bn_eps=bn_eps
            )
            inserted = {block: NonLocal(out, affinity, bn_eps=bn_eps) for block in non_local.get(name, ())}
            setattr(self, name, Stage(stage_blocks(count, plan, kernels_t[index]), inserted, pool_t))
            planes, space, time = out, space * stride, time * pool_t
            self.feature_info.append({"name": name, "channels": out, "reduction": (time, space, space)})
        init_convolutions(self)
        if zero_init:
            begin_residuals_at_zero(self)
        self.reset_classifier(num_classes, dropout)

    def stage_inputs(self, stage: str) -> tuple[str, ...]:
        if stage == RES_STAGES[-1]:
            return super().stage_inputs(stage)
        following = f"{RES_STAGES[RES_STAGES.index(stage) + 1]}.blocks.0"
        return f"{following}.conv_a.weight", f"{following}.shortcut_conv.weight"

    def image_trunks(self) -> tuple[ImageTrunk, ...]:
        return (ImageTrunk(IMAGE),)

    def layouts(self) -> tuple[Layout, ...]:
        if self.settings["strides_t"] != (1, 1):
            return (MMACTION2,)
        zoo = (PYSLOWFAST, pytorchvideo(self.pooled), CAFFE2)
        # MMAction2's C2D and I3D are other networks, its SlowOnly is this one.
        return zoo if self.pooled else (*zoo, replace(MMACTION2, settings=PYSLOWFAST.settings))


# --------------------------------------------------------------------------------------------------------- key layouts

PYSLOWFAST_BLOCK = (
    (r"\.shortcut_conv\.", ".branch1."),
    (r"\.shortcut_norm\.", ".branch1_bn."),
    (r"\.conv_([abc])\.", r".branch2.\1."),
    (r"\.norm_([abc])\.", r".branch2.\1_bn."),
    (r"nonlocal(\d+)\.(theta|phi|g|out)\.", r"nonlocal\1.conv_\2."),
    (r"nonlocal(\d+)\.norm\.", r"nonlocal\1.bn."),
    (r"^fc\.", "head.projection."),
)
PYSLOWFAST = Layout(
    "pyslowfast",
    renaming(
        (r"^stem\.conv\.", "s1.pathway0_stem.conv."),
        (r"^stem\.norm\.", "s1.pathway0_stem.bn."),
        (r"^res(\d)\.blocks\.(\d+)\.", r"s\1.pathway0_res\2."),
        (r"^res(\d)\.inserted\.(\d+)\.", r"s\1.pathway0_nonlocal\2."),
        *PYSLOWFAST_BLOCK,
    ),
    {"bn_eps": 1e-5, "strides_t": (1, 1), "dilated": False},
)


def caffe2_names(pyslowfast_name: str) -> str:
    """PySlowFast's name of a tensor -> its name in the Caffe2 files of its model zoo; lateral connections aside."""
    return rename_norms(TO_CAFFE2(pyslowfast_name))


TO_CAFFE2 = renaming(
    (r"^s1\.pathway0_stem\.conv", "conv1"),
    (r"^s1\.pathway0_stem\.bn", "res_conv1_bn"),
    (r"^s1\.pathway1_stem\.conv", "t_conv1"),
    (r"^s1\.pathway1_stem\.bn", "t_res_conv1_bn"),
    (r"^s(\d)\.pathway0_nonlocal(\d+)\.(?:conv_)?", r"nonlocal_conv\1_\2_"),
    (r"^s(\d)\.pathway0_res(\d+)\.", r"res\1_\2_"),
    (r"^s(\d)\.pathway1_res(\d+)\.", r"t_res\1_\2_"),
    (r"_branch2\.", "_branch2"),
    (r"^head\.projection\.", "pred."),
)
CAFFE2 = Layout("pyslowfast-caffe2", lambda key: caffe2_names(PYSLOWFAST.key(key)), PYSLOWFAST.settings)
PYTORCHVIDEO_BLOCK = (
    (r"\.shortcut_(conv|norm)\.", r".branch1_\1."),
    (r"(res_blocks\.\d+)\.(conv|norm)_([abc])\.", r"\1.branch2.\2_\3."),
    (r"nonlocal\.(\d+)\.(theta|phi|g|out)\.", r"nonlocal.\1.conv_\2."),
)


def pytorchvideo(pooled: bool) -> Layout:
    """pytorchvideo counts the pool in front of res3 as a block."""

    def block(name: str) -> str:
        number = 0 if name == "stem" else int(name[3]) - 1
        return f"blocks.{number + (pooled and number > 1)}"

    inner = renaming(
        *((rf"^{name}\.", f"{block(name)}.") for name in RES_STAGES),
        (r"^(blocks\.\d)\.blocks\.", r"\1.res_blocks."),
        (r"^(blocks\.\d)\.inserted\.", r"\1.nonlocal."),
        *PYTORCHVIDEO_BLOCK,
        (r"^fc\.", f"blocks.{6 if pooled else 5}.proj."),
    )
    return Layout("pytorchvideo", inner, {"bn_eps": 1e-5, "strides_t": (1, 1), "dilated": False})


MMACTION2 = Layout(
    "mmaction2",
    renaming(
        (r"^stem\.(conv|norm)\.", r"backbone.conv1.\1."),
        *((rf"^res{number + 1}\.blocks\.", f"backbone.layer{number}.") for number in range(1, 5)),
        (r"\.shortcut_(conv|norm)\.", r".downsample.\1."),
        *((rf"\.(conv|norm)_{letter}\.", rf".conv{number}.\1.") for number, letter in enumerate("abc", 1)),
        (r"\.norm\.", ".bn."),
        (r"^fc\.", "cls_head.fc_cls."),
    ),
    {"bn_eps": 1e-5, "strides_t": (2, 2), "dilated": False},
)
# Names of image networks in torchvision and timm; inserted non-local blocks have none and stay fresh.
IMAGE = Layout(
    "image",
    renaming(
        (r"^stem\.conv\.", "conv1."),
        (r"^stem\.norm\.", "bn1."),
        *((rf"^res{number + 1}\.blocks\.", f"layer{number}.") for number in range(1, 5)),
        (r"\.shortcut_conv\.", ".downsample.0."),
        (r"\.shortcut_norm\.", ".downsample.1."),
        *((rf"\.conv_{letter}\.", f".conv{number}.") for number, letter in enumerate("abc", 1)),
        *((rf"\.norm_{letter}\.", f".bn{number}.") for number, letter in enumerate("abc", 1)),
    ),
)
# ------------------------------------------------------------------------------------------------------ named networks


def slow_resnet(
    arch: Arch,
    depth: int,
    frames: int,
    stride: int,
    nonlocal_blocks: bool = False,
    form: Literal["pyslowfast", "mmaction2"] = "pyslowfast",
    /,
    *,
    num_classes: int = 400,
    in_channels: int = 3,
    dropout: float = 0.5,
    width: int = 64,
    bn_eps: float = 1e-5,
    non_local: Mapping[str, tuple[int, ...]] | None = None,
    affinity: Affinity = "softmax",
    zero_init: bool = True,
    dilated: bool = False,
) -> SlowResNet:
    """A row of `NETWORKS`; keyword arguments as in `SlowResNet`, `non_local` by default at its published places."""
    published = NON_LOCAL[depth] if nonlocal_blocks else {}
    strides_t = (2, 2) if form == "mmaction2" else (1, 1)
    return SlowResNet(
        arch,
        depth,
        pyslowfast_info(frames, stride, f"{ORIGIN[arch]}; {SOURCE[form]}"),
        num_classes=num_classes,
        in_channels=in_channels,
        dropout=dropout,
        width=width,
        bn_eps=bn_eps,
        non_local=published if non_local is None else non_local,
        affinity=affinity,
        stem_stride_t=strides_t[0],
        pool_stride_t=strides_t[1],
        zero_init=zero_init,
        dilated=dilated,
    )


ORIGIN = {"c2d": "arXiv 1711.07971", "i3d": "arXiv 1705.07750, 1711.07971", "slow": "arXiv 1812.03982"}
SOURCE = {"pyslowfast": "facebookresearch/SlowFast", "mmaction2": "open-mmlab/mmaction2"}
NETWORKS: dict[str, Callable[..., SlowResNet]] = {
    "c2d_50": partial(slow_resnet, "c2d", 50, 8, 8),
    "c2d_101": partial(slow_resnet, "c2d", 101, 8, 8),
    "i3d_50": partial(slow_resnet, "i3d", 50, 8, 8),
    "i3d_101": partial(slow_resnet, "i3d", 101, 8, 8),
    "i3d_nl_50": partial(slow_resnet, "i3d", 50, 8, 8, True),
    "i3d_50_mmaction2": partial(slow_resnet, "i3d", 50, 32, 2, False, "mmaction2"),
    "slow_4x16_50": partial(slow_resnet, "slow", 50, 4, 16),
    "slow_8x8_50": partial(slow_resnet, "slow", 50, 8, 8),
    "slow_8x8_101": partial(slow_resnet, "slow", 101, 8, 8),
}
