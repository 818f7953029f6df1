"""Command lines made from dataclasses: every field an option, its sentence the help."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TypeVar

import tyro
from huggingface_hub.utils.tqdm import disable_progress_bars
from pydantic import TypeAdapter, ValidationError

from service.metadata import describe_errors
from training.errors import ConfigError, TrainingError

Options = TypeVar("Options")
LIBRARIES = """datasets fsspec httpx huggingface_hub lightning_fabric lightning_utilities matplotlib onnxscript PIL
    tensorboard torch torchmetrics""".split()  # noqa: SIM905  # loggers and modules that do not concern the user


def quieten_libraries() -> None:
    """Hide the libraries' log messages below errors, their warnings and their progress bars."""
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
    disable_progress_bars()


def verb(run: Callable[[Path, list[str]], None]) -> Callable[[], None]:
    """Make a console entry of a verb that works on a target: its first argument, then options.

    A user's error is printed as one line, and the exit status is 2. Only errors of libraries are shown.
    """

    @wraps(run)
    def main() -> None:
        quieten_libraries()
        try:
            target, *options = sys.argv[1:] or [""]
            if target in ("", "-h", "--help"):
                about = (sys.modules[run.__module__].__doc__ or "").strip()
                print(f"{about}\n\n--help after the target lists all options.")
                if not target:
                    sys.exit(2)
            else:
                run(Path(target), options)
        except TrainingError as error:
            print("error:", *map(str.strip, str(error).splitlines()), file=sys.stderr)  # libraries' have many lines
            sys.exit(2)
        except (ValidationError, OSError) as error:  # OSError: of the disk, as when it is full
            print("error:", describe_errors(error) if isinstance(error, ValidationError) else error, file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)

    return main


def parse(defaults: Options, arguments: list[str]) -> Options:
    """Read the options of a verb over its defaults. Raises ConfigError, naming the field."""
    prog, printed = f"{Path(sys.argv[0]).stem} TARGET", io.StringIO()
    try:
        with redirect_stderr(printed):
            options = tyro.cli(type(defaults), args=arguments, default=defaults, prog=prog)
        return TypeAdapter(type(options)).validate_python(vars(options))  # for tyro a type alone is right
    except ValidationError as error:
        raise ConfigError(describe_errors(error)) from error
    except SystemExit as end:
        if wrong := _refused_part(end):
            raise ConfigError(wrong) from end
        sys.stderr.write(printed.getvalue())
        raise


def _refused_part(end: SystemExit) -> str:
    """Return what is wrong with a part of the options, which tyro builds and reports itself; else nothing."""
    failure = end.__context__
    error = failure and failure.__context__
    if not isinstance(error, ValidationError):
        return ""
    part = str(getattr(failure, "arg", "")).removeprefix("experiment.")
    return f"{part}.{describe_errors(error)}"


def size_asked_for(arguments: list[str]) -> int | None:
    """Return the size that `--pixels` asks for among the options of a verb, as a recipe is completed by it."""
    asked, _ = tyro.cli(_Size, args=arguments, return_unknown_args=True, add_help=False)
    return asked.pixels


@dataclass(frozen=True)
class _Size:
    pixels: int | None = None
