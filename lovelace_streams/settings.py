"""Settings from the environment and `.env` files, grouped by part; every duration is in seconds unless its name says.

`Settings()` reads the environment, then `.env`, then `.lovelace/env` (written by the local stack). The structs here are
plain and frozen: a flow built by hand can make them without any environment.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.records import Reason

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30})://")


def _check_scheme(setting: str, dsn: str, schemes: tuple[str, ...], example: str) -> None:
    """Refuse the address of another kind of server. What has no scheme (libpq's `host=…`) is the driver's to judge."""
    found = _SCHEME.match(dsn)
    if found is not None and found[1].lower() not in schemes:
        raise DeploymentFault(
            f"{setting} begins with {found[1]}://, which is another kind of server: write {schemes[0]}://…, for "
            f"example {example}"
        )


class KafkaSettings(msgspec.Struct, frozen=True):
    """A broker, a consumer group, and librdkafka's settings beyond our defaults (`extra`: SASL, TLS, intervals).

    Raises `DeploymentFault` for a setting in `extra` with which what a worker promises would not hold (`RELIED_ON`),
    and for a reason in `accept_refusals` that there is not.
    """

    brokers: str
    group: str | None = None
    """Default: the flow's name."""
    poll_size: int = 2000
    linger: float = 0.05
    """How long the source gathers a window of at most `poll_size` messages."""
    max_unreported: int = 1_000_000
    drain_seconds: float = 5.0
    dead_letter_topic: str | None = None
    """Default: `<pipeline>.dlq`."""
    accept_refusals: frozenset[str] = frozenset()
    unknown_schema_grace: float = 3600.0
    """How long a schema is waited for that the registry does not give, while it gives others."""
    columnar: bool = True
    """Whether messages may pass the flow's own steps as columns; the result is the same."""
    extra: dict[str, str] = {}

    def __post_init__(self) -> None:
        for name, value in self.extra.items():
            if (relied := RELIED_ON.get(name)) is not None and value.strip().lower() not in relied.values:
                raise DeploymentFault(f"{variable_of(name)}={value} is refused: {relied.reason}")
        for reason in sorted(self.accept_refusals - set(Reason)):
            raise DeploymentFault(
                f"ACCEPT_REFUSALS: there is no reason {reason!r}{_meant(reason, map(str, Reason))}: "
                "docs/delivery-guarantees.md lists them"
            )

    @property
    def librdkafka(self) -> dict[str, str]:
        """What of `extra` is passed on; the library sets what it relies on itself."""
        return {name: value for name, value in self.extra.items() if name not in RELIED_ON}


class BatchPolicy(msgspec.Struct, frozen=True):
    """How a window is cut into batches: one is closed by `rows` or by `bytes` (of the messages' values)."""

    rows: int = 100
    bytes: int = 8 * 1024 * 1024


class PostgresSettings(msgspec.Struct, frozen=True):
    """A database. `prepare` keeps server-side prepared statements, which a transaction pooler may not allow."""

    dsn: str
    pool: int = 1
    """Connections that share the rows of one writer by their keys."""
    write_seconds: float = 30.0
    """The client's own deadline for one block (law 5)."""
    block_rows: int = 2000
    """Rows that one transaction may carry if a window has more than a batch."""
    prepare: bool = False
    evolution: Literal["none", "add"] = "none"
    """`add`: at start the writer adds columns that rows have and the table lacks."""

    def __post_init__(self) -> None:
        _check_scheme("POSTGRES_DSN", self.dsn, ("postgresql", "postgres"), "postgresql://user:password@host/database")

    @property
    def name(self) -> str:
        """The DSN without its password; only `postgresql` if it is unclear where the password ends."""
        credentials, _, rest = self.dsn.partition("://")[2].rpartition("@")
        if not rest or "?" in credentials:
            return "postgresql"
        return f"postgresql://{rest.partition('?')[0].partition('#')[0]}"


class ClickHouseSettings(msgspec.Struct, frozen=True):
    """ClickHouse: a server over HTTP, or the engine in the process (`chdb:///path`)."""

    dsn: str
    write_seconds: float = 30.0
    """The client's own deadline for one block (law 5)."""
    block_rows: int = 10_000
    """Rows that one insert may carry if a window has more than a batch."""
    views: Literal["accept", "refuse"] = "accept"
    """`refuse`: a table with materialized views stops the worker at start."""

    def __post_init__(self) -> None:
        _check_scheme("CLICKHOUSE_DSN", self.dsn, ("http", "https", "chdb"), "http://user:password@host:8123/database")

    @property
    def name(self) -> str:
        """The DSN without its credentials and settings; only `clickhouse` if it is unclear where the password ends."""
        scheme, _, rest = self.dsn.partition("://")
        if scheme == "chdb":
            return f"chdb://{rest.partition('?')[0]}"
        credentials, _, host = rest.rpartition("@")
        if not rest or "?" in credentials or "#" in credentials:
            return "clickhouse"
        return f"{scheme}://{host.partition('?')[0].partition('#')[0]}"


class ProgressSettings(msgspec.Struct, frozen=True):
    """The progress service; without a `url` a flow commits settled offsets and counts nothing."""

    url: str | None
    token: str = ""
    timeout: float = 10.0

    @property
    def name(self) -> str:
        """The address without credentials; only `the progress service` if it is unclear where they end."""
        scheme, _, rest = (self.url or "").partition("://")
        credentials, _, host = rest.rpartition("@")
        unclear = not host or any(mark in credentials for mark in "/?#")
        return "the progress service" if unclear else f"{scheme}://{host}"

    def check(self) -> None:
        """Raise `DeploymentFault` if requests can't be made: no URL, an invalid one, or no token."""
        if self.url is None:
            raise DeploymentFault("no progress service: set PROGRESS_API_URL (lovelace api starts one)")
        if not self.url.startswith(("http://", "https://")):
            raise DeploymentFault("PROGRESS_API_URL is invalid: it must begin with http:// or https://")
        if not self.token:
            raise DeploymentFault(
                f"no token for the progress service {self.name}: "
                "set PROGRESS_API_TOKEN to the one that the service was started with"
            )


class Settings(BaseSettings):
    """All settings, from the environment (docs/settings.md). Raises `DeploymentFault` for an invalid value."""

    model_config = SettingsConfigDict(env_file=(".lovelace/env", ".env"), extra="ignore", frozen=True)

    kafka_brokers: str = Field(default="127.0.0.1:9092", min_length=1)
    consumer_group_id: str | None = None
    dead_letter_topic: str | None = None
    schema_registry_url: SecretStr | None = None
    unknown_schema_grace: float = Field(default=3600.0, ge=0)
    postgres_dsn: SecretStr = SecretStr("postgresql://postgres@127.0.0.1:5432/postgres")
    postgres_pool: int = Field(default=1, ge=1, le=64)
    postgres_write_seconds: float = 30.0
    postgres_block_rows: int = Field(default=2000, ge=1, le=1_000_000)
    postgres_prepare: bool = False
    table_evolution: Literal["none", "add"] = "none"
    clickhouse_dsn: SecretStr | None = None
    clickhouse_write_seconds: float = 30.0
    clickhouse_block_rows: int = Field(default=10_000, ge=1, le=1_000_000)
    clickhouse_views: Literal["accept", "refuse"] = "accept"
    progress_api_url: str | None = None
    progress_api_token: SecretStr = SecretStr("")
    samples_token: SecretStr = SecretStr("")
    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8000, ge=0, le=65_535)
    temporal_address: str = "127.0.0.1:7233"
    temporal_namespace: str = "default"
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=9108, ge=0, le=65_535)
    batch_size: int = Field(default=100, ge=1, le=100_000)
    batch_linger_ms: int = Field(default=50, ge=1)
    poll_size: int = Field(default=2000, ge=1)
    max_unreported: int = Field(default=1_000_000, ge=1)
    drain_seconds: float = Field(default=5.0, ge=0)
    accept_refusals: str = ""
    columnar: bool = True
    job_stall_seconds: float = 900.0
    signal_grace: float = 3600.0
    otel_exporter_otlp_endpoint: str | None = None
    otel_exporter_otlp_traces_endpoint: str | None = None
    otel_traces_exporter: str = "otlp"
    otel_sdk_disabled: bool = False
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(str.upper)] = "INFO"
    log_format: Literal["auto", "json", "console"] = "auto"

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            wrong = ", ".join(map(_shown, error.errors()))
            raise DeploymentFault(f"invalid settings: {wrong}") from None
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise DeploymentFault(f"the settings in .env or .lovelace/env can't be read: {why}") from None

    @property
    def kafka(self) -> KafkaSettings:
        """The settings of the broker and the consumer group."""
        return KafkaSettings(
            brokers=self.kafka_brokers,
            group=self.consumer_group_id,
            poll_size=self.poll_size,
            linger=self.batch_linger_ms / 1000,
            max_unreported=self.max_unreported,
            drain_seconds=self.drain_seconds,
            dead_letter_topic=self.dead_letter_topic,
            unknown_schema_grace=self.unknown_schema_grace,
            accept_refusals=frozenset(filter(None, self.accept_refusals.replace(" ", "").split(","))),
            columnar=self.columnar,
            extra=librdkafka_settings(_environment()),
        )

    @property
    def registry(self) -> str:
        """The schema registry's URL, which may hold a password; raises `DeploymentFault` without a URL."""
        if self.schema_registry_url is None or not self.schema_registry_url.get_secret_value():
            raise DeploymentFault("no schema registry: set SCHEMA_REGISTRY_URL (lovelace up starts one)")
        return self.schema_registry_url.get_secret_value()

    @property
    def batch(self) -> BatchPolicy:
        """How windows are cut into batches."""
        return BatchPolicy(rows=self.batch_size)

    @property
    def postgres(self) -> PostgresSettings:
        """The settings of the Postgres writer."""
        return PostgresSettings(
            dsn=self.postgres_dsn.get_secret_value(),
            pool=self.postgres_pool,
            write_seconds=self.postgres_write_seconds,
            block_rows=self.postgres_block_rows,
            prepare=self.postgres_prepare,
            evolution=self.table_evolution,
        )

    @property
    def clickhouse(self) -> ClickHouseSettings:
        """The settings of the ClickHouse writer; without a DSN a worker stops at start."""
        return ClickHouseSettings(
            dsn=self.clickhouse_dsn.get_secret_value() if self.clickhouse_dsn else "",
            write_seconds=self.clickhouse_write_seconds,
            block_rows=self.clickhouse_block_rows,
            views=self.clickhouse_views,
        )

    @property
    def progress(self) -> ProgressSettings:
        """The settings of the progress service's client."""
        return ProgressSettings(url=self.progress_api_url or None, token=self.progress_api_token.get_secret_value())


LIBRDKAFKA = frozenset(
    [
        "client.id",
        "client.rack",
        "security.protocol",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.username",
        "sasl.password",
        "sasl.kerberos.service.name",
        "sasl.kerberos.principal",
        "sasl.kerberos.keytab",
        "sasl.oauthbearer.method",
        "sasl.oauthbearer.client.id",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.scope",
        "sasl.oauthbearer.token.endpoint.url",
        "ssl.ca.location",
        "ssl.ca.pem",
        "ssl.certificate.location",
        "ssl.certificate.pem",
        "ssl.key.location",
        "ssl.key.pem",
        "ssl.key.password",
        "ssl.endpoint.identification.algorithm",
        "enable.ssl.certificate.verification",
        "broker.address.family",
        "socket.timeout.ms",
        "socket.keepalive.enable",
        "message.max.bytes",
        "receive.message.max.bytes",
        "fetch.message.max.bytes",
        "fetch.max.bytes",
        "max.partition.fetch.bytes",
        "fetch.wait.max.ms",
        "fetch.queue.backoff.ms",
        "queued.min.messages",
        "queued.max.messages.kbytes",
        "max.poll.interval.ms",
        "session.timeout.ms",
        "heartbeat.interval.ms",
        "group.instance.id",
        "isolation.level",
        "metadata.max.age.ms",
        "topic.metadata.refresh.interval.ms",
        "reconnect.backoff.ms",
        "reconnect.backoff.max.ms",
        "compression.type",
        "linger.ms",
        "debug",
    ]
)
"""Settings of librdkafka that `KAFKA_…` may set. What Kubernetes injects for a Service named kafka is ignored."""


class ReliedOn(msgspec.Struct, frozen=True):
    """A setting of librdkafka that the library relies on: the values that it may have, and why no other."""

    values: frozenset[str]
    reason: str


def _relied_on(reason: str, *values: str) -> ReliedOn:
    return ReliedOn(frozenset(values), reason)


_COMMITS = "the flow commits offsets itself, when everything before them is settled; leave it out"
_ACKNOWLEDGED = "an item is settled when all replicas in sync have its letter: leave it out, or set all"
_IN_ORDER = "letters are sent once and in order: leave it out, or set 1 to 5"
_GROUP = "workers share partitions out by the classic protocol of a group; leave it out"

RELIED_ON: Mapping[str, ReliedOn] = {
    "partition.assignment.strategy": _relied_on(
        "workers take and give partitions up one by one, which only cooperative-sticky does: an eager strategy takes "
        "all partitions from all workers at each rebalance; leave it out",
        "cooperative-sticky",
    ),
    "group.protocol": _relied_on(_GROUP, "classic"),
    "group.remote.assignor": _relied_on(_GROUP),
    "enable.auto.commit": _relied_on(_COMMITS, "false"),
    "auto.commit.enable": _relied_on(_COMMITS, "false"),
    "auto.commit.interval.ms": _relied_on(_COMMITS),
    "enable.auto.offset.store": _relied_on(_COMMITS, "false"),
    "auto.offset.reset": _relied_on(
        "a worker sets the start of each partition itself, and stops where records were deleted before they were read; "
        "leave it out, `lovelace rewind` moves a group",
        "error",
    ),
    "enable.partition.eof": _relied_on("offsets behind the last record show in nothing else; leave it out", "true"),
    "acks": _relied_on(_ACKNOWLEDGED, "all", "-1"),
    "request.required.acks": _relied_on(_ACKNOWLEDGED, "all", "-1"),
    "enable.idempotence": _relied_on("letters are sent once and in order: leave it out, or set true", "true"),
    "max.in.flight": _relied_on(_IN_ORDER, *"12345"),
    "max.in.flight.requests.per.connection": _relied_on(_IN_ORDER, *"12345"),
    "transactional.id": _relied_on("letters are not sent in transactions; leave it out"),
    "delivery.report.only.error": _relied_on("letters are settled by their acknowledgements; leave it out", "false"),
}
"""Settings that the library relies on. They can be left out; a value that agrees changes nothing."""

_CALLED_OTHERWISE = {
    "KAFKA_GROUP_ID": "CONSUMER_GROUP_ID",
    "KAFKA_CONSUMER_GROUP_ID": "CONSUMER_GROUP_ID",
    "KAFKA_BOOTSTRAP_SERVERS": "KAFKA_BROKERS",
    "KAFKA_METADATA_BROKER_LIST": "KAFKA_BROKERS",
}
_INJECTED = re.compile(
    r"KAFKA_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes injects into each container for a Service called kafka, or kafka-something."""
_OF_OTHERS = re.compile(r"KAFKA_(HOME|OPTS|HEAP_OPTS|GC_\w+|JMX_\w+|JVM_\w+|LOG4J_\w+|LOG_DIR|DEBUG_\w+|CLUSTER_ID)")
"""What Kafka's own programs read."""


def librdkafka_settings(environment: dict[str, str]) -> dict[str, str]:
    """Return librdkafka's settings: `KAFKA_SASL_USERNAME=x` → `{"sasl.username": "x"}`, for the names in `LIBRDKAFKA`.

    >>> librdkafka_settings({"KAFKA_SASL_USERNAME": "x", "KAFKA_PORT": "tcp://10.0.0.1:9092", "KAFKA_BROKERS": "b:1"})
    {'sasl.username': 'x'}
    """
    named = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith("KAFKA_")
    }
    return {name: value for name, value in named.items() if name in LIBRDKAFKA or name in RELIED_ON}


def variable_of(name: str) -> str:
    """Give the variable that sets a setting of librdkafka.

    >>> variable_of("sasl.username")
    'KAFKA_SASL_USERNAME'
    """
    return "KAFKA_" + name.upper().replace(".", "_")


def unread_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """Say which variables look like settings of ours and are not: mistyped names, and `KAFKA_…` that nobody reads.

    >>> unread_variables({"KAFKA_SASL_USERNMAE": "x", "POSTGRES_DNS": "y", "KAFKA_SERVICE_HOST": "10.0.0.1"}) == [
    ...     "KAFKA_SASL_USERNMAE is not read: do you mean KAFKA_SASL_USERNAME?",
    ...     "POSTGRES_DNS is not read: do you mean POSTGRES_DSN?",
    ... ]
    True
    """
    ours = [name.upper() for name in Settings.model_fields]
    librdkafka = [variable_of(name) for name in (*LIBRDKAFKA, *RELIED_ON)]
    lines, others = [], []
    for name in sorted(_environment() if environment is None else environment):
        if name.upper() in {*ours, *librdkafka} or _INJECTED.fullmatch(name) or _OF_OTHERS.fullmatch(name):
            continue
        kafka = name.startswith("KAFKA_")
        near = difflib.get_close_matches(name.upper(), [*ours, *librdkafka] if kafka else ours, n=1, cutoff=NEAR)
        if meant := _CALLED_OTHERWISE.get(name) or next(iter(near), None):
            lines.append(f"{name} is not read: do you mean {meant}?")
        elif kafka:
            others.append(name)
    if others:
        lines.append(f"no setting of a worker has these names, so they are not read: {', '.join(others)}")
    return lines


NEAR = 0.87
"""From which likeness on (`difflib`) a name counts as mistyped: two letters swapped in a short name."""


def _meant(given: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(given.lower(), list(names), n=1)
    return f", do you mean {near[0]!r}?" if near else ""


def _shown(error: Any) -> str:
    """Show what pydantic says of a setting, and the nearest of the values that it may have; never the value itself."""
    name = ".".join(map(str, error["loc"])).upper()
    meant = ""
    if error["type"] == "literal_error":
        values = re.findall(r"'([^']+)'", error["ctx"]["expected"])
        near = difflib.get_close_matches(str(error["input"]).upper(), [value.upper() for value in values], n=1)
        meant = next((f", do you mean {value}?" for value in values if near == [value.upper()]), "")
    return f"{name}: {error['msg']}{meant}"


def _environment() -> dict[str, str]:
    """Merge `.lovelace/env`, `.env` and the environment; later ones win."""
    from dotenv import dotenv_values

    merged: dict[str, Any] = {}
    for path in (Path(".lovelace/env"), Path(".env")):
        if path.is_file():
            merged.update(dotenv_values(path))
    merged.update(os.environ)
    return {name: value for name, value in merged.items() if value is not None}
