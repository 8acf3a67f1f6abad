"""MeMViT: a video is read clip by clip; some layers attend to compressed keys and values of the clips before.

Source: arXiv 2201.08383 and the order of operations of facebookresearch/MeMViT (parameter names alike). Compression is
pipelined: a step compresses only the entry of the step before, with graph; older entries stay as they were compressed.
The memory is a state that goes in and comes out; `memory/cached.py` holds its rules.
Extra axes: K classes, R boxes, E tokens of an entry.
Not here: the network without memory (`mvit.py`), the state (`memvit_state.py`), boxes (`memvit_boxes.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wholereel.layers.pooling_attention import Compression, PoolingAttention
from wholereel.layers.roi_pooling import boxes_of_slots
from wholereel.layers.token_pooling import Grid, pooled_grid
from wholereel.memory.cached import BOUNDARIES, CachedState, cache_step
from wholereel.models.clip_model import ModelInfo
from wholereel.models.memvit_boxes import BoxBlock, BoxConfig, BoxPlaces, BoxPooling, gathered, scattered
from wholereel.models.memvit_state import COMPRESS_GRADS, COMPRESSIONS, MemoryConfig, MemvitState
from wholereel.models.mvit import MEAN, STD, Block, MViT
from wholereel.models.mvit_config import SIZES, BlockPlan, MvitConfig, every_block, tiny_config

__all__ = ["MeMViT", "memvit_16", "memvit_24", "memvit_tiny"]


class MemoryBlock(Block):
    """A block that also attends to its cache."""

    def forward(  # type: ignore[override]
        self, x_BLD: Tensor, grid: Grid, cache: CachedState | None, memory: MemoryConfig
    ) -> tuple[Tensor, Grid, CachedState | None]:
        """One clip: tokens and their (T, H, W), and the cache before and after it; `None` = no cache, no memory."""
        if cache is None:
            return (*super().forward(x_BLD, grid), None)
        normed_BLD = self.norm1(x_BLD)
        pooled = self.attn.pool(normed_BLD, grid)
        entry = pooled.key_BLD, pooled.value_BLD
        compress = None
        naive = memory.compression == "naive"
        if memory.stride is not None and not naive:
            kept, shrunk = cache.newest_keys_BLD.shape[1], cache.keys_BELD.shape[2]
            if kept == shrunk != entry[0].shape[1]:
                # The cache holds compressed entries alone: this one is compressed at once, nothing learns from it.
                with torch.no_grad():
                    entry = self.attn.compress(*entry, pooled.key_grid)
            else:
                compress = _Compress(self.attn, pooled.key_grid)
        past, cache = cache_step(cache, *entry, gap=memory.gap, compress=compress, boundary=memory.boundary)
        keys_BMPD, values_BMPD = past.keys_BMLD, past.values_BMLD
        if naive:
            entries = keys_BMPD.shape[:2]
            flat = _Compress(self.attn, pooled.key_grid)(keys_BMPD.flatten(0, 1), values_BMPD.flatten(0, 1))
            keys_BMPD, values_BMPD = (tokens.unflatten(0, entries) for tokens in flat)
        attended_BLD = self.attn.attend(pooled, keys_BMPD, values_BMPD, past.valid_BM)
        return self.finish(x_BLD, normed_BLD, attended_BLD, grid), pooled.query_grid, cache


class _Compress:
    # No dataclass: PyTorch 2.11 asks for the hash of one that is made in a compiled graph before it has its fields.
    def __init__(self, attention: PoolingAttention, grid: Grid) -> None:
        self.attention, self.grid = attention, grid

    def __call__(self, keys_BLD: Tensor, values_BLD: Tensor) -> tuple[Tensor, Tensor]:
        like = self.attention.k.weight.dtype
        return self.attention.compress(keys_BLD.to(like), values_BLD.to(like), self.grid)


class MeMViT(MViT):
    """The network with memory.

    Args:
        config: sizes and options; needs `pool_first`.
        memory: which layers remember what.
        boxes: a head for boxes instead of whole clips.
        num_classes, in_channels, info: see `MViT`.
    Raises: ValueError: settings without a meaning.
    """

    def __init__(
        self,
        config: MvitConfig,
        memory: MemoryConfig | None = None,
        *,
        boxes: BoxConfig | None = None,
        num_classes: int | tuple[int, ...] = 400,
        in_channels: int = 3,
        info: ModelInfo | None = None,
    ) -> None:
        memory = memory or MemoryConfig()
        if memory.boundary not in BOUNDARIES:
            raise ValueError(f"boundary must be one of {BOUNDARIES}, got {memory.boundary!r}")
        if memory.reach < 0 or memory.gap < 1 or not config.pool_first:
            raise ValueError(
                f"needs reach >= 0, gap >= 1 and pool_first, got {memory.reach}, {memory.gap} and {config.pool_first}"
            )
        for name, legal in (("compression", COMPRESSIONS), ("compress_grad", COMPRESS_GRADS)):
            if getattr(memory, name) not in legal:
                raise ValueError(f"{name} must be one of {legal}, got {getattr(memory, name)!r}")
        if memory.boundary == "zero" and (memory.compression, memory.compress_grad) != ("pipelined", "newest"):
            raise ValueError("boundary='zero' is the public code's, which compresses the newest entry, pipelined")
        if boxes is not None and boxes.places < 0:
            raise ValueError(f"boxes.places counts frequencies and must be at least 0, got {boxes.places}")
        compression = Compression(memory.reach, memory.kernel, memory.stride, memory.kind) if memory.reach else None
        super().__init__(
            config,
            num_classes=num_classes,
            in_channels=in_channels,
            info=info or memvit_info(config),
            compression=compression,
        )
        self.memory, self.boxes, self.in_channels = memory, boxes, in_channels
        remembered = range(config.depth if memory.reach else 0)
        self.remembering = tuple(index for index in remembered if index not in memory.exclude)
        self.box_blocks = nn.ModuleList()
        if boxes is not None:
            self.box_pooling = BoxPooling(boxes)
            last = self.plans[-1]
            drops = [boxes.drop_path * index / max(boxes.depth - 1, 1) for index in range(boxes.depth)]
            self.box_blocks.extend(BoxBlock(last.dim_out, last.heads, config, boxes, drop) for drop in drops)
            self.box_blocks.apply(self._init)
            if boxes.places:
                self.box_places = BoxPlaces(boxes.places, last.dim_out)
        self._freeze_unused()

    @property
    def stages(self) -> Mapping[str, nn.Module]:
        """None: the blocks' own memory is this network's."""
        return {}

    def _block(self, plan: BlockPlan, drop_path: float, compression: Compression | None) -> Block:
        return MemoryBlock(plan, self.config, drop_path, compression)

    def _freeze_unused(self) -> None:
        # What can receive no gradient asks for none: distributed training need not search for it.
        for index, block in enumerate(self.blocks):
            for name, parameter in _attention(block).memory_parameters.items():
                if index not in self.remembering or ("compress_" in name and not self.memory.learns):
                    parameter.requires_grad_(False)

    def compile_stages(self) -> None:
        """Compile the whole network, in place; keys stay as they are. Its states have fixed shapes: one graph."""
        self.compile()

    def entry_grids(self, height: int, width: int) -> list[Grid]:
        """(T, H, W) of every block's keys, for clips of a size in pixels."""
        config = self.config
        sides = zip(
            (height, width), config.patch_kernel[1:], config.patch_stride[1:], config.patch_padding[1:], strict=True
        )
        rows, columns = ((n + 2 * p - k) // s + 1 for n, k, s, p in sides)
        grid, grids = (config.grid[0], rows, columns), []
        for plan in self.plans:
            kv_kernel, q_kernel = plan.kernel_kv or (1, 1, 1), plan.kernel_q or (1, 1, 1)
            grids.append(pooled_grid(grid, kv_kernel, plan.stride_kv, causal=config.causal))
            grid = pooled_grid(grid, q_kernel, plan.stride_q, causal=config.causal)
        return grids

    def init_state(
        self,
        batch_size: int,
        *,
        size: tuple[int, int] | None = None,
        pending: bool | None = None,
        device: torch.device | str | None = None,
    ) -> MemvitState:
        """The memory of nothing, for B videos.

        Args:
            size: height and width of the clips in pixels; those of the training crop where `None`.
            pending: keep the newest entry uncompressed until the next step, so that its compression has a gradient;
                otherwise it is compressed at once, which gives the same outputs from a state of a third of the size or
                less. `None`: in training mode only. The naive compression keeps all entries uncompressed anyway.
            device: the model's where `None`.
        Raises: ValueError: `boundary="zero"`, which is defined by pending entries, without them.
        """
        pending = self.training if pending is None else pending
        memory, like = self.memory, self.norm.weight
        if memory.boundary == "zero" and not pending and memory.stride is not None:
            raise ValueError("boundary='zero' needs pending=True: it compresses the zeros that stand for another video")
        options: dict[str, Any] = {"reach": memory.reach, "gap": memory.gap, "dtype": like.dtype}
        options["device"] = like.device if device is None else device
        height, width = size or (self.config.crop, self.config.crop)
        grids, layers = self.entry_grids(height, width), []
        for index in self.remembering:
            own, compressed = grids[index], _attention(self.blocks[index]).compressed_grid(grids[index])
            tokens, shrunk = (int(self.config.class_token) + g[0] * g[1] * g[2] for g in (own, compressed))
            dim = self.plans[index].dim
            if memory.compression == "naive":
                layers.append(CachedState.init(batch_size, tokens=tokens, compressed_tokens=tokens, dim=dim, **options))
                continue
            kept, options["pending"] = (tokens, memory.waiting) if pending else (shrunk, 1)
            layers.append(CachedState.init(batch_size, tokens=kept, compressed_tokens=shrunk, dim=dim, **options))
        options["pending"] = 1
        for _ in range(len(self.box_blocks) if memory.reach else 0):
            slots = self.boxes.slots if self.boxes else 0
            layers.append(
                CachedState.init(batch_size, tokens=slots, compressed_tokens=slots, dim=self.num_features, **options)
            )
        frames: tuple[Tensor, ...] = ()
        if self.patch_embed.seen_before:
            shape = (batch_size, self.in_channels, self.patch_embed.seen_before, height, width)
            frames = (torch.zeros(shape, dtype=options["dtype"], device=options["device"]),)
        return MemvitState(tuple(layers), frames)

    def remember_features(self, clip_BCTHW: Tensor, state: MemvitState) -> tuple[Tensor, Grid, MemvitState]:
        """Normalised tokens `(B, L, D)`, their (T, H, W), and the caches after the clip (those of boxes unchanged)."""
        x_BLD, grid = self.embed(clip_BCTHW, *state.frames)
        if grid[0] != self.config.grid[0]:
            raise ValueError(f"a clip has {clip_BCTHW.shape[2]} frames, the model was made for {self.config.frames}")
        caches = dict(zip(self.remembering, state.layers, strict=False))
        layers = []
        for index, block in enumerate(self.blocks):
            x_BLD, grid, cache = block(x_BLD, grid, caches.get(index), self.memory)
            if cache is not None:
                layers.append(cache)
        # Of their own storage, so that the state does not keep whole clips alive.
        frames = tuple(clip_BCTHW[:, :, -old.shape[2] :].detach().to(old.dtype, copy=True) for old in state.frames)
        return self.last_norm(x_BLD), grid, MemvitState((*layers, *state.layers[len(layers) :]), frames)

    def forward(  # type: ignore[override]
        self, clip_BCTHW: Tensor, state: MemvitState, boxes_R5: Tensor | None = None
    ) -> tuple[Any, MemvitState]:
        """Judge the next clip of B videos.

        Args:
            clip_BCTHW: normalised; row b continues the video of row b of the state.
            state: of `init_state` or the step before, after `reset` of the rows whose video begins with this clip.
            boxes_R5: for models with a box head: row, x1, y1, x2, y2 in pixels of the clip.
        Returns: logits, see `MViT.forward_head` (`(R, K)` for boxes), and the state for the next step, without graph.
        Raises: ValueError: a state of another model or size; boxes without a box head, or none with one.
        """
        expected = len(self.remembering) + (len(self.box_blocks) if self.memory.reach else 0)
        if len(state.layers) != expected or len(state.frames) != bool(self.patch_embed.seen_before):
            found = f"{len(state.layers)} layers and {len(state.frames)} rows of frames"
            needed = f"{expected} and {int(bool(self.patch_embed.seen_before))}"
            raise ValueError(f"the state has {found}, the model needs {needed}")
        if (boxes_R5 is None) != (self.boxes is None):
            raise ValueError("boxes_R5 goes with a model that has a box head, and the other way round")
        features_BLD, grid, state = self.remember_features(clip_BCTHW, state)
        if boxes_R5 is None:
            return self.forward_head(features_BLD), state
        boxes_RD = self._pool_boxes(features_BLD, grid, boxes_R5)
        slots = scattered(boxes_RD, boxes_R5, clip_BCTHW.shape[0], self.boxes.slots if self.boxes else 0)
        x_BSD, state = self._attend_slots(slots.features_BSD, state)
        return self.head(gathered(x_BSD, slots)), state

    def forward_slots(
        self, clip_BCTHW: Tensor, state: MemvitState, boxes_BS4: Tensor, valid_BS: Tensor
    ) -> tuple[Tensor, MemvitState]:
        """`forward` with as many boxes a row as there are slots, some of which count: all shapes are fixed.

        Args:
            boxes_BS4: x1, y1, x2, y2 in pixels. valid_BS: bool, which are boxes.
        Returns: logits `(B, S, K)`, zeros where there is no box, and the state for the next step.
        """
        features_BLD, grid, state = self.remember_features(clip_BCTHW, state)
        boxes_BSD = self._pool_boxes(features_BLD, grid, boxes_of_slots(boxes_BS4)).unflatten(0, valid_BS.shape)
        x_BSD, state = self._attend_slots(torch.where(valid_BS[..., None], boxes_BSD, 0.0), state)
        return torch.where(valid_BS[..., None], self.head(x_BSD), 0.0), state

    def _pool_boxes(self, features_BLD: Tensor, grid: Grid, boxes_R5: Tensor) -> Tensor:
        tokens_BLD = features_BLD[:, 1:] if self.config.class_token else features_BLD
        pooled_RD: Tensor = self.box_pooling(tokens_BLD, grid, boxes_R5)
        if self.boxes is None or not self.boxes.places:
            return pooled_RD
        size = grid[1] * self.boxes.scale, grid[2] * self.boxes.scale
        return pooled_RD + self.box_places(boxes_R5, size).to(pooled_RD.dtype)

    def _attend_slots(self, x_BSD: Tensor, state: MemvitState) -> tuple[Tensor, MemvitState]:
        layers = list(state.layers[: len(self.remembering)])
        for index, block in enumerate(self.box_blocks):
            cache = state.layers[len(self.remembering) + index] if self.memory.reach else None
            x_BSD, cache = block(x_BSD, cache, self.memory)
            layers += [] if cache is None else [cache]
        return x_BSD, MemvitState(tuple(layers), state.frames)


def _attention(block: nn.Module) -> PoolingAttention:
    attention: PoolingAttention = block.attn  # type: ignore[assignment]
    return attention


def memvit_info(config: MvitConfig, stride: int = 4) -> ModelInfo:
    """How the published models are used."""
    origin = "arXiv 2201.08383; facebookresearch/MeMViT"
    return ModelInfo(MEAN, STD, config.crop, config.frames, stride, 30.0, "CC-BY-NC-4.0 (MeMViT)", origin)


def memvit_config(size: str) -> MvitConfig:
    """MeMViT-16 (16x4) and -24 (32x3): the network of MViTv2, pooling before the projections."""
    frames, depth, places, _ = SIZES[size]
    return MvitConfig(
        frames=frames,
        depth=depth,
        widen=tuple((place, 2.0) for place in places),
        q_strides=every_block(depth, places),
        pool_first=True,
        axes_rule="square",
        drop_path=0.4,
        head_dropout=0.5,
        init="memvit",
    )


def _build(
    config: MvitConfig,
    stride: int,
    num_classes: int,
    in_channels: int,
    dropout: float,
    memory: MemoryConfig,
    boxes: bool,
    remember: Sequence[int] | None,
    **options: Any,
) -> MeMViT:
    kept = range(0, config.depth, 2) if remember is None else remember
    return MeMViT(
        replace(config, head_dropout=dropout, **options),
        replace(memory, exclude=_all_but(kept, config.depth)),
        boxes=BoxConfig() if boxes else None,
        num_classes=num_classes,
        in_channels=in_channels,
        info=memvit_info(config, stride),
    )


def _all_but(kept: Sequence[int], depth: int) -> tuple[int, ...]:
    """The blocks that do not remember.

    Raises: ValueError: one that should does not exist.
    """
    if missing := [index for index in kept if not 0 <= index < depth]:
        raise ValueError(f"remember names blocks from 0 to {depth - 1}, got {missing[0]}")
    return tuple(index for index in range(depth) if index not in kept)


def memvit_16(
    *,
    num_classes: int = 400,
    in_channels: int = 3,
    dropout: float = 0.5,
    reach: int = 2,
    gap: int = 1,
    boundary: Literal["mask", "zero"] = "mask",
    boxes: bool = False,
    drop_path: float = 0.4,
    frame_level: bool = False,
    causal: bool = False,
    remember: Sequence[int] | None = None,
) -> MeMViT:
    """MeMViT-16, 16 frames at stride 4; every other layer remembers. 35.4 M parameters, 58.7 G multiply-adds a clip.

    The files published for AVA were trained with gap 2.
    Args: see `memvit_tiny`; `drop_path` of the last block; `remember`: every other block where `None`.
    """
    memory = MemoryConfig(reach=reach, gap=gap, boundary=boundary)
    options = {"frame_level": frame_level, "causal": causal}
    config = replace(memvit_config("16x4"), drop_path=drop_path)
    return _build(config, 4, num_classes, in_channels, dropout, memory, boxes, remember, **options)


def memvit_24(
    *,
    num_classes: int = 400,
    in_channels: int = 3,
    dropout: float = 0.5,
    reach: int = 2,
    gap: int = 1,
    boundary: Literal["mask", "zero"] = "mask",
    boxes: bool = False,
    drop_path: float = 0.4,
    frame_level: bool = False,
    causal: bool = False,
    remember: Sequence[int] | None = None,
) -> MeMViT:
    """MeMViT-24, 32 frames at stride 3; every other layer remembers. 52.6 M parameters, 213 G multiply-adds a clip.

    The files published for AVA were trained with gap 3.
    Args: see `memvit_tiny`; `drop_path` of the last block; `remember`: every other block where `None`.
    """
    memory = MemoryConfig(reach=reach, gap=gap, boundary=boundary)
    options = {"frame_level": frame_level, "causal": causal}
    config = replace(memvit_config("32x3"), drop_path=drop_path)
    return _build(config, 3, num_classes, in_channels, dropout, memory, boxes, remember, **options)


def memvit_tiny(
    *,
    num_classes: int = 400,
    in_channels: int = 3,
    dropout: float = 0.0,
    frames: int = 4,
    crop: int = 32,
    width: int = 24,
    kv_stride: int = 2,
    reach: int = 2,
    gap: int = 1,
    boundary: Literal["mask", "zero"] = "mask",
    remember: bool | Sequence[int] = True,
    frame_level: bool = False,
    causal: bool = False,
    boxes: bool = False,
    box_margin: float = 0.0,
    box_slots: int = 16,
    box_places: int = 0,
) -> MeMViT:
    """Four blocks for clips of 32 pixels, of which all remember, some or none (our own).

    Args:
        kv_stride: of the first block's keys and values, along height and width; later ones have less, as queries get
            fewer. Larger pictures want a larger one.
        remember: which blocks do; with `False` every block attends to the present clip alone: the twin without memory.
        frame_level: logits of every frame.
        causal: frames attend to no later ones.
        boxes: a head for boxes instead of whole clips, with one block over those of a clip.
        box_margin: share of a box's width that the head looks at on either side of it as well.
        box_slots: most boxes of a clip.
        box_places: frequencies by which a box's features are told where it is; 0 = not at all.
    """
    config = replace(
        tiny_config(frames, crop, width),
        kv_stride=(1, kv_stride, kv_stride),
        pool_first=True,
        axes_rule="square",
        init="memvit",
        head_dropout=dropout,
        frame_level=frame_level,
        causal=causal,
    )
    blocks = range(config.depth)
    kept = (blocks if remember else ()) if isinstance(remember, bool) else remember
    exclude = _all_but(kept, config.depth)
    if not boxes and (box_margin or box_places):
        raise ValueError(f"box_margin={box_margin} and box_places={box_places} are of the head for boxes: boxes=True")
    sizes: dict[str, Any] = {"kernel": (3, 3, 3), "stride": (2, 2, 2)}
    memory = MemoryConfig(reach=reach, gap=gap, exclude=exclude, boundary=boundary, **sizes)
    info = ModelInfo((0.5,) * 3, (0.25,) * 3, crop, frames, 1, 8.0, origin="wholereel's own")
    # A token of the last block stands for 16 pixels; the published dropout is that of a much larger network.
    none: dict[str, Any] = {"attention_dropout": 0.0, "qkv_dropout": 0.0, "dropout": dropout}
    box_head = BoxConfig(slots=box_slots, scale=16, margin=box_margin, places=box_places, **none)
    return MeMViT(
        config, memory, boxes=box_head if boxes else None, num_classes=num_classes, in_channels=in_channels, info=info
    )
