"""Detectors: the head against its formula, both ways of reading a memory, every registered clip model."""

import copy
from dataclasses import replace

import pytest
import torch
from torchvision.ops import roi_align

from tests.tasks.detections import CLASSES, detector, key_batch
from wholereel import config
from wholereel.errors import CheckpointError
from wholereel.layers.bottleneck import BlockPlan, Stage, stage_blocks
from wholereel.layers.dilation import dilate
from wholereel.layers.roi_pooling import pool_boxes
from wholereel.models.conversion import to_clip_level, to_video_level
from wholereel.models.package import build_model, load_package, save_package
from wholereel.models.registry import create_model, list_models
from wholereel.models.slowfast import unpack
from wholereel.models.weights import check_settings

ASSOC = config.Memory(dim=6, value="separate", value_dim=5)
BOXES = torch.tensor([[1.0, 4.0, 6.0, 30.0, 28.0], [0.0, 0.0, 0.0, 12.0, 31.0], [1.0, 10.0, 2.0, 20.0, 12.0]])


def clips(batch=2, count=3, frames=4, height=32, width=40, seed=0):
    shape = (batch, count, 3, frames, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_boxes_are_pooled_as_in_the_public_code():
    maps = torch.randn(2, 6, 3, 5, 8, dtype=torch.float64)
    boxes = BOXES.double()
    expected = torch.nn.functional.max_pool2d(roi_align(maps.mean(2), boxes, 7, 1 / 4, 0, True), 7)[:, :, 0, 0]
    assert torch.equal(pool_boxes(maps, boxes, scale=1 / 4), expected)
    assert pool_boxes(maps, boxes[:0], scale=1 / 4).shape == (0, 6)


# The deepest ones have the stages of the others, more often.
@pytest.mark.parametrize("name", [name for name in list_models(kind="clip") if not name.endswith(("101", "152"))])
def test_every_clip_model_detects(name):
    small = {} if name.startswith("tiny") else {"width": 8}
    model = detector(None, name=name, **small).eval()
    pixels = torch.randn(2, 3, 8, 64, 80, generator=torch.Generator().manual_seed(1))
    boxes_R5 = BOXES * torch.tensor([1, 2, 2, 2, 2])
    with torch.no_grad():
        logits_RK, _ = model(pixels, boxes_R5=boxes_R5)
        x = model.clip_model.forward_features(pixels)
        pathways = (
            unpack(x, model.clip_model.alpha, model.clip_model.fast_channels) if name.startswith("slowfast") else [x]
        )
        reduction = model.clip_model.feature_info[-1]["reduction"][1]
        rois = [roi_align(part.mean(2), boxes_R5, 7, 1 / reduction, 0, True).amax((2, 3)) for part in pathways]
        expected = model.clip_model.get_submodule(model.clip_model.classifier)(torch.cat(rois, 1))
    torch.testing.assert_close(logits_RK, expected, rtol=1e-4, atol=1e-4)
    assert x.shape[3] == -(-64 // reduction)  # the scale is that of the maps


def test_token_networks_pool_their_grid():
    """The class token has no place in the picture."""
    model = detector(None, name="mvit_tiny", width=24).eval()
    pixels, boxes_R5 = torch.randn(2, 3, 8, 32, 48, generator=torch.Generator().manual_seed(1)), BOXES
    with torch.no_grad():
        tokens_BLD = model.clip_model.forward_features(pixels)[:, 1:]
        maps = tokens_BLD.unflatten(1, (-1, 2, 3)).mean(1).movedim(-1, 1)
        rois = roi_align(maps, boxes_R5, 7, 1 / 16, 0, True).amax((2, 3))
        logits_RK, _ = model(pixels, boxes_R5=boxes_R5)
        torch.testing.assert_close(logits_RK, model.clip_model.classify(rois), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny_r2plus1d", "slowfast_4x16_50", "mvit_tiny"])
def test_the_gate_of_a_clip_commutes_with_the_pooling(name):
    """Identity 2: multiplying the map in front of the pooling is multiplying the boxes' vectors behind it."""
    model = detector(ASSOC, name=name).double().eval()
    pixels = clips(frames=8)
    boxes_R5 = BOXES.double() * torch.tensor([3, 1, 1, 1, 1]) + torch.tensor([1, 0, 0, 0, 0])  # rows 4, 1, 4
    assert model.summarises
    with torch.no_grad():
        late, state = model(pixels, boxes_R5=boxes_R5)
        early = model.box_head(model.infused(pixels), boxes_R5)
        summary = model.summarise_boxes(pixels, boxes_R5)
    torch.testing.assert_close(late, early, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.read_boxes(summary, state), late, rtol=1e-12, atol=1e-12)
    assert summary.video_R.tolist() == [1, 0, 1]


def test_boxes_that_ask_for_themselves():
    """`roi`: each box's gate is sigmoid(x_r W_q M W_o), with the memory of its own video."""
    model = detector(ASSOC, "roi").double().eval()
    pixels, boxes_R5 = clips(), BOXES.double() * torch.tensor([3, 1, 1, 1, 1])  # rows 3, 0, 3
    with torch.no_grad():
        found, state = model(pixels, boxes_R5=boxes_R5)
        maps = model.clip_model.forward_features(pixels.flatten(0, 1))
        rois = pool_boxes(maps, boxes_R5, scale=1 / 8)
        block = model.memories["last"]
        for row, video in enumerate([1, 0, 1]):
            memory = state.places[0].sum_BPV[video] / 3
            gate = torch.sigmoid(rois[row] @ block.w_q.weight.T @ memory @ block.w_o.weight.T)
            expected = model.clip_model.fc(rois[row] * (1 + gate))
            torch.testing.assert_close(found[row], expected, rtol=1e-12, atol=1e-12)
    clipwise = detector(ASSOC, "clip").double().eval()(pixels, boxes_R5=boxes_R5)[0]
    assert not torch.allclose(found, clipwise)


MEMORIES = [
    (ASSOC, "clip"),
    (ASSOC, "roi"),
    (config.Memory(dim=6, infusion="residual"), "clip"),
    (config.Memory(dim=6, infusion="residual"), "roi"),
    (config.Memory(dim=6, after=("layer2",)), "clip"),
    (config.Memory(dim=6, after=("layer1", "last")), "clip"),
    (config.Memory(dim=6, interaction="nl_softmax"), "clip"),
    (config.Memory(dim=6, interaction="max"), "roi"),
    (config.Memory(dim=6, interaction="avg"), "clip"),
    (config.Memory(dim=6, clip_pos=4), "roi"),
]


@pytest.mark.parametrize(("memory", "read"), MEMORIES)
def test_masked_clips_are_as_good_as_absent(memory, read):
    model = detector(memory, read).double().eval()
    pixels = clips(count=4)
    valid_BN = torch.tensor([[True, True, False, True], [True, True, False, True]])
    boxes_R5 = torch.tensor([[1, 4, 6, 30, 28], [7, 0, 0, 12, 31]]).double()
    with torch.no_grad():
        masked, _ = model(pixels, None, valid_BN, boxes_R5=boxes_R5)
        rows = boxes_R5 - torch.tensor([[0, 0, 0, 0, 0], [2, 0, 0, 0, 0]])  # 7 = 4 + 3 becomes 5 = 3 + 2
        absent, _ = model(pixels[:, [0, 1, 3]], boxes_R5=rows)
        other = pixels.clone()
        other[:, 2] = 99.0
        changed, _ = model(other, None, valid_BN, boxes_R5=boxes_R5)
    torch.testing.assert_close(masked, absent, rtol=1e-9, atol=1e-9)
    assert torch.equal(masked, changed)


@pytest.mark.parametrize(
    ("memory", "read"), [(ASSOC, "clip"), (ASSOC, "roi"), (config.Memory(dim=6, clip_pos=4), "roi")]
)
def test_a_state_goes_on(memory, read):
    """The last of three clips, given the state of the first two, is judged as in one call."""
    model = detector(memory, read).double().eval()
    pixels = clips()
    with torch.no_grad():
        whole, all_seen = model(pixels, boxes_R5=torch.tensor([[5, 4, 6, 30, 28]]).double())
        _, state = model(pixels[:, :2], boxes_R5=torch.zeros(0, 5).double())
        step, state = model(pixels[:, 2], state, boxes_R5=torch.tensor([[1, 4, 6, 30, 28]]).double())
    torch.testing.assert_close(step, whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state.places[0].sum_BPV, all_seen.places[0].sum_BPV)


def test_what_cannot_be_read_is_refused():
    words = r"boxes\.read='roi' asks one block in front of the head .* memory\.after=\('layer2',\)"
    with pytest.raises(ValueError, match=words):
        detector(config.Memory(dim=6, after=("layer2",)), "roi")
    with pytest.raises(ValueError, match=r"with 'nl_dot'; use boxes\.read='clip'"):
        detector(config.Memory(dim=6, interaction="nl_dot"), "roi")
    with pytest.raises(ValueError, match="boxes.read must be one of .*, got 'eye'"):
        detector(None, "eye")
    with pytest.raises(ValueError, match="a detector judges boxes"):
        detector(None).head(torch.zeros(1))
    with pytest.raises(ValueError, match="the state has 0 places, the model 1"):
        detector(ASSOC)(clips().float(), detector(None).init_state(2), boxes_R5=BOXES)


@pytest.mark.parametrize("read", ["clip", "roi"])
def test_inserting_a_memory_leaves_the_logits(read):
    model = detector(None, read).double().eval()
    with_memory, report = to_video_level(model, ASSOC)
    pixels = clips()
    with torch.no_grad():
        before, _ = model(pixels, boxes_R5=BOXES.double())
        after, _ = with_memory(pixels, boxes_R5=BOXES.double())
        back, _ = to_clip_level(with_memory)[0](pixels, boxes_R5=BOXES.double())
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(back, before, rtol=1e-12, atol=1e-12)
    assert (with_memory.boxes.read, type(with_memory)) == (read, type(model))
    assert report.rescaled == ("clip_model.fc.weight",)


def test_packages_of_detectors(tmp_path):
    spec = config.Model("tiny_r2plus1d", options={"width": 8}, boxes=config.BoxHead("roi", resolution=5), memory=ASSOC)
    model = build_model(spec, CLASSES).eval()
    given = {
        "mean": (0.5,) * 3,
        "std": (0.25,) * 3,
        "short_side": 32,
        "crop": 0,
        "clips": config.Clips(window=4.0, count=3),
    }
    names = tuple("abc")
    save_package(tmp_path, model, spec=spec, num_classes=3, classes=names, task=config.Task("detect"), input=given)
    loaded = load_package(tmp_path)
    assert (loaded.spec, loaded.clips) == (spec, given["clips"])
    pixels = clips().float()
    with torch.no_grad():
        assert torch.equal(loaded.model(pixels, boxes_R5=BOXES)[0], model(pixels, boxes_R5=BOXES)[0])
    # A detector begins from a clip model's weights, and a detector with memory from one without.
    again = build_model(config.Model(spec.name, f"file:{tmp_path}", spec.options, boxes=spec.boxes), CLASSES)
    assert torch.equal(again.clip_model.stem.spatial.conv.weight, model.clip_model.stem.spatial.conv.weight)
    assert again.memory is None
    assert key_batch().target.boxes is not None
    assert create_model("tiny2d", num_classes=2).head_map(pixels) is pixels


# One of each family that has a last stage to dilate.
DILATED = (
    "c2d_50",
    "i3d_50",
    "slow_4x16_50",
    "slowfast_4x16_50",
    "r2plus1d_18",
    "r3d_18",
    "mc3_18",
    "resnet3d_26",
    "ir_csn_26",
    "ip_csn_26",
    "r2plus1d_ptv_26",
    "corrnet_26",
)


@pytest.mark.parametrize("name", DILATED)
def test_the_last_stage_may_be_dilated(name):
    """Same weights, maps of the size of the stage before."""
    plain = create_model(name, num_classes=2, width=8).eval()
    dilated = create_model(name, num_classes=2, width=8, dilated=True).eval()
    dilated.load_state_dict(plain.state_dict())
    reduction = [info["reduction"] for info in dilated.feature_info[-2:]]
    assert reduction[1][1:] == reduction[0][1:]
    pixels = torch.randn(1, 3, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    stages = list(plain.stages)
    with torch.no_grad():
        x = pixels
        for stage in stages[:-1]:
            x = dilated.stages[stage](x)
        wide, narrow = dilated.stages[stages[-1]](x), plain.stages[stages[-1]](x)
    assert wide.shape[3:] == x.shape[3:]
    assert wide.shape[2] == narrow.shape[2]
    assert torch.isfinite(wide).all()


def test_dilated_kernels_see_every_other_position():
    """A stage of stride 1 whose kernels are dilated gives, at every other position, what the stage gives on every other
    position."""
    stage = Stage(stage_blocks(2, BlockPlan(8, 8, 16, (1, 1)))).eval()
    other = copy.deepcopy(stage)
    dilate(other)
    x = torch.randn(1, 8, 2, 12, 12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(
            other(x)[..., ::2, 1::2], stage(x[..., ::2, 1::2].contiguous()), rtol=1e-5, atol=1e-5
        )


def test_weights_without_dilation_fit_a_dilated_network(tmp_path):
    sizes = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "short_side": 32, "crop": 32, "clips": config.Clips()}
    plain = config.Model("slow_8x8_50", options={"width": 8})
    wide = config.Model("slow_8x8_50", options={"width": 8, "dilated": True}, boxes=config.BoxHead())

    def saved(spec, model, folder):
        task = config.Task() if spec.boxes is None else config.Task("detect")
        names = tuple("abc")
        return save_package(folder, model, spec=spec, num_classes=3, classes=names, task=task, input=sizes)

    given = build_model(plain, 3)
    model = build_model(replace(wide, weights=f"file:{saved(plain, given, tmp_path / 'plain')}"), 3)
    assert torch.equal(model.clip_model.stem.conv.weight, given.clip_model.stem.conv.weight)
    with pytest.raises(CheckpointError, match="says dilated=True, expected dilated=False"):
        check_settings(given.clip_model, {"dilated": True}, tmp_path, "it says")
    check_settings(model.clip_model, {"dilated": False}, tmp_path, "it says")
