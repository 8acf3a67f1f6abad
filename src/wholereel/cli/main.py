"""Entry point of `wholereel`: find the command, let it parse its own words, turn errors into one line and an exit code.

Only this file and the module of the command that was named are imported; `wholereel --help` reads the table below and
needs neither torch nor tyro. For this reason imports inside functions are the rule in `cli/`, and nowhere else.
Exit codes: 0 done, 1 a check found problems, 2 a mistake that the message explains, 130 interrupted, 141 the reader of
the output went away.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

from wholereel import __version__
from wholereel.errors import ConfigError, WholereelError, closest

__all__ = ["COMMANDS", "main"]

# Words of a command -> (module:function, one line for the help).
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("wholereel.cli.train:demo", "the first run: make videos, train, evaluate, predict, report"),
    "list": ("wholereel.cli.catalogue:list_recipes", "the recipes"),
    "models": ("wholereel.cli.catalogue:models", "the models, optionally those that match a pattern"),
    "profile": ("wholereel.cli.profile:profile", "parameters, multiply-adds and activations, the memory's share"),
    "data check": ("wholereel.cli.data:check", "every problem of a data set, before a night is lost"),
    "data list": ("wholereel.cli.data:list_datasets", "published data sets that are read in their official form"),
    "data prepare": ("wholereel.cli.data:prepare", "a manifest of one of them; says what is missing"),
    "data lists": ("wholereel.cli.data:lists", "a data set as lists for PySlowFast"),
    "data pack": ("wholereel.cli.pack:pack", "a data set in tar shards, optionally encoded anew"),
    "data formats": ("wholereel.cli.data:formats", "the layouts and lists that are read"),
    "worlds list": ("wholereel.cli.worlds:list_worlds", "generated data sets"),
    "worlds make": ("wholereel.cli.worlds:make", "generate one"),
    "worlds ceilings": ("wholereel.cli.worlds:ceilings", "its proved best scores"),
    "worlds verify": ("wholereel.cli.worlds:verify", "check a generated folder against its own record"),
    "worlds picture": ("wholereel.cli.worlds:picture", "a page of its frames and sounds"),
    "train": ("wholereel.cli.train:train", "run a recipe, by name or as module:function"),
    "evaluate": ("wholereel.cli.evaluate:evaluate", "measure a trained model on a data set"),
    "metrics videos": ("wholereel.cli.metrics:videos", "accuracy, or average precision and Hit@k, of any videos"),
    "metrics ava": ("wholereel.cli.metrics:ava", "frame-mAP of boxes, from AVA's files"),
    "metrics epic": ("wholereel.cli.metrics:epic", "verbs, nouns and actions of EPIC-KITCHENS-100, from scores"),
    "metrics epic-anticipation": ("wholereel.cli.metrics:epic_anticipation", "the same before they happen"),
    "metrics charades": ("wholereel.cli.metrics:charades", "videos or moments of Charades, from scores"),
    "metrics posetrack": ("wholereel.cli.metrics:posetrack", "AP and MOTA of poses, from PoseTrack's files"),
    "metrics folds": ("wholereel.cli.metrics:folds", "the mean over the folds of UCF101, HMDB51 or ESC-50"),
    "metrics coco-keypoints": ("wholereel.cli.metrics:coco_keypoints", "AP of key points, from COCO's files"),
    "stream": ("wholereel.cli.stream:stream", "classes of a live or endless video, clip by clip"),
    "predict": ("wholereel.cli.predict:predict", "classes and timeline of video files"),
    "extract": ("wholereel.cli.extract:extract", "features, logits or scores of all clips of a data set, in shards"),
    "convert": ("wholereel.cli.convert:convert", "published weights as safetensors, or in another layout"),
    "export": ("wholereel.cli.export:export", "one step of a model as a torch.export or ONNX file"),
    "doctor": ("wholereel.cli.doctor:doctor", "what this machine has, what is missing, what to do"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words behind `wholereel`; `None` = those of this process.
    Returns: the exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _run(words)
    except KeyboardInterrupt:
        if debug:
            raise
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has gone. Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (WholereelError, OSError) as error:
        if debug:
            raise
        _report(error)
        return 2


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help(""))
        return 0
    if words[0] in ("-V", "--version"):
        print(f"wholereel {__version__}")
        return 0
    command, rest = _split(words)
    if command not in COMMANDS:
        print(_help(command))  # a group, asked for without its second word
        return 0
    target, _ = COMMANDS[command]
    module, _, function = target.partition(":")
    run: Callable[..., int] = getattr(importlib.import_module(module), function)
    return _call(run, command, rest)


def _call(run: Callable[..., int], command: str, words: list[str]) -> int:
    import tyro

    try:
        code: int = tyro.cli(run, prog=f"wholereel {command}", args=words, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as end:  # tyro has printed a help text or what is wrong with the words
        return end.code if isinstance(end.code, int) else 2
    sys.stdout.flush()  # here, where a broken pipe is still caught
    return code


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The command (or group) at the head of the words, and the rest; an unknown word gets the nearest known one."""
    first = words[0]
    if first in COMMANDS:
        return first, words[1:]
    seconds = [name.split()[1] for name in COMMANDS if name.startswith(f"{first} ")]
    if not seconds:
        names = list(dict.fromkeys(name.split()[0] for name in COMMANDS))
        raise ConfigError(f"no command {first!r}.{closest(first, names)} There are: {', '.join(names)}.")
    if len(words) == 1 or words[1] in ("-h", "--help"):
        return first, []
    if words[1] not in seconds:
        hint = closest(words[1], seconds)
        raise ConfigError(f"no command '{first} {words[1]}'.{hint} There are: {', '.join(seconds)}.")
    return f"{first} {words[1]}", words[2:]


def _help(group: str) -> str:
    rows = [(name, line) for name, (_, line) in COMMANDS.items() if not group or name.split()[0] == group]
    width = max(len(name) for name, _ in rows)
    commands = "\n".join(f"  {name:<{width}}  {line}" for name, line in rows)
    return (
        f"usage: wholereel {group + ' ' if group else ''}COMMAND [...]\n\n"
        f"Video models that learn from, and run on, whole videos.\n\n{commands}\n\n"
        "Each command has its own --help. --debug shows the traceback of an error, --version the version."
    )


def _report(error: Exception) -> None:
    """One line; where there are several processes, it names the process.

    All processes of a machine read the same settings: one speaks for all of them. Files each reads its own.
    """
    process, local = (
        next((os.environ[name] for name in names if name in os.environ), "0")
        for names in (("RANK", "SLURM_PROCID"), ("LOCAL_RANK", "SLURM_LOCALID"))
    )
    if local == "0" or not isinstance(error, ConfigError):
        print(f"{'' if process == '0' else f'process {process}: '}error: {_text(error)}", file=sys.stderr)


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
