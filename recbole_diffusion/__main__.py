"""The command line: ``recbole-diffusion VERB ...`` or ``python -m recbole_diffusion VERB ...``."""

from __future__ import annotations

import argparse
import signal
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from recbole_diffusion.config.help import main_settings, model_settings
from recbole_diffusion.config.launch import is_first, launched
from recbole_diffusion.config.model_files import model_files
from recbole_diffusion.config.outside import names, registered
from recbole_diffusion.config.settings import UserError
from recbole_diffusion.console.arguments import error_line, make_parser, read_arguments, split_config_files
from recbole_diffusion.mending import CannotMend
from recbole_diffusion.names import OURS, RecBoleMissing, recbole_folder, recbole_models
from recbole_diffusion.storage.files import no_space
from recbole_diffusion.training.stopping import Stopped, number_of


def _model_list() -> str:
    outside = [f"{claim.name} ({claim.target})" for claim in registered()]
    shown = [_group("models of this package", OURS), _group("models of other packages", outside or ["(none)"])]
    try:
        for title, kind in (("sequential", "sequential_recommender"), ("general", "general_recommender")):
            shown.append(_group(f"RecBole's {title} models", recbole_models(kind)))
    except RecBoleMissing as error:
        shown.append(f"RecBole's models:\n  {error}")
    return "\n".join(shown)


def _group(title: str, models: Iterable[str]) -> str:
    return f"{title}:\n" + textwrap.fill(", ".join(models), 100, initial_indent="  ", subsequent_indent="  ")


def _show_help(parser: argparse.ArgumentParser, model: str | None, preset: str | None) -> None:
    if model is None:
        parser.epilog = main_settings() + "\n" + _model_list()
    elif ":" in model or model in names():
        from recbole_diffusion.registry import get_model  # imports the model's module, which declares its settings

        model_class = get_model(model).model_class
        own = getattr(getattr(model_class, "config_class", None), "rows", None)
        parser.epilog = model_settings(model, preset, model_files(model_class), own)
    else:
        parser.epilog = model_settings(model, preset)
    parser.print_help()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status. A user's mistake is one line on standard error and status 2."""
    known, rest = make_parser().parse_known_args(split_config_files(sys.argv[1:] if arguments is None else arguments))
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        if getattr(known, "help", None) is not None:
            if is_first():
                _show_help(known.help, known.model, known.preset)
            return 0
        if known.verb == "convert":
            from recbole_diffusion.conversion.command import command

            return command(known, rest)
        return _call(known, read_arguments(rest))
    except (UserError, RecBoleMissing, CannotMend) as error:
        _tell(error_line(str(error)))
        return 2
    except KeyboardInterrupt as stop:
        over = "\r" if sys.stderr.isatty() else ""  # writes over the ^C that a terminal shows
        _tell(f"{over}recbole-diffusion: interrupted{f': {stop}' if stop.args else ''}.\n")
        return 128 + number_of(stop)
    except OSError as error:  # of libraries that write their own files
        if not no_space(error):
            raise
        where = f" for {error.filename}" if error.filename else ""
        _tell(error_line(f"there is no space on the disk{where}."))
        return 2
    except RuntimeError as error:
        if launched() == 1 or not isinstance(error, sys.modules["recbole_diffusion.processes"].Broken):
            raise
        _tell(error_line(f"{error}; the same command with --resume=auto goes on from its last checkpoint."))
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(text: str) -> None:
    """Write ``text`` to standard error. Of several processes of a training only the first that has something does."""
    if launched() > 1:
        from recbole_diffusion.processes import may_tell

        if not may_tell():
            return
    sys.stderr.write(text)


def _interrupt(number: int, _: Any) -> None:
    """SIGTERM, which a scheduler sends to end a job, ends a run in the same orderly way as Ctrl-C."""
    raise Stopped(number)


def _call(known: argparse.Namespace, settings: dict[str, Any]) -> int:
    """Call the verb's function. It is imported here, so that ``--help`` and wrong arguments do not wait for torch."""
    if launched() > 1 and known.verb != "run":
        raise UserError(
            f"WORLD_SIZE={launched()}: torchrun starts processes that train one model together, as only 'run' does. "
            f"Start {known.verb} without torchrun; several processes can share a comparison or a study (docs/large.md)."
        )
    recbole_folder()  # raises an error with instructions if RecBole is missing; the imports below need it
    if known.verb == "compare":
        from recbole_diffusion.compare.plan import compare

        failed = compare(
            known.models, known.datasets, known.seeds, known.out, settings, known.config_files, known.eval_seeds,
            known.baseline, known.metric, known.curve_steps, known.png, known.tuned,
        )  # fmt: skip
        return 1 if failed else 0
    if known.verb == "recommend":
        from recbole_diffusion.recommend.export import Wanted, recommend

        whose = Wanted(known.users, known.all, known.history, known.histories)
        recommend(known.checkpoint, whose, known.topk, known.out, not known.seen, known.index, settings, known.model)
        return 0
    if known.verb == "evaluate":
        from recbole_diffusion.recommend.evaluate import evaluate

        evaluate(known.checkpoint, known.split, settings, known.by, known.model, known.picture)
        return 0
    wanted = (known.model, known.dataset, known.config_files, settings, known.preset)
    if known.verb == "tune":
        from recbole_diffusion.tune.search import tune

        tune(*wanted, known.space, known.trials, known.seconds, known.out, known.storage)
    else:
        from recbole_diffusion.quick_start import run

        run(*wanted, known.examples, verbose=known.verbose, resume=known.resume)
    return 0


if __name__ == "__main__":
    sys.exit(main())
