"""Temporal's test server: the real front-end protocol, workflows kept in memory."""

from lovelace_streams.local import java
from lovelace_streams.local.processes import ManagedServer

PROGRAM = "io.temporal:temporal-test-server:1.31.0"


class Temporal(ManagedServer):
    """It listens on every interface, and no option changes that: run it only while it is needed."""

    name = "temporal"
    variable = "TEMPORAL_ADDRESS"
    grace = 3.0

    def prepare(self) -> None:
        """Download it."""
        java.classpath(PROGRAM)

    def command(self) -> list[str]:
        """Give the command of the server; its one argument is the port."""
        # With the home, this command line differs from that of another stack on the same port.
        options = ("-Xmx256m", java.SHORT_LIVED, f"-Dlovelace.home={self.home}")
        return java.command(PROGRAM, "io.temporal.testserver.TestServer", str(self.port), options=options)
