"""A notebook's kernel without the notebook: executes cells in `__main__`, with top-level await.

Reads [name, source] as JSON, a line each; answers [is_fine, output]. Not a test.
"""

import ast
import asyncio
import inspect
import io
import json
import linecache
import sys
import traceback
import types
from contextlib import redirect_stderr, redirect_stdout
from typing import Any


def execute(name: str, source: str, scope: dict[str, Any], runner: asyncio.Runner) -> None:
    # As IPython does, so that inspect.getsource finds a class that a cell defines.
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    code = compile(source, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        runner.run(types.FunctionType(code, scope)())
    else:
        exec(code, scope)


def main() -> None:
    answers = sys.stdout
    scope = sys.modules["__main__"].__dict__
    del scope["__file__"]  # a notebook is no file, and imports from where it was started
    sys.path.insert(0, "")
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            output = io.StringIO()
            is_fine = True
            with redirect_stdout(output), redirect_stderr(output):
                try:
                    name, source = json.loads(line)
                    execute(name, source, scope, runner)
                except Exception:  # noqa: BLE001  the page's own, and reported as it is
                    is_fine = False
                    traceback.print_exc()
            print(json.dumps([is_fine, output.getvalue()]), file=answers, flush=True)


if __name__ == "__main__":
    main()
