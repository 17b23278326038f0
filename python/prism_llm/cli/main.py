"""The command `prism` and its exit codes.

Exit codes: 0 done; 1 failure at run time; 2 usage or configuration error; 4 unsafe or corrupt input refused; 130
interrupted; 143 terminated.
"""

import os
import signal
import sys
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from . import bench, compress, demo, env, evaluate, finetune, generate, inspect, study, verify
from .exits import FAILURE, INTERRUPTED, Terminated, code_of, one_line
from .output import configure_logging


class _Group(TyperGroup):
    """Gives every error one clear line and its exit code; PRISM_LOG_LEVEL=debug shows the traceback too."""

    def invoke(self, ctx: Any) -> Any:
        try:
            configure_logging()
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt, Terminated) as error:
            if type(error).__module__.startswith(("typer.", "click.")):
                raise  # usage errors of the parser, which prints them itself
            code = code_of(error)
            if os.environ.get("PRISM_LOG_LEVEL", "").lower() == "debug":
                import traceback

                traceback.print_exc()
            kind = "interrupted" if code >= INTERRUPTED else "error"
            text = one_line(error)
            if code == FAILURE:
                text = f"{type(error).__name__}: {text}"
            print(kind if code >= INTERRUPTED else f"{kind}: {text}", file=sys.stderr)
            raise typer.Exit(code) from error


app = typer.Typer(
    name="prism",
    cls=_Group,
    help="Prune and quantize language models, store them small, and run them fast. With no model named, the bundled "
    "one is used, so that everything works offline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from prism_llm import __version__

        print(f"prism-kernels {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


for _module in (demo, compress, finetune, evaluate, study, generate, bench, inspect, verify, env):
    _module.register(app)


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def main() -> NoReturn:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except KeyboardInterrupt:  # before or after a command, where no handler of it is active
        sys.exit(INTERRUPTED)
    except Terminated as error:
        sys.exit(code_of(error))
    sys.exit(0)


if __name__ == "__main__":
    main()
