"""The settings of the progress service, as a plain value that a test can make without an environment."""

from typing import Self

import msgspec

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.settings import KafkaSettings, Settings


class ApiSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Durations are in seconds. Product names (`jobs_table`, `signal_name`) are defaults."""

    dsn: str
    token: str
    host: str = "127.0.0.1"
    port: int = 8000
    schema: str = "lovelace"
    jobs_table: str = "game_onboarding_progress"
    signal_name: str = "onboarding_input_received"
    temporal_address: str | None = "127.0.0.1:7233"
    """None: signals are queued and not sent."""
    temporal_namespace: str = "default"
    signal_grace: float = 3600.0
    """How long a signal to an unknown workflow is tried again before it is undeliverable."""
    signal_poll: float = 1.0
    signal_backoff_max: float = 60.0
    job_stall_seconds: float = 900.0
    keep_failed_seconds: float = 30 * 86400.0
    """Failed items are kept this long after their job has ended; unknown jobs a hundred times `job_stall_seconds`."""
    sweep_seconds: float = 15.0
    heartbeat: float = 15.0
    """A silent event stream sends a comment this often."""
    body_max: int = 16 * 1024 * 1024
    pool_max: int = 8
    request_seconds: float = 10.0
    """The deadline of a request's work in the database; past it the answer is 503."""
    samples_token: str = ""
    """A visitor who is logged in and gives it sees samples of failed items; "": samples are off."""
    kafka: KafkaSettings | None = None
    """The broker with the dead-letter topics, for samples."""
    metrics_open: bool = False
    """Whether `/metrics` is answered without a token."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Read the environment. Raises `DeploymentFault` without a token, because then any report would be accepted."""
        token = settings.progress_api_token.get_secret_value()
        if not token:
            raise DeploymentFault(
                "PROGRESS_API_TOKEN is not set, so the progress service would accept any report: set one, for example "
                "PROGRESS_API_TOKEN=$(python -c 'import secrets; print(secrets.token_urlsafe())'), here and for workers"
            )
        return cls(
            dsn=settings.postgres.dsn,
            token=token,
            host=settings.api_host,
            port=settings.api_port,
            temporal_address=settings.temporal_address or None,
            temporal_namespace=settings.temporal_namespace,
            samples_token=settings.samples_token.get_secret_value(),
            kafka=settings.kafka,
            signal_grace=settings.signal_grace,
            job_stall_seconds=settings.job_stall_seconds,
        )

    def __repr__(self) -> str:  # law 10: a traceback shows neither token nor password
        return f"ApiSettings(host={self.host!r}, port={self.port}, schema={self.schema!r})"
