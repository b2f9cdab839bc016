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

_COMPARE_EXAMPLES = """\
settings:
  --key=value                  for every run; it is an error if one of the models does not have this setting
  --MODEL.key=value            for one model of --models, e.g. --DiffDiv.num_channels=8; MODEL:paper.key for a preset
  Files of --config_files have lines such as 'epochs: 20' or 'DiffDiv.num_channels: 8'. 'run --help' shows the main
  settings.

All models on a data set must have the same metrics, topk, eval_args, mask_history and data filters.

files that are written:
  DIR/report.html              tables and figures in one file; updated after each run
  DIR/results.md, results.csv  means and deviations, tests against the baseline, cost, protocol; updated after each run
  DIR/figures/DATASET-NAME.png the figures of the report, with --png
  DIR/runs/DATASET/MODEL/      seedK.json (result), seedK.npz (metrics of each user), seedK.log
  DIR/saved, log, log_tensorboard

You can stop it with Ctrl-C, and continue with the same command: finished runs are kept. To make several runs at the
same time, start the same command several times: the processes share the runs of DIR. It is an error if DIR has a
finished run with other settings.
Exit status 1: some runs failed; 2: the command is wrong; 130: it was stopped.
"""


_TUNE_HELP = """\
  --key=value and --config_files give settings that are the same in every trial. The search space is a YAML file:
    learning_rate: {low: 1e-4, high: 1e-2, log: true}
    num_layers: {low: 1, high: 3}
    dropout: [0.1, 0.3, 0.5]
  The same command continues a study. Several processes can share a study if they have the same --out or --storage.
  The test split is not read: 'run --config_files OUT/best.yaml' tests the best settings.
"""


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
    tune = verbs.add_parser(
        "tune",
        help="search for the settings that validate best",
        usage="recbole-diffusion tune --model=M --dataset=D (--trials=N | --seconds=S) [--space=FILE] [--out=DIR] "
        "[--storage=URL] [--key=value ...]",
        epilog=_TUNE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
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
    compare = verbs.add_parser(
        "compare",
        help="train and test several models with several seeds, and test their differences",
        usage="recbole-diffusion compare --models=A,B --datasets=D --seeds=0,1,2 --out=DIR [--key=value ...]",
        epilog=_COMPARE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
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
