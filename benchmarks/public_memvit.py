"""An adapter to the public code of MeMViT (facebookresearch/MeMViT), for comparisons with it.

That code is no part of this project (its licence is CC-BY-NC-4.0); the path of a checkout is given. What stands here is
our own: packages that a network of it imports and that are not installed get stand-ins with what it needs of them
(settings, a registry, a RoIAlign that is torchvision's); our settings become its options, our weights get its names.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import io
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn

from wholereel.models.memvit import MeMViT
from wholereel.models.memvit_boxes import BoxConfig
from wholereel.models.memvit_state import MemoryConfig
from wholereel.models.mvit_config import MvitConfig
from wholereel.models.mvit_keys import export_keys

NEEDED = ("simplejson", "fvcore", "iopath", "detectron2", "fairscale", "pytorchvideo")

Classes = int | tuple[int, ...]


class Options(dict[str, Any]):
    """Settings as attributes; stands in for fvcore's `CfgNode`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def clone(self) -> Options:
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: Any) -> Options:
        return Options({name: copy.deepcopy(value, memo) for name, value in self.items()})


class Registry:
    """Stands in for fvcore's: what it would keep is not asked for."""

    def __init__(self, name: str) -> None:
        self.name = name

    def register(self) -> Callable[[type], type]:
        return lambda kind: kind


class RoiAlign(nn.Module):
    """Stands in for detectron2's, with torchvision's."""

    def __init__(self, output_size: Any, spatial_scale: float, sampling_ratio: int, aligned: bool = True) -> None:
        super().__init__()
        self.options = output_size, spatial_scale, sampling_ratio, aligned

    def forward(self, x_BCHW: Tensor, boxes_R5: Tensor) -> Tensor:
        pooled_RCHW: Tensor = torchvision.ops.roi_align(x_BCHW, boxes_R5, *self.options)
        return pooled_RCHW


STAND_INS: dict[str, type] = {"CfgNode": Options, "Registry": Registry, "ROIAlign": RoiAlign}


class StandIn(types.ModuleType):
    """A module that has every name: those of `STAND_INS`, and empty classes."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return STAND_INS.get(name) or type(name, (), {})


class StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what is not installed."""

    def __init__(self, roots: list[str]) -> None:
        self.roots = roots

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        wanted = fullname.partition(".")[0] in self.roots
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if wanted else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def import_public(code: Path) -> list[str]:
    """Make the checkout's networks importable; what had to have stand-ins."""
    if not (code / "memvit" / "models" / "video_model_builder.py").is_file():
        raise SystemExit(f"--code {code}: no checkout of facebookresearch/MeMViT is there (memvit/models/ is missing)")
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    sys.meta_path.append(StandInFinder(absent))
    sys.path.insert(0, str(code.resolve()))
    with contextlib.redirect_stdout(io.StringIO()):
        importlib.import_module("memvit.models")
    return absent


def public_options(config: MvitConfig, memory: MemoryConfig, boxes: BoxConfig | None, classes: Classes) -> Any:
    """The public code's settings for a network of ours, for what they can say."""
    options = importlib.import_module("memvit.config.defaults").get_cfg()
    heads = config.widen if config.widen_heads is None else config.widen_heads
    spaces = list(classes) if isinstance(classes, tuple) else []
    wanted: dict[str, dict[str, Any]] = {
        "DATA": {"NUM_FRAMES": config.frames, "TRAIN_CROP_SIZE": config.crop, "INPUT_CHANNEL_NUM": [3]},
        "MODEL": {
            "NUM_CLASSES": classes if isinstance(classes, int) else 1,
            "NUM_CLASSES_LIST": spaces,
            "DROPOUT_RATE": config.head_dropout,
            "HEAD_ACT": "sigmoid",
        },
        "DETECTION": {
            "ENABLE": boxes is not None,
            "ALIGNED": boxes is None or boxes.aligned,
            "SPATIAL_SCALE_FACTOR": boxes.scale if boxes else 32,
            "ROI_XFORM_RESOLUTION": boxes.resolution if boxes else 7,
        },
        "MVIT": {
            "PATCH_KERNEL": list(config.patch_kernel),
            "PATCH_STRIDE": list(config.patch_stride),
            "PATCH_PADDING": list(config.patch_padding),
            "EMBED_DIM": config.embed_dim,
            "NUM_HEADS": config.heads,
            "DEPTH": config.depth,
            "MLP_RATIO": config.mlp_ratio,
            "DIM_MUL": [list(pair) for pair in config.widen],
            "HEAD_MUL": [list(pair) for pair in heads],
            "DIM_MUL_IN_ATT": config.widen_in_attention,
            "MODE": config.mode,
            "POOL_FIRST": config.pool_first,
            "SEPARATE_QKV": config.separate_qkv,
            "QKV_BIAS": config.qkv_bias,
            "POOL_KVQ_KERNEL": list(config.kernel or ()),
            "POOL_KV_STRIDE_ADAPTIVE": list(config.kv_stride or ()),
            "POOL_KV_STRIDE": [list(row) for row in config.kv_strides],
            "POOL_Q_STRIDE": [list(row) for row in config.q_strides],
            "CLS_EMBED_ON": config.class_token,
            "USE_ABS_POS": config.absolute != "none",
            "SEP_POS_EMBED": config.absolute == "separable",
            "REL_POS_SPATIAL": config.rel_pos_spatial,
            "REL_POS_TEMPORAL": config.rel_pos_temporal,
            "NORM_STEM": config.norm_stem,
            "CONV_Q": config.residual,
            "CAUSAL": config.causal,
            "FRAME_LEVEL": config.frame_level,
            "DROPPATH_RATE": config.drop_path,
            "BOX_DEPTH": boxes.depth if boxes else 0,
        },
    }
    if memory.reach:
        wanted["MEMVIT"] = {
            "ENABLE": True,
            "ATTN_MAX_LEN": memory.reach + 1,
            "SAMPLER": f"gap{memory.gap}",
            "EXCLUDE_LAYERS": list(memory.exclude),
        }
        options.MEMVIT.COMPRESS.ENABLE = memory.stride is not None
        options.MEMVIT.COMPRESS.POOL_KERNEL = list(memory.kernel)
        options.MEMVIT.COMPRESS.POOL_STRIDE = list(memory.stride or ())
    for group, values in wanted.items():
        for name, value in values.items():
            setattr(getattr(options, group), name, value)
    return options


class Public(nn.Module):
    """The public network with the weights of one of ours; its memory is lists inside it, which nothing clears."""

    def __init__(self, ours: MeMViT, classes: Classes) -> None:
        super().__init__()
        builder = importlib.import_module("memvit.models.video_model_builder")
        self.network = builder.MViT(public_options(ours.config, ours.memory, ours.boxes, classes))
        self.network.load_state_dict(export_keys(ours, "memvit"))
        self.logits: list[Tensor] = []
        heads = self.network.head.projection
        for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
            head.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.logits.append(output)

    def forward(self, clip_BCTHW: Tensor, videos: Sequence[str], boxes_R5: Tensor | None = None) -> tuple[Tensor, ...]:
        """Logits of each label space, before whatever the public head does to them in evaluation mode."""
        self.logits = []
        self.network([clip_BCTHW], list(videos), boxes_R5)
        return tuple(self.logits)

    def entries(self, block: str) -> list[tuple[Tensor, Tensor]]:
        """Keys and values that a block such as `blocks.3` keeps, oldest first."""
        attention = self.network.get_submodule(block).attn
        return list(zip(attention.cached_k, attention.cached_v, strict=True))

    def bytes_kept(self) -> int:
        blocks = [*self.network.blocks, *self.network.box_blocks]
        return sum(t.nbytes for block in blocks for t in (*block.attn.cached_k, *block.attn.cached_v))
