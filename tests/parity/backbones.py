"""Family of classical backbones in the layouts of PySlowFast, pytorchvideo, VMZ and MMAction2."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from tests.parity.golden import Golden, NotUnderstood, Outcome, check_fields
from tests.parity.layout_models import Case, Place, build_layout, check_case, keys_of
from wholereel.models import corrnet, csn, slow, slowfast, video_resnet
from wholereel.models.clip_model import ClipModel
from wholereel.models.layouts import OWN

__all__ = ["build_case", "check_backbone", "is_backbone"]

PYSLOWFAST = {"yaml", "num_frames", "train_crop", "test_crop", "arch", "depth", "alpha", "beta_inv", "fusion_ratio"}
PYSLOWFAST |= {"fusion_kernel", "num_block_temp_kernel", "nonlocal_location", "nonlocal_inst", "nonlocal_pool"}
PYSLOWFAST |= {"num_classes", "bn_eps", "head", "note", "inputs", "dropout", "mode", "loss", "bn_momentum"}
NAMED = {"model", "depth", "num_classes", "bn_eps", "alpha", "fusion_kernel", "note", "pool1", "output", "mode", "loss"}
NAMED |= {"speed_ratio", "resample_rate", "channel_ratio"}
NAMED |= {"groups", "conv1_stride_t", "pool1_stride_t", "pool2", "dropout", "bn_momentum", "num_frames", "frames"}


def is_backbone(golden: Golden) -> bool:
    """Whether the file's config names a network of these families."""
    settings = golden.meta.get("config") or {}
    layout = golden.meta.get("layout")
    if layout == "pyslowfast":
        return "nonlocal_location" in settings and settings.get("arch") in {"slowfast", *slow.KERNELS_T}
    return layout in BUILDERS and _family(settings) in BUILDERS[layout]


def _family(settings: dict[str, Any]) -> str:
    """`i3d_r50` -> `i3d`."""
    return re.sub(r"(_r?\d+)+$", "", str(settings.get("model", "")))


def check_backbone(golden: Golden) -> Outcome:
    """Build what the file asks for and compare."""
    return check_case(golden, build_case(golden))


def build_case(golden: Golden) -> Case:
    """The network that the file asks for."""
    settings = golden.meta["config"]
    if golden.meta["layout"] == "pyslowfast":
        return _pyslowfast(golden, settings)
    check_fields(settings, NAMED, "config")
    case: Case = BUILDERS[golden.meta["layout"]][_family(settings)](golden, settings)
    return case


def _depth(settings: dict[str, Any]) -> int:
    if "depth" in settings:
        return int(settings["depth"])
    return int(re.findall(r"\d+", settings["model"])[-1])


def _pyslowfast(golden: Golden, settings: dict[str, Any]) -> Case:
    check_fields(settings, PYSLOWFAST, "config")
    if settings.get("head", "logits") != "logits":
        raise NotUnderstood(f"no builder for head {settings['head']!r}")
    depth, two = settings["depth"], settings["arch"] == "slowfast"
    places = settings["nonlocal_location"]
    pools = [pool for stage in settings["nonlocal_pool"] for pool in stage]
    if any(pool != [1, 2, 2] for pool in pools) or (two and any(stage[1] for stage in places)):
        raise NotUnderstood("no builder for these pools or places of non-local blocks")
    options = {
        "num_classes": settings["num_classes"],
        "in_channels": golden.meta["input_shapes"][0][1],
        "bn_eps": settings["bn_eps"],
        "dropout": settings.get("dropout", 0.0),
        "non_local": {f"res{k}": tuple(stage[0]) for k, stage in enumerate(places, 2)},
        "affinity": settings["nonlocal_inst"],
    }
    counts = [stage[0] for stage in settings["num_block_temp_kernel"]]
    full = list(slow.DEPTHS[depth])
    if any(len(set(stage)) > 1 for stage in settings["num_block_temp_kernel"]):
        raise NotUnderstood("no builder for pathways with different numbers of temporal blocks")
    if counts[:2] != full[:2] or counts[3:] != full[3:] or (not two and counts != full):
        raise NotUnderstood(f"no builder for num_block_temp_kernel {settings['num_block_temp_kernel']}")
    model: ClipModel
    if two:
        model = slowfast.slowfast(
            depth,
            settings["num_frames"],
            settings["alpha"],
            settings["fusion_kernel"],
            None if counts[2] == full[2] else counts[2],
            beta=settings["beta_inv"],
            fusion_ratio=settings["fusion_ratio"],
            **options,
        )
    else:
        model = slow.slow_resnet(settings["arch"], depth, settings["num_frames"], 1, **options)
    # PySlowFast's head averages windows of the training crop's size, then their logits.
    window = settings["train_crop"] // 32
    keys = keys_of(model, build_layout(model, "pyslowfast"))
    return Case(model, keys, _in_pyslowfast(two), window, deep=depth > 100)


def _in_pyslowfast(two: bool) -> Any:
    def place(name: str) -> Place | None:
        found = re.fullmatch(r"s(\d)(_fuse)?\[(\d)\]", name)
        if found is None:
            return None
        stage, part = int(found[1]), int(found[3])
        if found[2]:
            return Place(f"res{stage + 1}.fusion", part)
        own = "stem" if stage == 1 else f"res{stage}"
        return Place(f"{own}.pathways.{part}" if two else own)

    return place


def _slowfast_ptv(golden: Golden, settings: dict[str, Any]) -> Case:
    slow_shape, fast_shape = golden.meta["input_shapes"]
    lateral = golden.meta["state_dict"]["blocks.0.multipathway_fusion.conv_fast_to_slow.weight"][0]
    model = slowfast.slowfast(
        _depth(settings),
        fast_shape[2],
        settings.get("alpha", fast_shape[2] // slow_shape[2]),
        settings.get("fusion_kernel", lateral[2]),
        num_classes=settings["num_classes"],
        bn_eps=settings["bn_eps"],
        dropout=0.0,
    )

    def place(name: str) -> Place | None:
        found = re.fullmatch(r"blocks\.([0-4])\[(\d)\]", name)
        if found is None:
            return None
        block, part = int(found[1]), int(found[2])
        return Place(f"res{block + 2}.fusion", part) if block < 4 else Place(f"res5.pathways.{part}")

    return Case(model, keys_of(model, build_layout(model, "pytorchvideo")), place, deep=_depth(settings) > 100)


def _slow_ptv(golden: Golden, settings: dict[str, Any]) -> Case:
    arch = _family(settings)
    model = slow.slow_resnet(
        arch, _depth(settings), 8, 8, num_classes=settings["num_classes"], bn_eps=settings["bn_eps"], dropout=0.0
    )
    stages = list(model.stages)

    def place(name: str) -> Place | None:
        found = re.fullmatch(r"blocks\.(\d)", name)
        if found is None:
            return None
        block = int(found[1])
        if arch != "slow" and block == 2:
            return Place("res3.blocks.0", before=True)
        return Place(stages[block - (arch != "slow" and block > 2)])

    return Case(model, keys_of(model, build_layout(model, "pytorchvideo")), place, deep=_depth(settings) > 100)


def _slowonly_mmaction2(golden: Golden, settings: dict[str, Any]) -> Case:
    model = slow.slow_resnet("slow", _depth(settings), 8, 8, bn_eps=settings["bn_eps"])
    keys = keys_of(model, build_layout(model, "mmaction2"), "backbone.", "cls_head.")
    return Case(model, keys, mmaction2_place(slow.RES_STAGES), features=True, deep=_depth(settings) > 100)


def _i3d_mmaction2(golden: Golden, settings: dict[str, Any]) -> Case:
    if (settings.get("conv1_stride_t", 2), settings.get("pool1_stride_t", 2)) != (2, 2):
        raise NotUnderstood("no builder for these temporal strides")
    model = slow.slow_resnet("i3d", _depth(settings), 32, 2, False, "mmaction2", bn_eps=settings["bn_eps"])
    keys = keys_of(model, build_layout(model, "mmaction2"), "backbone.", "cls_head.")
    return Case(model, keys, mmaction2_place(slow.RES_STAGES), features=True, deep=_depth(settings) > 100)


def _slowfast_mmaction2(golden: Golden, settings: dict[str, Any]) -> Case:
    alpha = settings.get("speed_ratio", settings.get("alpha"))
    if alpha is None or settings.get("resample_rate", alpha) != alpha:
        raise NotUnderstood("no builder for a fast pathway that leaves frames out")
    lateral = golden.meta["state_dict"]["slow_path.conv1_lateral.conv.weight"][0]
    fast_width = golden.meta["state_dict"]["fast_path.conv1.conv.weight"][0][0]
    depth = _depth(settings)
    model = slowfast.slowfast(
        depth,
        golden.meta["input_shapes"][0][2],
        alpha,
        settings.get("fusion_kernel", lateral[2]),
        None,
        False,
        "mmaction2",
        beta=settings.get("channel_ratio", 64 // fast_width),
        bn_eps=settings["bn_eps"],
    )

    def place(name: str) -> Place | None:
        found = re.fullmatch(r"(slow|fast)_path\.(maxpool|layer(\d))", name)
        if found is None:
            return None
        stage = "stem" if found[3] is None else slow.RES_STAGES[int(found[3])]
        return Place(f"{stage}.pathways.{0 if found[1] == 'slow' else 1}")

    keys = keys_of(model, build_layout(model, "mmaction2"), "backbone.", "cls_head.")
    parts = partial(slowfast.unpack, alpha=alpha, fast_channels=model.fast_channels)
    return Case(model, keys, place, features=True, deep=depth > 100, parts=parts)


def _r2plus1d_mmaction2(golden: Golden, settings: dict[str, Any]) -> Case:
    model = video_resnet.mmaction2_resnet(_depth(settings), 8, bn_eps=settings.get("bn_eps", 1e-3), dropout=0.0)
    keys = keys_of(model, build_layout(model, "mmaction2"), "backbone.", "cls_head.")
    return Case(model, keys, mmaction2_place(tuple(model.stages)), features=True, deep=_depth(settings) > 100)


def _vmz(golden: Golden, settings: dict[str, Any]) -> Case:
    """VMZ's PyTorch names are our own."""
    options = {
        option: settings[option]
        for option in ("num_classes", "bn_eps", "pool1", "dropout", "relu_between")
        if option in settings
    }
    options["in_channels"] = golden.meta["input_shapes"][0][1]
    family, depth = _family(settings), _depth(settings)
    model: ClipModel
    if _csn_mode(settings) is not None:
        model = csn.csn(_csn_mode(settings), depth, implementation=_exactly(settings), **options)
    elif family.startswith("rmc"):
        model = video_resnet.torchvision_resnet(int(family[3:]) - 2, True, **options)
    elif family.startswith("mc"):
        model = video_resnet.torchvision_resnet(int(family[2:]) - 2, **options)
    else:
        kind = "2plus1d" if family == "r2plus1d" else "3d"
        model = video_resnet.vmz_resnet(kind, depth, 8, 112, kind == "3d" and depth not in (18, 34), **options)
    return Case(model, keys_of(model, OWN), _in_own(model), deep=depth > 100)


def _csn_mode(settings: dict[str, Any]) -> Any:
    """Mode of `models.csn.separated`, `None` for other families; the paper's study splits into `groups`."""
    family = _family(settings)
    if family not in CSN_MODES:
        return None
    return f"group:{settings['groups']}" if "groups" in settings else CSN_MODES[family]


def _exactly(settings: dict[str, Any]) -> Any:
    """Gradients of norms over a few positions turn another order of summing into errors of 6e-3; `tests/models/`
    compares both ways in float64."""
    return "native" if settings.get("mode") == "train" else "auto"


def _in_own(model: ClipModel) -> Any:
    return lambda name: Place(name) if name in model.stages else None


def _csn(golden: Golden, settings: dict[str, Any], layout: str) -> Case:
    features = layout == "mmaction2"
    options = {option: settings[option] for option in ("num_classes", "bn_eps", "dropout") if option in settings}
    model = csn.csn(_csn_mode(settings), _depth(settings), implementation=_exactly(settings), **options)
    prefixes = ("backbone.", "cls_head.") if features else ()
    keys = keys_of(model, build_layout(model, layout), *prefixes)
    stages = tuple(model.stages)
    place = mmaction2_place(stages) if features else _in_blocks(stages)
    return Case(model, keys, place, features=features, deep=_depth(settings) > 100)


def _r2plus1d_ptv(golden: Golden, settings: dict[str, Any]) -> Case:
    middle = "2d" if _family(settings) == "r2d" else "2plus1d"
    options = {option: settings[option] for option in ("num_classes", "bn_eps", "dropout") if option in settings}
    model = corrnet.factorised_resnet(middle, _depth(settings), (32, 2), **options)
    place = _in_blocks(tuple(model.stages))
    return Case(model, keys_of(model, build_layout(model, "pytorchvideo")), place, deep=_depth(settings) > 100)


def _in_blocks(stages: tuple[str, ...]) -> Any:
    names = {f"blocks.{number}": Place(stage) for number, stage in enumerate(stages)}
    return names.get


def mmaction2_place(stages: tuple[str, ...]) -> Any:
    """`layer1` and so on; the stem's output is called `maxpool`."""

    def place(name: str) -> Place | None:
        names = {"maxpool": stages[0], **{f"layer{n}": stage for n, stage in enumerate(stages[1:], 1)}}
        return Place(names[name]) if name in names else None

    return place


# A file that does not say which of the two is meant comes from pytorchvideo, which has the reduced one only.
CSN_MODES = {"ir-csn": "ir", "ip-csn": "ip", "csn": "ir", "ir_csn": "ir", "ip_csn": "ip"}
BUILDERS: dict[str, dict[str, Any]] = {
    "pytorchvideo": {
        "slowfast": _slowfast_ptv,
        "csn": partial(_csn, layout="pytorchvideo"),
        **dict.fromkeys(("r2plus1d", "r2d"), _r2plus1d_ptv),
        **dict.fromkeys(("slow", "i3d", "c2d"), _slow_ptv),
    },
    "mmaction2-backbone": {
        **dict.fromkeys(("slowonly", "slow"), _slowonly_mmaction2),
        "i3d": _i3d_mmaction2,
        "r2plus1d": _r2plus1d_mmaction2,
        "slowfast": _slowfast_mmaction2,
        **dict.fromkeys(CSN_MODES, partial(_csn, layout="mmaction2")),
    },
    "vmz": dict.fromkeys(
        ("r2plus1d", "r3d", "resnet3d", *(f"{mixed}{x}" for mixed in ("mc", "rmc") for x in range(2, 6)), *CSN_MODES),
        _vmz,
    ),
}
