"""ClickHouse's HTTP interface over its engine: what a client needs of it, no more, in a process that tests can stop.

No package carries a ClickHouse server that is not years old, and chDB, the engine in a package, does not listen. So
requests are taken here and answered by the engine itself: its SQL, its Native format, its settings and error codes are
real; the routes, headers and statuses follow the documentation of the HTTP interface.

    python tests/servers/clickhouse_http.py PATH PORT PASSWORD
"""

import base64
import re
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import chdb
import lz4.frame

CODE = re.compile(r"Code: (\d+)\.")
INSERT = re.compile(rb"(INSERT INTO [^\n]*?) FORMAT Native\n", re.IGNORECASE)
FORMAT = re.compile(r"FORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
NOT_SETTINGS = {
    "query",
    "database",
    "client_protocol_version",
    "wait_end_of_query",
    "session_id",
    "query_id",
    "compress",
}
STATUS = {"516": 403, "60": 404, "81": 404}


class Handler(BaseHTTPRequestHandler):
    """One connection, with a handle of the engine of its own."""

    protocol_version = "HTTP/1.1"
    path_of_engine = ""
    password = ""

    def setup(self) -> None:
        super().setup()
        self.engine = chdb.connect(self.path_of_engine)

    def finish(self) -> None:
        self.engine.close()
        super().finish()

    def do_GET(self) -> None:
        if urlsplit(self.path).path == "/ping":
            self.answer(200, b"Ok.\n")
        else:
            self.do_POST()

    def do_POST(self) -> None:
        body = self.body()
        given = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        if not self.known():
            self.answer(403, b"Code: 516. DB::Exception: Authentication failed. (AUTHENTICATION_FAILED)", code="516")
            return
        try:
            shown, answer = self.run(given, body)
        except (RuntimeError, chdb.ChdbError) as error:
            text = str(error)
            found = CODE.search(text)
            code = found[1] if found else "1002"
            self.answer(STATUS.get(code, 500), text.encode(), code=code)
        else:
            self.answer(200, answer, **({"format": shown} if answer else {}))

    def run(self, given: dict[str, str], body: bytes) -> tuple[str, bytes]:
        if "database" in given:
            self.engine.query(f"USE `{given['database']}`")
        for name, value in given.items():
            if name not in NOT_SETTINGS and not name.startswith("param_"):
                self.engine.query(f"SET {name} = '{value}'")
        insert = INSERT.match(body)
        if insert:
            with tempfile.NamedTemporaryFile(suffix=".native") as file:
                file.write(body[insert.end() :])
                file.flush()
                self.engine.query(f"{insert[1].decode()} FROM INFILE '{file.name}' FORMAT Native")
            return "", b""
        query = "\n".join(filter(None, (given.get("query"), body.decode())))
        format_ = FORMAT.search(query)
        shown = format_[1] if format_ else "TabSeparated"
        parameters = {name.removeprefix("param_"): value for name, value in given.items() if name.startswith("param_")}
        return shown, self.engine.query(query, shown, params=parameters).bytes() or b""

    def known(self) -> bool:
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        password = base64.b64decode(credentials).decode().partition(":")[2] if scheme == "Basic" else ""
        return (self.headers.get("X-ClickHouse-Key") or password) == self.password

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(chunks)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return lz4.frame.decompress(body) if self.headers.get("Content-Encoding") == "lz4" else body

    def answer(self, status: int, body: bytes, *, code: str = "", format: str = "") -> None:  # noqa: A002
        self.send_response(status)
        self.send_header("X-ClickHouse-Summary", '{"written_rows":"0"}')
        self.send_header("X-ClickHouse-Timezone", "UTC")
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code)
        if format:
            self.send_header("X-ClickHouse-Format", format)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        print(format % args, file=sys.stderr)


def main() -> None:
    path, port, password = sys.argv[1:]
    Handler.path_of_engine, Handler.password = str(Path(path).resolve()), password
    held = chdb.connect(Handler.path_of_engine)  # the engine lives as long as a handle is open
    with ThreadingHTTPServer(("127.0.0.1", int(port)), Handler) as server:
        server.serve_forever()
    held.close()


if __name__ == "__main__":
    main()
