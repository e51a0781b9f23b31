"""What a file of payloads is read as, by its bytes; what is refused with what it is, and where."""

import bz2
import gzip
import io
import json
import lzma
import os
import re
import tarfile
import threading
import zipfile
from functools import partial
from pathlib import Path

import msgspec
import pytest

from lovelace_streams.admin import submit
from lovelace_streams.admin.payloads import PayloadsError, open_payloads, read_payloads
from lovelace_streams.admin.submit import Told, read_file
from lovelace_streams.submit import Outgoing, Source, keyed_by

packed = partial(gzip.compress, mtime=0)  # the same bytes whenever the tests are collected
BOM = b"\xef\xbb\xbf"
LINES = b'{"id": 1}\n{"id": 2, "n": "\xc3\xa9"}\n'
SOURCE = Source("orders", topic="orders.raw", rows=(), messages=keyed_by("id"))


def sent(content: bytes, source: Source = SOURCE) -> list[bytes]:
    return [message.value for message in read_file(io.BufferedReader(io.BytesIO(content)), source, {})]


def refused(content: bytes) -> str:
    with pytest.raises(PayloadsError) as refusal:
        sent(content)
    assert "secret" not in str(refusal.value)
    return str(refusal.value)


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("payloads.json", content)
    return file.getvalue()


def tar(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("payloads.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        LINES,
        BOM + LINES,
        packed(LINES),
        packed(BOM + LINES),
        b"".join(map(packed, (LINES[:10], LINES[10:]))),
        b"\n  \n\r\n" + LINES.replace(b"\n", b"\r\n\r\n") + b"\t",
        LINES.removesuffix(b"\n"),
        LINES.replace(b"\n", b"\n" + BOM),
    ],
    ids=["lines", "mark", "gzip", "mark-in-gzip", "gzip-joined", "crlf-and-blank", "no-last-newline", "joined"],
)
def test_the_same_lines_are_sent_however_the_file_is_written(content: bytes) -> None:
    assert sent(content) == [b'{"id": 1}', b'{"id": 2, "n": "\xc3\xa9"}']


@pytest.mark.parametrize("content", [b'[{"id": 1}, {"id": 2}]', json.dumps([{"id": 1}, {"id": 2}], indent=4).encode()])
@pytest.mark.parametrize("write", [bytes, BOM.__add__, packed, lambda text: packed(BOM + b"\n" + text)])
def test_the_same_items_are_sent_however_an_array_is_written(content: bytes, write) -> None:
    assert sent(write(content)) == [b'{"id":1}', b'{"id":2}']


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ['{"id": 1}\n{"id": 2}\n', '[{"id": 1}]', '\n{"id": 1}', "7"])
@pytest.mark.parametrize("write", [bytes, packed])
def test_another_unicode_encoding_is_refused_with_its_name(encoding: str, text: str, write) -> None:
    says = refused(write(text.encode(encoding)))

    assert f"it is {encoding[:6].upper()}" in says
    assert "convert it to UTF-8 first" in says


@pytest.mark.parametrize("text", ['{"id": 1}', '[{"id": 1}]'])
def test_unicode_marks_of_both_byte_orders_are_known(text: str) -> None:
    assert "it is UTF-16:" in refused(b"\xfe\xff" + text.encode("utf-16-be"))
    assert "it is UTF-32:" in refused(b"\x00\x00\xfe\xff" + text.encode("utf-32-be"))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (zipped(LINES), "a zip archive: unpack"),
        (zipped(b"")[-22:], "a zip archive: unpack"),
        (bz2.compress(LINES), "bzip2: unpack"),
        (lzma.compress(LINES), "xz: unpack"),
        (b"\x28\xb5\x2f\xfd\x24\x0a\x51\x00\x00", "zstd: unpack"),
        (tar(LINES), "a tar archive: unpack"),
        (packed(tar(LINES)), "a tar archive inside gzip: unpack"),
        (packed(packed(LINES)), "gzip inside gzip: unpack"),
        (b"PAR1\x15\x04", "Parquet: write its rows as JSON"),
        (b"Obj\x01\x04\x14", "an Avro file: write its records as JSON"),
        (b"\x7fELF\x02\x01\x01\x00\x00\xff\xfe", "binary: give"),
        (bytes(5000), "binary: give"),
    ],
)
def test_what_is_no_text_is_refused_with_what_it_is(content: bytes, what: str) -> None:
    assert f"it is {what}" in refused(content)


@pytest.mark.parametrize("broken", [b"{broken", b'{"n": "\xe9"}', b"\x00\x01", b'{"n": "a\x00b"}', b"\xff\xfe{", b'["'])
@pytest.mark.parametrize("first", [False, True])
def test_one_broken_line_belongs_to_its_job_as_it_is(broken: bytes, first: bool) -> None:
    lines = [b'{"id":1}', b'{"id":2}']
    lines.insert(0 if first and broken[:1] not in b"\x00\xff[" else 1, broken)

    assert sent(b"\n".join(lines)) == lines


def test_what_is_not_json_is_told_with_its_first_line() -> None:
    told = Told()
    content = b'{"id":1}\n\n{"n": "\xe9"}\n{"id":2}\n{broken\n'

    list(read_file(io.BufferedReader(io.BytesIO(content)), SOURCE, {}, told))

    assert str(told).startswith("2 of 4 payloads are not JSON, the first: line 3 is not UTF-8;")


@pytest.mark.parametrize("content", [b"", b"\n\n", BOM, packed(b"")])
def test_a_file_without_payloads_is_told(content: bytes) -> None:
    told = Told()

    assert list(read_file(io.BufferedReader(io.BytesIO(content)), SOURCE, {}, told)) == []
    assert "holds no payloads" in str(told)


@pytest.mark.parametrize("lines", [1, 3, 3000])
def test_gzip_that_ends_early_names_the_line(lines: int) -> None:
    content = b"".join(b'{"id": %d, "secret": "%s"}\n' % (n, os.urandom(20).hex().encode()) for n in range(lines))
    whole = packed(content)

    for end in (3, 12, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        assert "gzip data end early, " in refused(whole[:end])
    assert "before the end of its first line: it is not whole" in refused(whole[:12])
    assert lines < 3000 or re.search(r"after line 1\d\d\d: it is not whole", refused(whole[: len(whole) // 2]))


@pytest.mark.parametrize("array", [False, True])
def test_damaged_gzip_is_refused(array: bool) -> None:
    content = b'[{"id": 1}]' if array else LINES
    whole = packed(content)

    assert "gzip data are damaged " in refused(whole[:-8] + bytes(4) + whole[-4:])
    assert "gzip data are damaged " in refused(whole + b"more")
    assert "gzip data" in refused(whole[:12] + b"\xff\xff\xff" + whole[15:])


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"id": 1, "of": {"a": [1, 2]}}, indent=2).encode(),
        BOM + json.dumps({"id": 1}, indent=2).encode() + b"\n" + json.dumps({"id": 2}, indent=2).encode(),
        packed(b'\n{\r\n  "id": 1\r\n}\r\n'),
    ],
)
def test_a_payload_over_several_lines_is_not_sent_in_pieces(content: bytes) -> None:
    assert "takes several lines: give one payload per line" in refused(content)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b'[{"secret": 1},\n {"secret": \n', "no JSON array from line 3, column 1 on"),
        (b'[{"id": 1},\n \xe9]', "no JSON array, line 2 is not UTF-8"),
        (b'[{"secret": 1}]\n{"secret": 2}', "no JSON array from line 2, column 1 on"),
        (b'[\n[{"secret": 2}]', "no JSON array from line 2, column 16 on"),
        (b'[{"n": "\\ud800"},]', "no JSON array from line 1, column 18 on"),
        (b'[{"n": "\\ud800"} {}]', "no JSON array from line 1, column 18 on"),
        (b'[{"n": "\\ud800"}\n,{}]\n]', "no JSON array from line 3, column 1 on"),
        (b'[{"n": "\\ud800"}', "no JSON array from line 1, column 17 on"),
        (b'["secret", %s' % (b"1" * 5000), "no JSON array from line 1, column 5012 on"),
        (b"[" * 100_000, "no JSON array"),
    ],
)
def test_an_array_that_is_none_is_refused_with_the_place(content: bytes, where: str) -> None:
    assert where in refused(content)
    assert where in refused(BOM + content)


@pytest.mark.parametrize(
    "broken", [b'{"n": "\xe9"}', b'{"n": 1e400}', b'{"n": "\\ud800"}', b'{"n": %s}' % (b"1" * 5000)]
)
def test_one_broken_item_of_an_array_belongs_to_its_job_as_it_is(broken: bytes) -> None:
    told = Told()
    file = io.BufferedReader(io.BytesIO(b'[{"id": 1},' + broken + b',\n{"id": 3}]'))

    messages = list(read_file(file, SOURCE, {}, told))

    assert [message.value for message in messages] == [b'{"id":1}', broken, b'{"id":3}']
    assert str(told).startswith("1 of 3 payloads are not JSON, the first: item 2 is not ")


@pytest.mark.parametrize("write", [bytes, BOM.__add__, gzip.compress])
def test_lines_may_be_arrays(write) -> None:
    assert sent(write(b'[{"id": 1}, 2]\n\n[]\r\n[3]\n')) == [b'[{"id": 1}, 2]', b"[]", b"[3]"]
    assert sent(write(b'[[{"id": 1}],\n[3]]\n')) == [b'[{"id":1}]', b"[3]"]


def test_digits_are_kept() -> None:
    number = b'{"id":1,"n":1234567890.12345678901,"m":18446744073709551617}'

    assert sent(number) == [number]
    assert sent(b"[ " + number.replace(b",", b" ,\n ") + b" ]") == [number]


def test_a_payload_that_can_not_be_sent_names_its_place() -> None:
    def messages(payload):
        if payload["id"] == 2:
            raise ValueError("these orders name no shop")
        yield Outgoing(b"", msgspec.json.encode(payload))

    source = Source("orders", topic="orders.raw", rows=(), messages=messages)
    for content, place in ((b'{"id":1}\n\n{"id":2}', "line 3"), (b'[{"id":1},{"id":2}]', "item 2")):
        with pytest.raises(PayloadsError, match=f"^{place}: these orders name no shop$"):
            sent(content, source)


def test_a_line_that_no_broker_takes_is_refused_and_a_large_one_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    large = b'{"id":1,"n":"%s"}' % (b"x" * 5_000_000)
    assert sent(b"\n" + large) == [large]

    monkeypatch.setattr(submit, "MESSAGE_BYTES_MAX", 1_000_000)
    with pytest.raises(PayloadsError, match="^line 2: its message has 5000016 bytes"):
        sent(b"\n" + large)


def test_a_pipe_can_be_read_twice(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(packed(LINES),))
    writer.start()

    with open_payloads(pipe) as file:
        found = [[payload.value for payload in read_payloads(file)] for _ in range(2)]

    writer.join()
    assert found == [[{"id": 1}, {"id": 2, "n": "é"}]] * 2


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(BOM + LINES)
    monkeypatch.setattr("sys.stdin", (tmp_path / "given").open())

    with open_payloads(Path("-")) as file:
        assert [payload.place for payload in read_payloads(file)] == ["line 1", "line 2"]
