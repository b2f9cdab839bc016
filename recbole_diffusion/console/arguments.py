"""The command line: its verbs, their arguments, and ``--key=value`` as settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

import yaml

from recbole_diffusion._version import __version__
from recbole_diffusion.config.launch import is_first, left_to_first
from recbole_diffusion.config.reading import parse_value
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.console import epilogs
from recbole_diffusion.console.convert import add_convert


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like errors of settings."""

    def error(self, message: str) -> NoReturn:
        if not is_first():  # of the processes that torchrun has started
            left_to_first()
            self.exit(2)
        self.exit(2, error_line(f"{' '.join(message.split())}. {self.prog} --help shows what is allowed."))


class _RunHelp(argparse.Action):
    """``--help``: remembers the parser; the help is printed later, because it depends on ``--model``."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        namespace.help = parser


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="recbole-diffusion",
        description="Diffusion models for sequential recommendation on RecBole.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    run = verbs.add_parser(
        "run",
        add_help=False,
        help="train a model, validate and test it",
        usage="recbole-diffusion run --model=M --dataset=D [--config_files a.yaml b.yaml] [--key=value ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_argument(
        "-h",
        "--help",
        action=_RunHelp,
        nargs=0,
        help="show the main settings and the models; with --model, all settings of this model",
    )
    _add_request(run)
    run.add_argument("--examples", type=_count, default=0, metavar="N", help="show N recommendations for one user")
    run.add_argument(
        "--resume",
        type=_path,
        metavar="FILE",
        help="go on from FILE, the *-last.safetensors of a stopped run with the same settings; auto: from the newest",
    )
    run.add_argument("--verbose", action="store_true", help="show every line of the log on the console too")
    _add_tune(verbs)
    _add_compare(verbs)
    _add_recommend(verbs)
    _add_evaluate(verbs)
    add_convert(verbs)
    return parser


def _verb(verbs: Any, name: str, help: str, usage: str, epilog: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=help, usage=usage, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    return parser


def _add_request(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "--model", help="name of a model, see below, or package.module:Class; recbole.NAME is RecBole's model"
    )
    run.add_argument("--dataset", help="name of the data set")
    run.add_argument(
        "--config_files", nargs="+", action="extend", default=[], metavar="FILE", help="YAML files; later ones win"
    )
    run.add_argument("--preset", help="default, or paper")


def _add_tune(verbs: Any) -> None:
    tune = _verb(
        verbs,
        "tune",
        "search for the settings that validate best",
        "recbole-diffusion tune --model=M --dataset=D (--trials=N | --seconds=S) [--space=FILE] [--out=DIR] "
        "[--storage=URL] [--key=value ...]",
        epilogs.TUNE,
    )
    _add_request(tune)
    tune.add_argument("--space", metavar="FILE", help="YAML file with the search space; default: that of the model")
    tune.add_argument("--trials", type=_count, metavar="N", help="stop when the study has N trials")
    tune.add_argument("--seconds", type=float, metavar="S", help="stop when all trials together took S seconds")
    tune.add_argument(
        "--out", type=_path, metavar="DIR", help="folder of results and logs; default: tune/MODEL-DATASET"
    )
    tune.add_argument(
        "--storage", metavar="URL", help="URL of a database, or path of a journal file; default: OUT/study.journal"
    )


def _add_compare(verbs: Any) -> None:
    compare = _verb(
        verbs,
        "compare",
        "train and test several models with several seeds, and test their differences",
        "recbole-diffusion compare --models=A,B --datasets=D --seeds=0,1,2 --out=DIR [--key=value ...]",
        epilogs.COMPARE,
    )
    compare.add_argument("--models", type=_names, required=True, metavar="A,B", help="MODEL or MODEL:paper, ...")
    compare.add_argument("--datasets", type=_names, required=True, metavar="A,B", help="names of data sets")
    compare.add_argument("--seeds", type=_counts, default=[0], metavar="0,1", help="seeds of training; default: 0")
    compare.add_argument(
        "--out", type=_path, required=True, metavar="DIR", help="folder for everything that is written"
    )
    compare.add_argument(
        "--eval_seeds",
        type=_counts,
        default=[],
        metavar="0,1",
        help="test each trained diffusion model with each of these seeds of generation; default: its eval_seed",
    )
    compare.add_argument(
        "--baseline", metavar="MODEL", help="model to test the others against; default: the first without diffusion"
    )
    compare.add_argument("--metric", metavar="M@K", help="metric of that test; default: valid_metric")
    compare.add_argument(
        "--curve_steps",
        type=_counts,
        default=[],
        metavar="1,2,4",
        help="validate each trained diffusion model with each of these sampling_steps; default: none",
    )
    compare.add_argument(
        "--tuned",
        metavar="DIR",
        help="use the settings that tune found, from DIR/MODEL-DATASET[-PRESET]/best.yaml",
    )
    compare.add_argument("--png", action="store_true", help="also write the figures as PNG files; needs kaleido")
    compare.add_argument(
        "--config_files", nargs="+", action="extend", default=[], metavar="FILE", help="YAML files; later ones win"
    )


def _add_recommend(verbs: Any) -> None:
    recommend = _verb(
        verbs,
        "recommend",
        "lists of a trained model",
        "recbole-diffusion recommend --checkpoint=FILE (--users=FILE | --all | --history=A,B,C | "
        "--histories=FILE) [--topk=10] [--out=FILE] [--key=value ...]",
        epilogs.RECOMMEND,
    )
    _add_checkpoint(recommend)
    whose = recommend.add_mutually_exclusive_group(required=True)
    whose.add_argument("--users", type=_path, metavar="FILE", help="users of the data set, one on each line")
    whose.add_argument("--all", action="store_true", help="all users of the data set")
    whose.add_argument("--history", type=_path, metavar="A,B,C", help="one history: its items, the oldest first")
    whose.add_argument(
        "--histories", type=_path, metavar="FILE", help=".csv with user, item and perhaps time, or .jsonl, see below"
    )
    recommend.add_argument("--topk", type=_positive, default=10, metavar="K", help="length of the lists; default: 10")
    recommend.add_argument("--out", type=_path, metavar="FILE", help=".csv, .jsonl or .parquet; default: the screen")
    recommend.add_argument(
        "--index",
        default="exact",
        metavar="KIND",
        help="exact (default), or hnsw or ivf for many items, with faiss-cpu",
    )
    recommend.add_argument("--seen", action="store_true", help="also list items of the user's own history")


def _add_evaluate(verbs: Any) -> None:
    evaluate = _verb(
        verbs,
        "evaluate",
        "measure a trained model again",
        "recbole-diffusion evaluate --checkpoint=FILE [--split=test] [--by=activity,popularity] [--picture=FILE] "
        "[--key=value ...]",
        epilogs.EVALUATE,
    )
    _add_checkpoint(evaluate)
    evaluate.add_argument("--split", type=_names, default=["test"], metavar="A,B", help="valid, test; default: test")
    evaluate.add_argument(
        "--by", type=_names, default=[], metavar="A,B", help="activity, popularity: also the metrics of groups of users"
    )
    evaluate.add_argument("--picture", type=_path, metavar="FILE", help="draw the groups into this .html file")


def _add_checkpoint(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--checkpoint", type=_path, required=True, metavar="FILE", help="NAME-best.safetensors of a run")
    verb.add_argument("--model", metavar="M", help="package.module:Class, for a model that is not registered")


def _positive(text: str) -> int:
    count = _count(text)
    if count == 0:
        raise argparse.ArgumentTypeError("must be at least 1")
    return count


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 0")
    return int(text)


def _path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different names, A,B,...")
    return names


def _counts(text: str) -> list[int]:
    return [_count(number) for number in _names(text)]


def read_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """``--key=value`` arguments as settings."""
    settings: dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not equals or not key or not key.isprintable():
            raise UserError(f"argument {argument!r}: settings are given as --key=value.")
        if value == "":  # a script's variable that is not set
            raise UserError(f"{key}='': has no value; ~ stands for none.")
        try:
            parsed = parse_value(value, key)
        except yaml.YAMLError as error:
            raise UserError(f"{key}={value!r}: not a YAML value ({' '.join(str(error).split())}).") from error
        if key in settings and settings[key] != parsed:
            raise UserError(f"{key} is given twice: {settings[key]!r} and {parsed!r}.")
        settings[key] = parsed
    return settings


def split_config_files(arguments: Sequence[str]) -> list[str]:
    """``--config_files=a.yaml b.yaml`` and RecBole's ``--config_files='a.yaml b.yaml'`` as separate arguments."""
    option = "--config_files="
    split = []
    for argument in arguments:
        split += ["--config_files", *argument[len(option) :].split()] if argument.startswith(option) else [argument]
    return split


def error_line(message: str) -> str:
    return f"recbole-diffusion: error: {' '.join(message.splitlines())}\n"
