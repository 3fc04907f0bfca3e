"""The entry of the command line: calls the verb, tells the error, chooses the exit code.

What can be answered without click (`--version`, completion of words) is answered before click is
imported. Everything that a verb raises ends here.
"""

import atexit
import gc
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from engine.config import arm_crash_point, debug_wanted
from engine.errors import EngineError, StoreUnavailableError, UsageError

if TYPE_CHECKING:
    import click

    from engine.cli.options import Session

EXIT_INTERRUPTED = 130
GC_DEFAULT = gc.get_threshold()
GC_THRESHOLD = 20_000
"""Of what a start makes nothing is rubbish; to look through it at every 700 costs 5 % of it."""

EXIT_PIPE = 141
"""What a shell reports of a program that the end of its reader stopped (128 + SIGPIPE)."""


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    gc.set_threshold(GC_THRESHOLD)
    args = sys.argv[1:]
    be_tolerant_of_text()
    if args[:1] == ["__complete"]:
        from engine.cli.complete import answer

        sys.exit(answer(args[1:]))
    if args in (["--version"], ["-V"]):
        from engine.cli.version import line

        print(line())
        sys.exit(0)
    leave(invoke(args))


def leave(code: int) -> NoReturn:
    """End as Python does, but leave it to the kernel to take the interpreter apart.

    That is 20 to 40 ms of a run's 160 less. Besides, the threads of obstore answer loops that are
    gone, and one that did so while the interpreter came apart would abort the process.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for the user's threads
    except KeyboardInterrupt:  # then it does not
        code = EXIT_INTERRUPTED
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as it is of a process that was started without
            with suppress(OSError, ValueError):
                stream.flush()
    os._exit(code)


def be_tolerant_of_text() -> None:
    """Let the standard streams take any text: what their encoding lacks is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def invoke(
    args: list[str], *, group: "click.Group | None" = None, session: "Session | None" = None
) -> int:
    """Call a verb, tell its error on stderr, return the exit code.

    A verb's own return value is its exit code; None stands for 0.
    """
    from click.exceptions import ClickException, Exit

    from engine.cli.commands import group as aflow
    from engine.cli.options import Session

    group = group or aflow()
    session = session or Session()
    try:
        arm_crash_point()
        with group.make_context(group.name, args or ["--help"], obj=session) as context:
            code = group.invoke(context)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except Exit as stop:
        return stop.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except ClickException as error:
        return _tell(_usage(error), args, session)
    except EngineError as error:
        return _tell(error, args, session)
    except OSError as error:
        return _tell(_os_error(error), args, session)
    except Exception as error:  # noqa: BLE001  # the last resort: a bug is told, not dumped
        from engine.cli.report import InternalError

        return _tell(InternalError(error), args, session)


def _reader_gone() -> int:
    # The interpreter flushes stdout at exit and would complain of the pipe again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_PIPE


def _tell(error: EngineError, args: list[str], session: "Session") -> int:
    from engine.cli.report import write

    if session.debug or "--debug" in args or debug_wanted():
        import traceback

        traceback.print_exception(error.__cause__ or error.__context__ or error)
    try:
        color = session.color(stderr=True)
    except EngineError:  # the error told may be that very one
        color = False
    write(error, as_json=session.json or "--json" in args, color=color)
    return error.exit_code


def _usage(error: "click.ClickException") -> UsageError:
    """What click found wrong, as our error: the message without a full stop, and a hint."""
    from click.exceptions import NoSuchOption
    from click.exceptions import UsageError as ClickUsageError

    context = error.ctx if isinstance(error, ClickUsageError) else None
    hint = f"`{context.command_path} --help` lists what it takes" if context else None
    if isinstance(error, NoSuchOption):
        message = f"there is no option {error.option_name!r}"
        if error.possibilities:
            hint = f"did you mean {error.possibilities[0]}?"
    else:
        message = error.format_message().strip().removesuffix(".")
        message = message[:1].lower() + message[1:]
    return UsageError(message, hint=hint)


def _os_error(error: OSError) -> EngineError:
    what = f"{error.filename}: " if error.filename else ""
    found = StoreUnavailableError(f"{what}{error.strerror or error}")
    found.__cause__ = error
    return found


if __name__ == "__main__":
    main()
