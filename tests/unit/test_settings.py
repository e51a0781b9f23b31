"""What the environment says, which of its sources wins, and that no password is shown."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.settings import (
    LIBRDKAFKA,
    RELIED_ON,
    KafkaSettings,
    PostgresSettings,
    ProgressSettings,
    Settings,
    librdkafka_settings,
    unread_variables,
    variable_of,
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder and an environment that names nothing of ours."""
    monkeypatch.chdir(tmp_path)
    for name in [field.upper() for field in Settings.model_fields]:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_environment_wins_over_the_file_and_the_file_over_the_local_stack(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / ".lovelace").mkdir()
    (elsewhere / ".lovelace" / "env").write_text("KAFKA_BROKERS=stack:1\nPOLL_SIZE=1\nBATCH_SIZE=1\n")
    (elsewhere / ".env").write_text("POLL_SIZE=2\nBATCH_SIZE=2\nKAFKA_SASL_PASSWORD=filed\n")
    monkeypatch.setenv("BATCH_SIZE", "3")

    settings = Settings()

    assert (settings.kafka_brokers, settings.poll_size, settings.batch_size) == ("stack:1", 2, 3)
    assert settings.kafka.extra["sasl.password"] == "filed"
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "given")
    assert Settings().kafka.extra["sasl.password"] == "given"


def test_the_parts_hold_what_their_steps_need(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "CONSUMER_GROUP_ID": "g",
        "DEAD_LETTER_TOPIC": "letters",
        "BATCH_LINGER_MS": "250",
        "ACCEPT_REFUSALS": "check, null",
        "POSTGRES_DSN": "postgresql://u:p@h/db",
        "POSTGRES_WRITE_SECONDS": "7",
        "PROGRESS_API_URL": "",
    }.items():
        monkeypatch.setenv(name, value)

    settings = Settings()

    assert (settings.kafka.group, settings.kafka.dead_letter_topic, settings.kafka.linger) == ("g", "letters", 0.25)
    assert settings.kafka.accept_refusals == frozenset({"check", "null"})
    assert (settings.postgres.dsn, settings.postgres.write_seconds) == ("postgresql://u:p@h/db", 7)
    assert settings.progress.url is None, "an empty address is none"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BATCH_SIZE", "0"),
        ("POLL_SIZE", "many"),
        ("DRAIN_SECONDS", "-1"),
        ("KAFKA_BROKERS", ""),
        ("METRICS_PORT", "65536"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(DeploymentFault, match=name) as refused:
        Settings()

    assert "\n" not in str(refused.value)


def test_a_level_may_be_written_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "debug")

    assert Settings().log_level == "DEBUG"


def test_a_service_without_a_scheme_is_refused() -> None:
    with pytest.raises(DeploymentFault, match="PROGRESS_API_URL"):
        ProgressSettings("127.0.0.1:8000", "token").check()


def test_what_kubernetes_injects_is_ignored() -> None:
    injected = {
        "KAFKA_PORT": "tcp://10.0.0.1:9092",
        "KAFKA_SERVICE_HOST": "10.0.0.1",
        "KAFKA_PORT_9092_TCP_ADDR": "10.0.0.1",
        "KAFKA_BROKERS": "b:1",
    }

    assert librdkafka_settings(injected | {"KAFKA_SSL_CA_LOCATION": "/ca.pem"}) == {"ssl.ca.location": "/ca.pem"}


INJECTED = [
    "KAFKA_SERVICE_HOST", "KAFKA_SERVICE_PORT", "KAFKA_SERVICE_PORT_CLIENTS", "KAFKA_PORT", "KAFKA_PORT_9092_TCP",
    "KAFKA_PORT_9092_TCP_PROTO", "KAFKA_PORT_9092_TCP_PORT", "KAFKA_PORT_9092_TCP_ADDR", "KAFKA_UI_SERVICE_HOST",
    "KAFKA_UI_PORT_8080_TCP_ADDR",
]  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("KAFKA_PARTITION_ASSIGNMENT_STRATEGY", "range"),
        ("KAFKA_PARTITION_ASSIGNMENT_STRATEGY", "cooperative-sticky,range"),
        ("KAFKA_ENABLE_AUTO_COMMIT", "true"),
        ("KAFKA_AUTO_OFFSET_RESET", "latest"),
        ("KAFKA_GROUP_PROTOCOL", "consumer"),
        ("KAFKA_ACKS", "1"),
        ("KAFKA_ENABLE_IDEMPOTENCE", "false"),
        ("KAFKA_MAX_IN_FLIGHT_REQUESTS_PER_CONNECTION", "50"),
        ("KAFKA_TRANSACTIONAL_ID", "t"),
    ],
)
def test_a_setting_on_which_a_worker_relies_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    monkeypatch.setenv(setting, value)
    settings = Settings()

    with pytest.raises(DeploymentFault, match=f"{setting}={value} is refused: .*leave it out") as refused:
        _ = settings.kafka

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", RELIED_ON)
def test_a_setting_on_which_a_worker_relies_may_say_what_it_is_anyway(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for value in RELIED_ON[name].values:
        monkeypatch.setenv(variable_of(name), value)

        assert Settings().kafka.librdkafka == {}, "the library sets it itself"
    with pytest.raises(DeploymentFault, match="is refused"):
        KafkaSettings("b:1", extra={name: "another"})


@pytest.mark.parametrize("name", sorted(LIBRDKAFKA))
def test_a_mistyped_name_is_told_with_the_nearest_one(name: str) -> None:
    variable = variable_of(name)
    mistyped = variable[:-3] + variable[-2] + variable[-3] + variable[-1]
    if mistyped == variable:
        mistyped = variable[:-1]

    [line] = unread_variables({mistyped: "secret"})

    assert mistyped in line
    assert "secret" not in line
    assert f"do you mean {variable}?" in line or len(name) < 8


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("KAFKA_SASL_USERNMAE", "KAFKA_SASL_USERNAME"),
        ("KAFKA_BROKER", "KAFKA_BROKERS"),
        ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS"),
        ("KAFKA_GROUP_ID", "CONSUMER_GROUP_ID"),
        ("POSTGRES_DNS", "POSTGRES_DSN"),
        ("ACCEPT_REFUSAL", "ACCEPT_REFUSALS"),
    ],
)
def test_a_mistyped_setting_is_told(given: str, meant: str) -> None:
    assert unread_variables({given: ""}) == [f"{given} is not read: do you mean {meant}?"]


def test_what_kubernetes_injects_and_what_is_ours_is_not_told() -> None:
    ours = [name.upper() for name in Settings.model_fields] + [variable_of(name) for name in (*LIBRDKAFKA, *RELIED_ON)]

    assert (
        unread_variables(dict.fromkeys([*INJECTED, *ours, "PATH", "HOME", "KAFKA_HOME", "KAFKA_HEAP_OPTS"], "")) == []
    )


def test_a_name_that_is_near_to_none_is_told_too() -> None:
    [line] = unread_variables({"KAFKA_STATISTICS_INTERVAL_MS": "1000"})

    assert "KAFKA_STATISTICS_INTERVAL_MS" in line


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("ACCEPT_REFUSALS", "chekc", "do you mean 'check'?"),
        ("ACCEPT_REFUSALS", "null,Foreign_Key", "do you mean 'foreign_key'?"),
        ("ACCEPT_REFUSALS", "everything", "there is no reason 'everything'"),
        ("LOG_LEVEL", "WARN", "WARNING"),
        ("LOG_FORMAT", "jsn", "json"),
        ("TABLE_EVOLUTION", "ad", "add"),
    ],
)
def test_a_value_that_is_none_of_a_closed_set_is_refused_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, meant: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(DeploymentFault, match=name) as refused:
        _ = Settings().kafka

    assert meant in str(refused.value)
    assert "\n" not in str(refused.value)


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_DSN", "postgresql://u:hidden@h/db")
    monkeypatch.setenv("PROGRESS_API_TOKEN", "hidden")

    assert "hidden" not in repr(Settings())


@given(password=st.text("Z@:/?#%[] ", min_size=1).filter(lambda text: "Z" in text), query=st.booleans())
def test_the_name_of_a_database_never_holds_its_password(password: str, query: bool) -> None:
    in_front = f"postgresql://user:{password}@db.example:5432/members"
    behind = f"postgresql://db.example:5432/members?password={password}"

    name = PostgresSettings(behind if query else in_front).name

    assert "Z" not in name
    assert name.startswith("postgresql")


def test_the_name_of_a_database_says_where_it_is() -> None:
    assert PostgresSettings("postgresql://u:p@h:5432/db?sslmode=require").name == "postgresql://h:5432/db"
    assert PostgresSettings("postgresql://h/db").name == "postgresql://h/db"
    assert PostgresSettings("host=h password=hidden").name == "postgresql"
