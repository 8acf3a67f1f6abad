"""Clip models with a bank: begin as they were, learn from the bank, are stored, and find the right entries."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.inference.builders import CLIPS, moving_square, package
from wholereel import config
from wholereel.batches import Bank, ClipBatch, Losses, Target
from wholereel.cli.main import main
from wholereel.config import Augment, BankHead, BankWindow, Data, Extract, Model, Optim, Train, Views
from wholereel.datasets.bank_windows import BankWindows
from wholereel.datasets.clip_dataset import ClipDataset, collate
from wholereel.datasets.manifest import read_manifest
from wholereel.errors import ConfigError, DataError
from wholereel.evaluation.evaluate import evaluate
from wholereel.inference import Predictor
from wholereel.inference.export_source import source_model
from wholereel.inference.extract import extract
from wholereel.inference.stream import Stream
from wholereel.models.bank_model import BankModel
from wholereel.models.package import build_model, load_package
from wholereel.models.registry import create_model
from wholereel.tasks import TASKS
from wholereel.training.checks import check_train
from wholereel.training.fit import fit
from wholereel.training.strategies import create_strategy

HEAD = BankHead(width=16, features=5)
VIEWS = Views(clips=dataclasses.replace(CLIPS, plan="contiguous", count=1000), short_side=36, crop=32)


def batch(clips: int = 3) -> ClipBatch:
    generator = torch.Generator().manual_seed(0)
    return ClipBatch(
        clips_BNTCHW=torch.randint(256, (2, clips, 4, 3, 16, 16), generator=generator, dtype=torch.uint8),
        seconds_BNT=torch.zeros(2, clips, 4, dtype=torch.float64),
        valid_BN=torch.tensor([[True] * clips, [True] * (clips - 1) + [False]]),
        target=Target({"label": torch.tensor([0, 1])}),
        ids=("a", "b"),
        bank=Bank(torch.randn(2, 7, 5, generator=generator), torch.rand(2, clips, 7, generator=generator) > 0.4),
    )


def task(kind: str = "nl") -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BankModel(create_model("tiny2d", num_classes=2, width=8), dataclasses.replace(HEAD, kind=kind))
        torch.nn.init.normal_(model.bank_fc.weight)
    return TASKS["classify"](model, config.Task(), 2).double()


@pytest.mark.parametrize("kind", ["avg", "max", "nl"])
def test_all_strategies_that_serve_it_give_one_gradient(kind: str) -> None:
    found = {}
    for name in ("full", "exact", "batch_reduction"):
        one = task(kind).eval()  # no dropout: both passes of `exact` draw alike, but not as one call does
        create_strategy(config.Strategy(name), torch.enable_grad).backward(one, batch(), Losses.total, lambda: None)
        found[name] = {key: parameter.grad for key, parameter in one.named_parameters()}
        assert all(gradient is not None for gradient in found[name].values())
    for key, gradient in found["full"].items():
        torch.testing.assert_close(found["exact"][key], gradient, rtol=1e-10, atol=1e-14)
        assert torch.equal(found["batch_reduction"][key], gradient)


def test_clips_are_judged_one_by_one() -> None:
    one = task().eval()
    together = one.predict(batch())
    assert torch.equal(together.clip_logits["label"], one.predict(batch(), alone=True).clip_logits["label"])
    half = batch()
    model, inputs = one.model, one.inputs(half)
    logits, _ = model(inputs[:, 1], bank=half.bank.of_clips(slice(1, 2)))
    torch.testing.assert_close(logits, together.clip_logits["label"][:, 1])
    with pytest.raises(ValueError, match="this model reads a bank of features of each video"):
        model(inputs)


def test_a_trained_clip_model_says_at_first_what_it_said(tmp_path) -> None:
    package(tmp_path, None)
    plain = load_package(tmp_path).video_model
    model = build_model(Model("tiny2d", f"file:{tmp_path}", bank=HEAD), 2)
    clips = torch.randn(2, 3, 3, 4, 32, 32)
    assert isinstance(model, BankModel)
    torch.testing.assert_close(model.eval()(clips, bank=batch().bank)[0], plain(clips)[0])


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for index, frames in enumerate((37, 20, 24, 50)):
        folder = root / ("left", "right")[index % 2]
        moving_square(folder / f"v{index}.mp4", frames=frames, right=bool(index % 2), seed=index)
    package(root.parent / "plain" / "best", None)
    settings = Extract("", Data(split=None), VIEWS, shards=2)
    extract(settings, read_manifest(root), root.parent / "bank", package=root.parent / "plain", device="cpu")
    return root


def test_windows_are_entries_around_the_middle(data_set) -> None:
    windows = BankWindows(BankWindow(str(data_set.parent / "bank"), seconds=1.0))
    (id_,) = [sample.id for sample in read_manifest(data_set).samples if "v3" in sample.id]
    entries = windows.shards[id_]  # clips of 0.8 s: middles 0.4, 1.2, ..., 4.6
    entries_ME, inside_NM = windows.read(id_, torch.tensor([1.2, 1.65, 99.0], dtype=torch.float64))
    assert torch.equal(entries_ME, entries.clips["features"][1:3])
    assert inside_NM.tolist() == [[True, False], [True, True], [False, False]]
    nothing, none = windows.read(id_, torch.tensor([99.0], dtype=torch.float64))
    assert nothing.shape == (0, 96)
    assert none.shape == (1, 0)
    with pytest.raises(ConfigError, match="bank.seconds must be positive, got 0"):
        BankWindows(BankWindow(str(data_set.parent / "bank"), seconds=0))


def test_from_training_to_evaluation(data_set, tmp_path, capsys) -> None:
    bank = BankWindow(str(data_set.parent / "bank"), seconds=4.0)
    clips = dataclasses.replace(CLIPS, count=2)
    data = Data(str(data_set), None, clips=clips, augment=Augment((36, 36), 32), workers=0, bank=bank)
    manifest = read_manifest(data_set)
    sample = collate([ClipDataset(manifest, data, train=True, seed=0)[0, index] for index in (0, 3)])
    assert sample.bank.entries_BME.shape[0] == 2
    assert sample.bank.inside_BNM.any(2).all()
    head = BankHead(width=16)
    model = Model("tiny2d", f"file:{data_set.parent / 'plain'}/best", bank=head)
    train = Train(model, data, optim=Optim("adamw", lr=1e-3), epochs=2, batch=2)
    fitted = fit(train, manifest, tmp_path / "run", device="cpu", stream=None)
    stored = load_package(fitted.package)
    assert stored.spec.bank == head
    assert stored.video_model.bank_fc.weight.abs().sum() > 0
    for crops in (1, 3):
        views = Views(clips=dataclasses.replace(clips, plan="uniform"), short_side=36, crop=32, crops=crops)
        results = evaluate(fitted.package, manifest, views, data=data, device="cpu")
        assert len(results.records) == 4
        assert results.metrics["clip_top1_shared"] == results.metrics["clip_top1_alone"]
        assert "each view is judged with a bank of features of its video" in str(results)
    with pytest.raises(ConfigError, match="reads a bank of features of each video, which a file alone does not have"):
        Predictor(fitted.package)
    with pytest.raises(ConfigError, match="which a file alone does not have"):
        Stream(fitted.package, device="cpu")
    with pytest.raises(ConfigError, match="which a file alone does not have"):
        source_model(fitted.package)
    words = ["evaluate", str(fitted.package), "--data", str(data_set), "--device", "cpu"]
    assert main([*words, "--set", f"data.bank={{root: {bank.root}, seconds: 4.0}}"]) == 0
    assert "4 of 4 evaluated" in capsys.readouterr().out
    assert main(words) == 2
    assert "needs data.bank" in capsys.readouterr().err


def test_settings_that_do_not_fit(data_set, tmp_path) -> None:
    data = Data("videos", bank=BankWindow("bank"))
    with pytest.raises(ConfigError, match="model.bank is null and data.bank is set"):
        check_train(Train(Model("tiny2d"), data))
    with pytest.raises(ConfigError, match="model.bank is set and val.bank is null"):
        check_train(Train(Model("tiny2d", bank=HEAD), data, val=Data("videos")))
    with pytest.raises(ConfigError, match="clips exchange nothing. Use 'full', 'exact' or 'batch_reduction'"):
        check_train(Train(Model("tiny2d", bank=HEAD), data, strategy=config.Strategy("multi_iteration")))
    with pytest.raises(ConfigError, match="model.bank takes the place of a memory"):
        build_model(Model("tiny2d", memory=config.Memory(), bank=HEAD), 2)
    with pytest.raises(ValueError, match="a model that reads a bank has no memory blocks"):
        BankModel(create_model("tiny2d"), HEAD).rebuilt(create_model("tiny2d"), config.Memory())
    extract(
        Extract("", Data(split=None), VIEWS, what=("logits",)),
        read_manifest(data_set),
        tmp_path,
        package=data_set.parent / "plain",
        device="cpu",
    )
    with pytest.raises(DataError, match="has no features"):
        BankWindows(BankWindow(str(tmp_path)))
