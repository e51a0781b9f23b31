"""The options of `lovelace submit`: which a flow's `messages` takes, and what is said of the others."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lovelace_streams.admin.submit import check_options
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.submit import Outgoing, Source, keyed_by


def with_options(payload: Any, shop: str, currency: str = "EUR") -> Iterator[Outgoing]:
    yield Outgoing(b"", f"{payload}{shop}{currency}".encode())


def with_any(payload: Any, **options: str) -> Iterator[Outgoing]:
    yield Outgoing(b"", f"{payload}{options}".encode())


def source(messages: Callable[..., Iterator[Outgoing]]) -> Source:
    return Source("orders", topic="orders.raw", rows=(), messages=messages)


@pytest.mark.parametrize(
    ("messages", "options"),
    [(with_options, {"shop": "7"}), (with_options, {"shop": "7", "currency": "USD"}), (with_any, {"shop": "7"})],
)
def test_options_that_a_flow_takes(messages: Callable[..., Any], options: dict[str, str]) -> None:
    check_options(source(messages), options)

    assert list(source(messages).messages("p", **options))


@pytest.mark.parametrize(
    ("messages", "options", "says"),
    [
        (with_options, {"shop": "7", "stop": "8"}, "takes no option 'stop': its messages.. takes 'shop', 'currency'"),
        (with_options, {"payload": "7", "shop": "8"}, "takes no option 'payload'"),
        (with_options, {}, "needs the option 'shop': add --option shop="),
        (keyed_by("id"), {"shop": "7"}, "takes no option 'shop': its messages.. takes no options"),
    ],
)
def test_options_that_a_flow_does_not_take(messages: Callable[..., Any], options: dict[str, str], says: str) -> None:
    with pytest.raises(DeploymentFault, match=says):
        check_options(source(messages), options)
