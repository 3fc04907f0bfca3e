"""Stores the parameters of a run, and the files that they include.

A file is read once, in order: what is stored is what was hashed, whoever writes to the file
meanwhile. Up to 64 MiB it is held in memory and compressed if that pays; a larger one passes
through by the MiB. Text is decoded on the way, so that a wrong encoding is told before a task runs.
"""

import codecs
import importlib
import os
import stat
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from engine.errors import EngineError, ParameterError
from engine.flow.includes import IncludedFile
from engine.stores.artifacts import save_content, save_values
from engine.stores.directory import BlobDirectory
from engine.stores.manifest import Entry

PARAMETERS_STEP = "_parameters"
_CHUNK_BYTES = 1 << 20


def save_parameters(values: Mapping[str, object], blobs: BlobDirectory) -> dict[str, Entry]:
    """Store the values of a run's parameters and constants, by attribute name.

    Raises:
        ParameterError: a file cannot be included; `others` tells of further ones.
        UnstorableValueError: a value cannot be pickled.
        StoreAccessError: the store takes no more.
    """
    entries: dict[str, Entry] = {}
    parsed: dict[str, object] = {}
    faults: list[ParameterError] = []
    for name, value in values.items():
        if not isinstance(value, IncludedFile):
            parsed[name] = value
            continue
        try:
            if value.parser is None:
                entries[name] = _include(value, blobs)
            else:
                parsed[name] = _parse(value)
        except ParameterError as error:
            faults.append(error)
    EngineError.raise_first(faults)
    entries.update(save_values(parsed, blobs, step=PARAMETERS_STEP))
    return {name: entries[name] for name in values}


def _include(file: IncludedFile, blobs: BlobDirectory) -> Entry:
    with closing(_chunks(file)) as chunks:
        return save_content(_checked(file, chunks), blobs, encoding=file.encoding)


def _parse(file: IncludedFile) -> object:
    with closing(_chunks(file)) as chunks:
        data = b"".join(_checked(file, chunks))
    content: Any = data if file.encoding is None else data.decode(file.encoding)
    try:
        parser = file.parser
        if not callable(parser):
            module, _, function = str(parser).rpartition(".")
            parser = getattr(importlib.import_module(module), function)
        return parser(content)
    except Exception as error:  # the user's code may raise anything
        raise ParameterError(
            f"the parser of parameter {file.parameter!r} raised {type(error).__name__}: {error}",
            hint=f"it was given the content of {file.path!r}",
            where=file.where,
        ) from error


def _at_once(path: str, flags: int) -> int:
    """Open without waiting for the writer of a named pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _chunks(file: IncludedFile) -> Generator[bytes, None, None]:
    path = Path(file.path).expanduser()
    try:
        with open(path, "rb", opener=_at_once) as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise _refused(file, "is not a regular file")
            while chunk := opened.read(_CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise _refused(file, f"cannot be read: {error.strerror}") from error


def _checked(file: IncludedFile, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Pass on the chunks of a file, and check that a text can be decoded."""
    if file.encoding is None:
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(file.encoding)()
    passed = pending = 0
    try:
        for chunk in chunks:
            pending = len(decoder.getstate()[0])
            decoder.decode(chunk)
            passed += len(chunk)
            yield chunk
        pending = len(decoder.getstate()[0])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _refused(
            file, f"is not {file.encoding} at byte {passed - pending + error.start:,}"
        ) from error


def _refused(file: IncludedFile, problem: str) -> ParameterError:
    hint = None
    if problem.startswith("is not ") and file.encoding and "at byte" in problem:
        hint = "name its encoding with encoding=, or take it as bytes with is_text=False"
    elif not os.path.isabs(file.path):
        hint = f"the path is relative to {os.getcwd()}"
    return ParameterError(
        f"parameter {file.parameter!r}: file {file.path!r} {problem}", hint=hint, where=file.where
    )
