"""A real schema registry on the loopback: Apicurio, which serves Confluent's API and keeps its schemas in a file."""

from lovelace_streams.local import java
from lovelace_streams.local.processes import HOST, ManagedServer, free_port

PROGRAM = "io.apicurio:apicurio-registry-app:3.3.3:tar.gz:all"
API = "/apis/ccompat/v7"


class Registry(ManagedServer):
    """It keeps its ids across restarts, as messages in Kafka refer to them."""

    name = "registry"
    variable = "SCHEMA_REGISTRY_URL"
    deadline = 120.0

    @property
    def url(self) -> str:
        """The address of Confluent's API."""
        return f"http://{self.address}{API}"

    def setting(self) -> str:
        """Give the address with its path."""
        return self.url

    def prepare(self) -> None:
        """Download and unpack it."""
        java.unpacked(PROGRAM)
        self.data.mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        """Give the command of the server; by default its management interface would listen on every address."""
        settings = {
            "quarkus.http.host": HOST,
            "quarkus.http.port": self.port,
            "quarkus.management.host": HOST,
            "quarkus.management.port": free_port(),
            "quarkus.http.access-log.enabled": "false",
            "apicurio.datasource.url": f"jdbc:h2:file:{self.data / 'schemas'}",
        }
        options = ["-Xmx384m", java.SHORT_LIVED, *(f"-D{name}={value}" for name, value in settings.items())]
        return java.run_jar(java.unpacked(PROGRAM) / "quarkus-run.jar", options=options)

    def answers(self) -> bool:
        """Whether it answers a request for subjects."""
        import httpx

        try:
            return httpx.get(f"{self.url}/subjects", timeout=5, trust_env=False).is_success
        except httpx.HTTPError:
            return False
