"""Finding the command, help, and what becomes of errors."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from wholereel import __version__
from wholereel.cli import main as entry
from wholereel.cli.main import COMMANDS, main
from wholereel.errors import ConfigError, DataError


@pytest.fixture
def failing(monkeypatch):
    """Make `wholereel list` raise what is given."""

    def install(error):
        def run(*_):
            raise error

        monkeypatch.setattr(entry, "_call", run)

    return install


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(words, capsys):
    assert main(words) == 0
    printed = capsys.readouterr().out
    for name, (_, line) in COMMANDS.items():
        assert name in printed
        assert line in printed


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"wholereel {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_and_has_its_own_help(name, capsys):
    module, _, function = COMMANDS[name][0].partition(":")
    first_line = getattr(importlib.import_module(module), function).__doc__.splitlines()[0]
    assert main([*name.split(), "--help"]) == 0
    assert first_line[:40] in capsys.readouterr().out


@pytest.mark.parametrize("words", [["worlds"], ["worlds", "--help"]])
def test_a_group_lists_its_own_commands(words, capsys):
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "worlds ceilings" in printed
    assert "predict" not in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["trian"],
            "error: no command 'trian'. Did you mean 'train'? There are: demo, list, models, profile, data, worlds,",
        ),
        (
            ["worlds", "mkae"],
            "error: no command 'worlds mkae'. Did you mean 'make'? There are: list, make, ceilings, verify, picture.",
        ),
        (["train", "mach8"], "error: no recipe named 'mach8'. Did you mean 'match8'?"),
        (["train", "match8", "--set", "stages.pretrain.optim.learning=1"], "error: --set: no setting 'learning' in "),
        (["train", "match8", "--set", "stages.pretrain.optim.name=adam"], "Did you mean 'adamw'?"),
        (["train", "match8", "--devices", "gpu"], "error: --devices gpu: expected auto, cpu, cuda, cuda:N or a number"),
        (["models", "tinny*"], "error: no model matches 'tinny*'."),
        (["worlds", "make", "match9", "x"], "error: no world 'match9'. Did you mean 'match8'?"),
        (["worlds", "make", "match8", "x", "--sizes", "train"], "error: --sizes train: expected SPLIT=N"),
        (["data", "check", "nowhere"], "error: nowhere: no such file or folder"),
        (["predict", "nowhere", "a.mp4"], "error: nowhere: no such folder"),
        (["evaluate", "nowhere", "--data", "x"], "error: nowhere: no such folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words, message, capsys):
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    "words", [["train"], ["train", "match8", "--epocs", "3"], ["train", "match8", "--epochs", "x"]]
)
def test_words_that_do_not_fit_a_command_are_explained(words, capsys):
    assert main(words) == 2
    printed = capsys.readouterr()
    assert "wholereel train --help" in printed.out + printed.err


@pytest.mark.parametrize("error", [ConfigError("wrong"), DataError("a.mp4", "is empty"), KeyboardInterrupt()])
def test_debug_shows_the_traceback(error, failing):
    failing(error)
    with pytest.raises(type(error)):
        main(["list", "--debug"])


def test_an_interrupted_command_says_so(failing, capsys):
    failing(KeyboardInterrupt())
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_error_of_the_system_names_the_file(failing, capsys):
    failing(FileNotFoundError(2, "No such file or directory", "a.csv"))
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "error: a.csv: No such file or directory\n"


def test_our_own_faults_keep_their_traceback(failing):
    failing(IndexError("ours"))
    with pytest.raises(IndexError):
        main(["list"])


@pytest.mark.parametrize("names", [("RANK", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_LOCALID")])
@pytest.mark.parametrize(
    ("ranks", "error", "printed"),
    [
        (("0", "0"), ConfigError("wrong"), "error: wrong\n"),
        (("1", "1"), ConfigError("wrong"), ""),
        (("8", "0"), ConfigError("wrong"), "process 8: error: wrong\n"),  # another machine may have other folders
        (("0", "0"), DataError("a.mp4", "is empty"), "error: a.mp4: is empty.\n"),
        (("3", "3"), DataError("a.mp4", "is empty"), "process 3: error: a.mp4: is empty.\n"),
        (("3", "3"), FileNotFoundError(2, "No such file", "a.csv"), "process 3: error: a.csv: No such file\n"),
    ],
)
def test_of_several_processes_each_tells_of_its_own_files(names, ranks, error, printed, failing, capsys, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, rank in zip(names, ranks, strict=True):
        monkeypatch.setenv(name, rank)
    failing(error)
    assert main(["list"]) == 2
    assert capsys.readouterr().err == printed


def test_a_reader_that_goes_away_is_no_error():
    words = [sys.executable, "-m", "wholereel", "train", "match8", "--show"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
