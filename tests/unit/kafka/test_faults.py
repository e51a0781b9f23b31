"""Whose fault an error of Kafka is: every code that the client knows, and how long one is not believed."""

import pytest
from confluent_kafka import KafkaError

from lovelace_streams.kafka.faults import (
    GROUP_SECONDS,
    KIND_BY_NAME,
    LOGIN_SECONDS,
    ErrorKind,
    Refusals,
    kind_of,
    name_of,
)

CODES = sorted({code for name, code in vars(KafkaError).items() if name.isupper() and isinstance(code, int)})


def test_every_code_of_the_client_has_a_kind() -> None:
    names = {KafkaError(code).name() for code in CODES}

    assert len(CODES) > 150
    assert sorted(names - KIND_BY_NAME.keys()) == []
    assert sorted(KIND_BY_NAME.keys() - names) == [], "names that the client does not have"


@pytest.mark.parametrize("code", CODES)
def test_every_code_either_passes_or_stops_with_one_line(code: int) -> None:
    clock = [0.0]
    refusals = Refusals("broker:1", clock=lambda: clock[0])

    faults = []
    for second in range(int(GROUP_SECONDS) + 2):
        clock[0] = float(second)
        faults.append(refusals.hear(KafkaError(code)))

    stopped_at = next((second for second, fault in enumerate(faults) if fault), None)
    expected = {ErrorKind.DEPLOYMENT: 0, ErrorKind.LOGIN: int(LOGIN_SECONDS), ErrorKind.GROUP: int(GROUP_SECONDS)}
    assert stopped_at == expected.get(kind_of(code))
    for fault in filter(None, faults):
        assert "\n" not in str(fault)
        assert KafkaError(code).name() in (str(fault), fault.code)


def test_what_has_passed_in_between_is_not_counted() -> None:
    clock = [0.0]
    refusals = Refusals("broker:1", clock=lambda: clock[0])
    login = KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED)
    group = KafkaError(KafkaError.INCONSISTENT_GROUP_PROTOCOL)

    assert refusals.hear(login) is refusals.hear(group) is None
    refusals.accepted(ErrorKind.LOGIN)
    refusals.accepted(ErrorKind.GROUP)
    clock[0] = 1000.0

    assert refusals.overdue() is refusals.suspected is None
    assert refusals.hear(group) is None


def test_a_refusal_of_the_group_that_does_not_come_again_is_over() -> None:
    clock = [0.0]
    refusals = Refusals("broker:1", clock=lambda: clock[0])

    assert refusals.hear(KafkaError(KafkaError.GROUP_MAX_SIZE_REACHED)) is None
    assert refusals.suspected is not None
    clock[0] = 1000.0

    assert refusals.suspected is None
    assert refusals.overdue() is None


def test_what_killed_a_client_is_named_although_its_code_is_hidden() -> None:
    text = "Fatal error: Broker: Static consumer fenced by other consumer with same group.instance.id: and so on"

    assert name_of(KafkaError(KafkaError._FATAL, text)) == "FENCED_INSTANCE_ID"
    assert name_of(KafkaError(KafkaError._FATAL, "of no known cause")) == "_FATAL"


def test_the_same_wait_is_logged_once_a_minute() -> None:
    clock = [0.0]
    refusals = Refusals("broker:1", clock=lambda: clock[0])
    away, down = KafkaError(KafkaError._TRANSPORT), KafkaError(KafkaError._ALL_BROKERS_DOWN)

    assert refusals.is_news(away)
    assert not refusals.is_news(away)
    assert refusals.is_news(down)
    clock[0] = 61.0
    assert refusals.is_news(down)
