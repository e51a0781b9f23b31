"""A function that reads one writer's data as one reader's values, generated once for each pair of schemas.

It checks every byte: lengths, counts, indexes and varints past their range, blocks of another size than they say, bytes
that are left over. A library in C is not quicker here, and accepts some of that as values
(docs/decisions/0007-avro.md).

Each array, map and record becomes a Python function `f(b, p, end, d)`: from the bytes, a position, their end and the
depth to a value and the next position. Without a reader it skips the value. It also skips what the rows do not read
(`Wanted`). The lines that read one value set a variable `v` and move `p`; `n` is the varint that was read last.
"""

import copy
import struct
from collections.abc import Callable, Iterator
from typing import Any

from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.avro.logical import converter
from lovelace_streams.formats.avro.resolution import branch_for, logical_of, matches, sources
from lovelace_streams.formats.avro.schema import REQUIRED, Node
from lovelace_streams.formats.limits import DEPTH_MAX
from lovelace_streams.records import ITEMS_MAX, Reason

Wanted = dict[str, "Wanted | None"]
"""The names of fields to read, with what is read of each; None: all of it."""
Mismatch = tuple[Reason, str]
"""What a value fails with that the reader has no place for: the reason, and a text with its path."""


def reading(writer: Node, reader: Node, wanted: Wanted | None = None) -> tuple["Read", list[Mismatch]]:
    """Generate the function for a pair of schemas; returns it, and where the schemas do not match.

    A mismatch fails only the messages that have a value there. Raises `RecursionError`, `SyntaxError` or `MemoryError`
    for a schema that is too large to compile.
    """
    generator = _Generator()
    root = generator.function(writer, reader, wanted, "$")
    return Read(generator.compiled(root), generator.spent), generator.mismatches


class MalformedAvro(Exception):  # noqa: N818 - names the bytes, as the reason `not_avro` does
    """No writer of this schema makes these bytes."""


class Read:
    """Reads the value that begins at `start` and ends where the message ends: `read(message, start)`.

    Raises `RecordFault`: not_avro, not_utf8, or what a mismatch says.
    """

    def __init__(self, function: Callable[[bytes, int, int, int], tuple[Any, int]], spent: list[int]) -> None:
        self._function = function
        self._spent = spent

    def __call__(self, message: bytes, start: int) -> Any:
        """Read one message."""
        self._spent[:] = (0, 0)
        end = len(message)
        try:
            value, at = self._function(message, start, end, 0)
        except (IndexError, struct.error):
            raise RecordFault(Reason.NOT_AVRO, "ends too early") from None
        except MalformedAvro as error:
            raise RecordFault(Reason.NOT_AVRO, str(error)) from None
        except UnicodeDecodeError:
            raise RecordFault(Reason.NOT_UTF8, "text that is not UTF-8") from None
        if at != end:
            raise RecordFault(Reason.NOT_AVRO, "bytes after the datum" if at < end else "ends too early")
        return value

    @property
    def unlike_json(self) -> bool:
        """Whether the last value has a NaN, an infinity or a NUL: in JSON there are none, or they are found before."""
        return bool(self._spent[1])


# ---- what generated code calls ------------------------------------------------------------------------------------


def _long(b: bytes, p: int, n: int) -> tuple[int, int]:
    """Read the rest of a varint that began with `n` (above 127) before `p`: at most ten bytes, at most 64 bits.

    Ids and microseconds take eight or nine bytes. So the seven bits of all bytes are joined at once, not in a loop.
    """
    second = b[p]
    if second < 128:  # noqa: PLR2004 - without the bit that says that more follow
        return n & 127 | second << 7, p + 1
    x = int.from_bytes(b[p - 1 : p + 9], "little")
    last = ~x & _CONTINUED
    if not last:
        raise MalformedAvro("a number past 64 bits")
    last &= -last
    p += last.bit_length() // 8 - 1
    if p > len(b):
        raise IndexError
    x &= last - 1
    x = x & 0x007F007F007F007F007F | (x & 0x7F007F007F007F007F00) >> 1
    x = x & 0x3FFF00003FFF00003FFF | (x & 0x00003FFF00003FFF0000) >> 2
    x = x & 0xFFFFFFF | (x >> 32 & 0xFFFFFFF) << 28 | x >> 64 << 56
    if x >> 64:
        raise MalformedAvro("a number past 64 bits")
    return x, p


def _int(b: bytes, p: int, n: int) -> tuple[int, int]:
    """Read the rest of a varint of at most 32 bits."""
    n, p = _long(b, p, n)
    if n >> 32:
        raise MalformedAvro("an int past 32 bits")
    return n, p


def _past(b: bytes, p: int) -> int:
    """Return the end of a varint whose first byte says that more follow."""
    for q in range(p, p + 9):
        if b[q] < 128:  # noqa: PLR2004
            return q + 1
    raise MalformedAvro("a number past 64 bits")


_CONTINUED = 0x80808080808080808080
_FLOAT, _DOUBLE = struct.Struct("<f").unpack_from, struct.Struct("<d").unpack_from
_NAMES = {
    "long_": _long, "int_": _int, "past_": _past, "float_": _FLOAT, "double_": _DOUBLE, "copy": copy.deepcopy,
    "MalformedAvro": MalformedAvro, "Fault": RecordFault, "OUTSIDE": (ValueError, OverflowError),
    "too_deep": (Reason.TOO_DEEP, f"more than {DEPTH_MAX} levels"),
    "too_many": (Reason.TOO_LARGE, f"more than {ITEMS_MAX} values that take no bytes"),
}  # fmt: skip


# ---- the generator ------------------------------------------------------------------------------------------------


class _Generator:
    """Writes functions, one for each (writer, reader, what is read); there a recursive type finds its own name."""

    def __init__(self) -> None:
        self.mismatches: list[Mismatch] = []
        self.spent = [0, 0]
        """Of the value that is read: how many values in it took no bytes, and whether one is unlike JSON's."""
        self._names: dict[str, Any] = {**_NAMES, "spent": self.spent}
        self._functions: dict[tuple[int, int, str], str] = {}
        self._texts: list[str] = []
        self._widths: dict[int, int] = {}

    def compiled(self, root: str) -> Any:
        """Compile what was written, and return the function of this name."""
        source = "\n".join(self._texts)
        exec(compile(source, "<avro>", "exec"), self._names)  # noqa: S102 - made of numbers and names of our own
        return self._names[root]

    def function(self, w: Node, r: Node | None, wanted: Wanted | None, path: str) -> str:
        """Return the name of the function for a pair; it is written now if it is new."""
        key = (id(w), id(r), repr(wanted))
        name = self._functions.get(key)
        if name is None:
            name = self._functions[key] = f"f{len(self._functions)}"
            kind = w.kind if r is None or r.kind == w.kind else ""
            if kind == "record":
                lines = list(self._record(w, r, wanted, path))
            elif kind in ("array", "map"):
                lines = list(self._blocks(w, r, wanted, path))
            else:
                lines = [*self._value("v", w, r, wanted, path), "return v, p"]
            self._texts.append(f"def {name}(b, p, end, d):\n" + "\n".join(f"    {line}" for line in lines))
        return name

    def _constant(self, value: Any) -> str:
        name = f"k{len(self._names)}"
        self._names[name] = value
        return name

    def _mismatch(self, reason: Reason, expected: str, found: str, path: str) -> Iterator[str]:
        fault = (reason, f"expected {expected}, got {found} at {path}")
        self.mismatches.append(fault)
        yield f"raise Fault(*{self._constant(fault)})"

    # -- one value: lines that set `v` and move `p` ---------------------------------------------------------------

    def _value(self, v: str, w: Node, r: Node | None, wanted: Wanted | None, path: str) -> Iterator[str]:
        if w.kind == "union":
            yield from self._union(v, w, r, wanted, path)
            return
        if r is not None and r.kind == "union":
            branch = branch_for(w, r)
            if branch is None:
                yield from self._no_match(w, r, path)
                return
            r = branch
        if r is not None and not matches(w, r):
            yield from self._no_match(w, r, path)
        elif w.kind in ("record", "array", "map"):
            yield f"{v}, p = {self.function(w, r, wanted, path)}(b, p, end, d + 1)"
        elif w.kind == "enum":
            yield from self._enum(v, w, r, path)
        elif r is None:
            yield from _skipped(w)
        else:
            yield from _primitive(v, w)
            if w.kind in ("float", "double"):
                yield f"if {v} - {v}: spent[1] = 1"
            yield from self._convert(v, w, r, path)

    def _no_match(self, w: Node, r: Node, path: str) -> Iterator[str]:
        if w.kind == "null":
            yield from self._mismatch(Reason.NULL, r.shown, "null", path)
        else:
            reason = Reason.UNKNOWN_SCHEMA if path == "$" else Reason.WRONG_TYPE
            yield from self._mismatch(reason, r.shown, w.shown, path)

    def _union(self, v: str, w: Node, r: Node | None, wanted: Wanted | None, path: str) -> Iterator[str]:
        yield from _varint()
        for index, branch in enumerate(w.inner):
            yield f"{'elif' if index else 'if'} n == {2 * index}:"
            yield from _indented(self._value(v, branch, r, wanted, path))
        yield (
            "else: raise MalformedAvro('a branch that the union has not')"
            if w.inner
            else "raise MalformedAvro('an empty union')"
        )

    def _enum(self, v: str, w: Node, r: Node | None, path: str) -> Iterator[str]:
        yield from _varint("int_")
        yield f"if n & 1 or n >= {2 * len(w.symbols)}: raise MalformedAvro('a symbol that the enum has not')"
        if r is None:
            yield f"{v} = None"
            return
        known = tuple(symbol if symbol in r.symbols else r.default for symbol in w.symbols)
        yield f"{v} = {self._constant(known)}[n >> 1]"
        if None in known:
            yield f"if {v} is None:"
            yield from _indented(self._mismatch(Reason.BAD_VALUE, f"a symbol of {r.name}", "another", path))

    def _convert(self, v: str, w: Node, r: Node, path: str) -> Iterator[str]:
        """Promote the value, and turn it into that of the logical type."""
        if w.kind in ("int", "long") and r.kind in ("float", "double"):
            yield f"{v} = float({v})"
        elif w.kind == "bytes" and r.kind == "string":
            yield f"{v} = str({v}, 'utf-8')"
            yield f"if '\\0' in {v}: spent[1] = 1"
        elif w.kind == "string" and r.kind == "string":
            yield f"if '\\0' in {v}: spent[1] = 1"
        elif w.kind == "string" and r.kind == "bytes":
            yield f"{v} = {v}.encode()"
        logical = logical_of(w, r)
        if logical is not None:
            fault = (Reason.OUT_OF_RANGE, f"expected {logical.name}, got a value past its range at {path}")
            yield f"try: {v} = {self._constant(converter(logical, r.kind))}({v})"
            yield f"except OUTSIDE: raise Fault(*{self._constant(fault)}) from None"

    # -- bodies of functions --------------------------------------------------------------------------------------

    def _record(self, w: Node, r: Node | None, wanted: Wanted | None, path: str) -> Iterator[str]:
        """Read fields in the writer's order, and return them in the reader's."""
        yield f"if d > {DEPTH_MAX}: raise Fault(*too_deep)"
        targets: dict[int, tuple[str, Node, Wanted | None]] = {}
        entries: list[str] = []
        for number, (field, source) in enumerate(sources(r, w) if r is not None else ()):
            read = wanted is None or field.name in wanted
            below = None if wanted is None else wanted.get(field.name)
            if source is not None and read:
                targets[id(source)] = (f"v{number}", field.type, below)
                entries.append(f"{field.name!r}: v{number}")
            elif source is None and field.default is REQUIRED:
                yield from self._mismatch(Reason.MISSING, field.type.shown, "nothing", f"{path}.{field.name}")
            elif source is None and read:
                constant = self._constant(field.default)
                shared = not isinstance(field.default, list | dict)
                entries.append(f"{field.name!r}: {constant if shared else f'copy({constant})'}")
        for source in w.fields:
            v, reader, below = targets.get(id(source), ("_", None, None))
            yield from self._value(v, source.type, reader, below, f"{path}.{source.name}")
        yield f"return {{{', '.join(entries)}}}, p" if r is not None else "return None, p"

    def _blocks(self, w: Node, r: Node | None, wanted: Wanted | None, path: str) -> Iterator[str]:
        """Read arrays and maps: blocks of a count and as many entries. A negative count is followed by a size."""
        is_map = w.kind == "map"
        width = self._width(w.inner[0]) + is_map
        # names of fields are no keys of a map: all of its entries are read
        below = None if is_map else wanted
        yield "found = {}" if is_map else "found = []"
        yield "while True:"
        yield from _indented(_varint())
        yield "    if n == 0: return found, p"
        yield "    count = n >> 1"
        yield "    until = -1"
        yield "    if n & 1:"
        yield "        count += 1"
        yield from _indented(_indented(_varint()))
        yield "        until = p + (n >> 1)"
        yield "        if n & 1 or until > end: raise MalformedAvro('a block that is longer than the message')"
        if r is None:
            yield "        p = until"
            yield "        continue"
        if width:
            yield f"    if count * {width} > end - p:"
            yield "        raise MalformedAvro('a count that is more than the message holds')"
        else:
            yield "    spent[0] += count"
            yield f"    if spent[0] > {ITEMS_MAX}: raise Fault(*too_many)"
        yield "    for _i in range(count):"
        if is_map:
            key = Node("string")
            yield from _indented(_indented(_primitive("key", key) if r is not None else _skipped(key)))
        inner = r.inner[0] if r is not None else None
        yield from _indented(
            _indented(self._value("v", w.inner[0], inner, below, f"{path}{{}}" if is_map else f"{path}[]"))
        )
        if r is not None:
            yield "        found[key] = v" if is_map else "        found.append(v)"
        yield "    if until >= 0 and p != until: raise MalformedAvro('a block that is not as long as it says')"

    def _width(self, node: Node) -> int:
        """Return the least number of bytes of a value; a record within itself counts as 1, which ends the recursion."""
        if node.kind == "record":
            if id(node) not in self._widths:
                self._widths[id(node)] = 1
                self._widths[id(node)] = sum(self._width(field.type) for field in node.fields)
            return self._widths[id(node)]
        if node.kind == "union":
            return 1 + min((self._width(branch) for branch in node.inner), default=0)
        return node.size if node.kind == "fixed" else _WIDTHS.get(node.kind, 1)


def _primitive(v: str, w: Node) -> Iterator[str]:
    """Write the lines that read a value as the writer has it."""
    kind = w.kind
    if kind == "null":
        yield f"{v} = None"
    elif kind == "boolean":
        yield f"{v} = b[p]; p += 1"
        yield f"if {v} > 1: raise MalformedAvro('a boolean that is neither')"
        yield f"{v} = {v} == 1"
    elif kind in ("int", "long"):
        yield from _varint(f"{kind}_")
        yield f"{v} = (n >> 1) ^ -(n & 1)"
    elif kind in ("float", "double"):
        yield f"{v} = {kind}_(b, p)[0]; p += {4 if kind == 'float' else 8}"
    else:
        yield from _stretch(w)
        yield f"{v} = str(b[p:q], 'utf-8'); p = q" if kind == "string" else f"{v} = b[p:q]; p = q"


def _skipped(w: Node) -> Iterator[str]:
    """Write the lines that skip a value: they check that it ends within the message, not what it is."""
    if w.kind in ("int", "long"):
        yield "n = b[p]; p += 1"
        yield "if n > 127: p = past_(b, p)"
    elif w.kind in ("bytes", "string", "fixed"):
        yield from _stretch(w)
        yield "p = q"
    else:
        yield f"p += {_WIDTHS[w.kind]}"


def _stretch(w: Node) -> Iterator[str]:
    """Write the lines that find `q`, the end of the text or bytes that begin at `p`."""
    if w.kind == "fixed":
        yield f"q = p + {w.size}"
        yield "if q > end: raise MalformedAvro('ends too early')"
    else:
        yield from _varint()
        yield "q = p + (n >> 1)"
        yield "if n & 1 or q > end: raise MalformedAvro('a length that is more than the message holds')"


_WIDTHS = {"null": 0, "boolean": 1, "float": 4, "double": 8}


def _varint(longer: str = "long_") -> Iterator[str]:
    """Write the lines that read a varint into `n`, still in zigzag; most take one byte."""
    yield "n = b[p]; p += 1"
    yield f"if n > 127: n, p = {longer}(b, p, n)"


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)
