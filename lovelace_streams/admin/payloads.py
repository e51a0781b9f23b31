"""A file of payloads, read as its bytes say; its name says nothing.

Read: UTF-8, with or without a byte order mark, plain or as gzip: a JSON array, or one payload per line. Everything else
is refused with what it is, because its lines would be sent one by one as broken payloads. A line that is not JSON,
among lines that are, is given as it is: a broken payload still belongs to its job (law 6).
"""

import codecs
import gzip
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

STDIN = Path("-")
GZIP = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
BLANK = b" \t\r\n"
HEAD_BYTES = 1024
PRETTY_BYTES = 1 << 20
"""As far as this a payload of several lines is looked for. It is only looked for if the first line is not JSON."""

_DAMAGES = (EOFError, gzip.BadGzipFile, zlib.error)
"""What reading damaged gzip raises."""

_UNPACK, _CONVERT = "unpack it first ({})", "convert it to UTF-8 first (iconv -f {} -t UTF-8)"
_SIGNATURES = (
    # UTF-32 comes before UTF-16: its little-endian mark begins with that of UTF-16.
    (0, b"\xff\xfe\x00\x00", "UTF-32", _CONVERT.format("UTF-32")),
    (0, b"\x00\x00\xfe\xff", "UTF-32", _CONVERT.format("UTF-32")),
    (0, b"\xff\xfe", "UTF-16", _CONVERT.format("UTF-16")),
    (0, b"\xfe\xff", "UTF-16", _CONVERT.format("UTF-16")),
    (0, GZIP, "gzip", _UNPACK.format("gunzip")),
    (0, b"PK\x03\x04", "a zip archive", _UNPACK.format("unzip")),
    (0, b"PK\x05\x06", "a zip archive", _UNPACK.format("unzip")),
    (0, b"\x28\xb5\x2f\xfd", "zstd", _UNPACK.format("unzstd")),
    (0, b"BZh", "bzip2", _UNPACK.format("bunzip2")),
    (0, b"\xfd7zXZ\x00", "xz", _UNPACK.format("unxz")),
    (0, b"\x04\x22\x4d\x18", "lz4", _UNPACK.format("unlz4")),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK.format("7z x")),
    (257, b"ustar", "a tar archive", _UNPACK.format("tar -x")),
    (0, b"PAR1", "Parquet", "write its rows as JSON first, one a line"),
    (0, b"Obj\x01", "an Avro file", "write its records as JSON first, one a line"),
)
_WITHOUT_MARK = (
    (re.compile(rb"\0\0\0[^\0]"), "UTF-32BE"),
    (re.compile(rb"[^\0]\0\0\0"), "UTF-32LE"),
    (re.compile(rb"\0[^\0]"), "UTF-16BE"),
    (re.compile(rb"[^\0]\0"), "UTF-16LE"),
)
"""JSON begins with ASCII, so where its first NULs are tells its encoding (RFC 4627, section 3)."""


class PayloadsError(ValueError):
    """A file that can't be submitted: what is wrong, where, and what to do. No text has a value of a record."""


class Payload(NamedTuple):
    """One payload of a file."""

    place: str
    """Where it stands: `line 7`, `item 7`."""
    raw: bytes
    """Its bytes: a line as it stands, an array's item without white space between its parts."""
    value: Any
    fault: str = ""
    """Why it has no value: `not UTF-8`, `not JSON` (or a number or text that can't be read); "" if it has one."""


@contextmanager
def open_payloads(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, or standard input (`-`), so that it can be read twice: to count, then to send.

    What can be read only once (a pipe) is kept in a temporary file meanwhile.
    """
    with sys.stdin.buffer if path == STDIN else path.open("rb") as given:
        if stat.S_ISREG(os.fstat(given.fileno()).st_mode):
            yield given
            return
        with tempfile.TemporaryFile() as kept:
            shutil.copyfileobj(given, kept)
            yield kept


def read_payloads(file: IO[bytes]) -> Iterator[Payload]:
    """Read a file's payloads from its beginning. Raises `PayloadsError`."""
    file.seek(0)
    zipped = _head(file).startswith(GZIP)
    text: Any = gzip.GzipFile(fileobj=file) if zipped else file
    read = _Lines(text)
    head = read.head()
    _refuse_foreign(head, within=" inside gzip" if zipped else "")
    if head.removeprefix(BOM).lstrip(BLANK).startswith(b"[") and not read.has_lists():
        yield from _array(b"".join(line for _, line in read))
        return
    if read.is_spread():
        raise PayloadsError(
            "its first payload takes several lines: give one payload per line (jq -c . FILE), or an array"
        )
    for number, line in read:
        raw = line.removeprefix(BOM).rstrip(b"\r\n")  # files that were joined have a mark in the middle
        if raw.strip(BLANK):
            yield _payload(f"line {number}", raw)


class _Lines:
    """The lines of a plain or unpacked file, with their numbers; a damaged gzip becomes a `PayloadsError`."""

    def __init__(self, text: Any) -> None:
        self._text = text

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        number = 0
        try:
            for number, line in enumerate(self._text, 1):
                yield number, line
        except _DAMAGES as damage:
            raise _damaged(damage, number) from None

    def head(self) -> bytes:
        """Look at the first bytes; the file stays at its beginning."""
        try:
            return _head(self._text)
        except _DAMAGES as damage:
            raise _damaged(damage, 0) from None

    def has_lists(self) -> bool:
        """Whether the payloads are arrays themselves, one a line; the file is left at its beginning."""
        lines = (line.removeprefix(BOM).strip(BLANK) for _, line in self)
        first, second, *_ = [*islice(filter(None, lines), 2), b"", b""]
        self._text.seek(0)
        return second.startswith(b"[") and not _payload("line 1", first).fault

    def is_spread(self) -> bool:
        """Whether the first payload is JSON over several lines (pretty-printed); the file is left at its beginning."""
        first = next((line for _, line in self if line.removeprefix(BOM).strip(BLANK)), b"")
        if _payload("line 1", first.removeprefix(BOM)).fault:
            with suppress(*_DAMAGES):  # reading the lines tells it, with the place
                first += self._text.read(PRETTY_BYTES)
            start = first.removeprefix(BOM).decode("utf-8", "replace").lstrip()
            with suppress(ValueError, RecursionError):
                _, end = json.JSONDecoder().raw_decode(start)
                self._text.seek(0)
                return "\n" in start[:end]
        self._text.seek(0)
        return False


def _damaged(damage: Exception, number: int) -> PayloadsError:
    after = f"after line {number}" if number else "before the end of its first line"
    if isinstance(damage, EOFError):
        return PayloadsError(f"its gzip data end early, {after}: it is not whole, fetch it again")
    return PayloadsError(f"its gzip data are damaged {after}: fetch it again")


def _head(file: Any) -> bytes:
    return bytes(file.peek(HEAD_BYTES)[:HEAD_BYTES])


def _refuse_foreign(head: bytes, within: str) -> None:
    for at, signature, what, remedy in _SIGNATURES:
        if head.startswith(signature, at) and (within or signature != GZIP):
            raise PayloadsError(f"it is {what}{within}: {remedy}")
    for pattern, encoding in _WITHOUT_MARK:
        if pattern.match(head):
            raise PayloadsError(f"it is {encoding}{within}: {_CONVERT.format(encoding)}")
    if b"\0" in head and not (head.strip(b"\0") and _is_utf8(head, whole=False)):
        raise PayloadsError(f"it is binary{within}: give a JSON array, or one payload per line")


def _payload(place: str, raw: bytes) -> Payload:
    try:
        return Payload(place, raw, msgspec.json.decode(raw))
    except (ValueError, RecursionError):
        return Payload(place, raw, None, "not JSON" if _is_utf8(raw) else "not UTF-8")


def _is_utf8(raw: bytes, *, whole: bool = True) -> bool:
    """Whether it is text; without `whole` its last character may be cut off."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(raw, final=whole)
    except UnicodeDecodeError:
        return False
    return True


def _array(text: bytes) -> Iterator[Payload]:
    text = text.removeprefix(BOM)
    items: Iterable[bytes]
    try:
        items = map(bytes, msgspec.json.decode(text, type=list[msgspec.Raw]))
    except (ValueError, RecursionError):
        try:
            items = list(_scanned(text.decode()))
        except (ValueError, RecursionError) as error:
            where = _place_of(error, text)
            raise PayloadsError(
                f"it begins with [ but is no JSON array{where}: correct it, or give one payload per line"
            ) from None
    for number, item in enumerate(items, 1):
        payload = _payload(f"item {number}", item)  # what is wrong within an item costs only the item
        yield payload if payload.fault else payload._replace(raw=msgspec.json.format(payload.raw, indent=-1))


def _scanned(text: str) -> Iterator[bytes]:
    """Cut an array into its items by Python's own reader, which takes lone surrogates; raises as that does."""
    decoder = json.JSONDecoder(parse_int=str, parse_float=str)
    at, between = _skip_blank(text, text.index("[") + 1), ""
    while text[at : at + 1] != "]" or between:
        _, end = decoder.raw_decode(text, at)
        yield text[at:end].encode()
        at = _skip_blank(text, end)
        between = text[at : at + 1]
        if between == "]":
            break
        if between != ",":
            raise json.JSONDecodeError("", text, at)
        at = _skip_blank(text, at + 1)
    if (after := _skip_blank(text, at + 1)) < len(text):
        raise json.JSONDecodeError("", text, after)


def _skip_blank(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    return at


def _place_of(error: Exception, text: bytes) -> str:
    if isinstance(error, UnicodeDecodeError):
        number = text.count(b"\n", 0, error.start) + 1
        return f", line {number} is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f" from line {error.lineno}, column {error.colno} on"
    return ", it is nested too deeply" if isinstance(error, RecursionError) else ""
