"""The key of a message that is submitted: the values of fields by their paths."""

from typing import Any

import pytest

from lovelace_streams.submit import keyed_by


@pytest.mark.parametrize(
    ("fields", "payload", "key"),
    [
        (["id"], {"id": 7}, b"7"),
        (["user.id"], {"user": {"id": 7}}, b"7"),
        (["shop", "user.id"], {"shop": "s", "user": {"id": 7}}, b"s:7"),
        (["$.user.id"], {"user": {"id": 7}}, b"7"),
        ([("k8s.pod.name",)], {"k8s.pod.name": "pod"}, b"pod"),
        ([("meta", "a.b")], {"meta": {"a.b": 1}}, b"1"),
        (["a.b"], {"a.b": 1, "a": {"b": 2}}, b"1"),  # as it was before paths
        (["user.id", "id"], {"user": 5, "id": 1}, b":1"),
        (["id"], {}, b""),
        (["id"], [1], b""),
        (["id"], None, b""),
        (["id"], {"id": None}, b"None"),
    ],
)
def test_the_key_holds_the_values_at_the_paths(fields: list[Any], payload: Any, key: bytes) -> None:
    [message] = keyed_by(*fields)(payload)

    assert message.key == key


@pytest.mark.parametrize("fields", [["items[0].id"], ["a..b"], [""], [()], []])
def test_a_path_that_could_never_be_found_is_refused_where_it_is_written(fields: list[Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="is no path|needs the fields"):
        keyed_by(*fields)
