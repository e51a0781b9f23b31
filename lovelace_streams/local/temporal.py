"""Temporal's test server: the real front-end protocol, workflows kept in memory."""

from lovelace_streams.local import java
from lovelace_streams.local.processes import Part

PROGRAM = "io.temporal:temporal-test-server:1.31.0"


class Temporal(Part):
    """Listens on every interface and can't be told otherwise: run it only while something needs it."""

    name = "temporal"
    variable = "TEMPORAL_ADDRESS"
    grace = 3.0

    def prepare(self) -> None:
        """Download it."""
        java.classpath(PROGRAM)

    def command(self) -> list[str]:
        """The server, its one argument the port."""
        # The home makes the command line ours: another one may have the same port some day.
        options = ("-Xmx256m", java.SHORT_LIVED, f"-Dlovelace.home={self.home}")
        return java.command(PROGRAM, "io.temporal.testserver.TestServer", str(self.port), options=options)
