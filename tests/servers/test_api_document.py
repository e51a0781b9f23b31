"""The OpenAPI document is a promise: whatever is sent, the progress service answers as the document says.

Schemathesis makes requests of the document, such as fit it and such as do not, and compares each answer with it.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import psycopg
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from tests.examples import examples
from tests.servers.service import HEADERS, part, ready, report, running

pytestmark = pytest.mark.xdist_group("api_document")  # one service for all of the file
load_all_checks()
AS_DECLARED = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "unsupported_method",
    ]
)
"""Left out: what may be refused. A schema can't say that `last` does not precede `first`, or that 9.0 is no integer."""
OPERATIONS = 17
OPEN = {"GET /healthz", "GET /readyz"}


@pytest.fixture(scope="module")
def service(postgres_server) -> Iterator[httpx.Client]:
    """A service with a job, failed items of it, and settled offsets, so that each operation has something to show."""
    name = f"api_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    with running(postgres_server.dsn_of(name), heartbeat=0.2) as client:
        ready(client).post("/jobs", json={"job_id": "job", "source": "s", "total_items": 9})
        failed = part(7, succeeded=0, failed=2, failed_items=[{"first": 0, "last": 1, "reason": "missing"}])
        client.post("/progress", json=report(part(0, 3), failed)).raise_for_status()
        origin = {"topic_id": "T", "partition": 0, "offset": 7, "item": 0}
        client.post(
            "/progress", json=report(part(0, job=None, succeeded=0, resolves=[origin]), topic_id="R")
        ).raise_for_status()
        yield client
    with psycopg.connect(postgres_server.dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def document(service: httpx.Client) -> Any:
    return schemathesis.openapi.from_url(f"{service.base_url}/openapi.json", headers=HEADERS)


@pytest.fixture(scope="module")
def operations(document: Any) -> list[APIOperation]:
    found = [each.ok() for each in document.get_all_operations()]
    assert len(found) == OPERATIONS
    return found


def is_stream(operation: APIOperation) -> bool:
    return operation.path.endswith("/events")


def validate(case: Case, service: httpx.Client, headers: dict[str, str]) -> int:
    """Send a case and compare the answer with the document. A stream ends with its first line."""
    if not is_stream(case.operation):
        return case.call_and_validate(headers=headers, checks=AS_DECLARED).status_code
    sent = case.as_transport_kwargs(headers=headers)
    with service.stream(sent["method"], sent["url"], params=sent.get("params"), headers=sent["headers"]) as answer:
        kinds = {"text/event-stream"} if answer.status_code == 200 else {"application/json"}
        assert str(answer.status_code) in case.operation.definition.raw["responses"]
        assert answer.headers["content-type"].partition(";")[0] in kinds
    return answer.status_code


@pytest.mark.slow
def test_every_answer_is_as_declared(service: httpx.Client, operations: list[APIOperation]) -> None:
    """No request breaks it either: a fault of the server's own (5xx) is none of the answers that are declared."""
    for operation in operations:
        modes = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode if _can_be(operation, mode)]

        @settings(max_examples=examples(15), suppress_health_check=list(HealthCheck))
        @given(case=st.one_of(modes))
        def answers(case: Case) -> None:
            assert validate(case, service, HEADERS) < 500

        answers()


def _can_be(operation: APIOperation, mode: GenerationMode) -> bool:
    """Whether there is such a request: one without parameters and without a body fits always."""
    return mode is GenerationMode.POSITIVE or bool(operation.body or operation.path_parameters or operation.query)


@pytest.mark.parametrize("token", [None, "Bearer wrong", "Basic dXM6dXM=", "Bearer", b"Bearer \xfc"])
def test_without_the_token_every_operation_answers_401_as_declared(
    service: httpx.Client, operations: list[APIOperation], token: str | bytes | None
) -> None:
    for operation in operations:
        case = operation.Case(path_parameters={"job_id": "job", "pipeline": "flow", "topic_id": "T"})
        headers = {} if token is None else {"Authorization": token}
        with httpx.Client(base_url=service.base_url, trust_env=False) as stranger:
            answer = stranger.request(operation.method, case.formatted_path, headers=headers)
        assert answer.status_code == (200 if operation.label in OPEN else 401), operation.label
        case.validate_response(answer, checks=AS_DECLARED)


@given(
    body=st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"\xff", b"{", b"[" * 200_000, b'{"a": "\xed\xa0\x80"}', b"NaN", b"null"]),
    ),
    kind=st.sampled_from(["application/json", "text/plain", "application/x-www-form-urlencoded", "", None]),
)
@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_body_that_is_no_request_is_refused_as_declared(
    service: httpx.Client, operations: list[APIOperation], body: bytes, kind: str | None
) -> None:
    for operation in (each for each in operations if each.body):
        case = operation.Case(path_parameters={"job_id": "job"})
        headers = {} if kind is None else {"Content-Type": kind}
        answer = service.request(operation.method, case.formatted_path, content=body, headers=headers)
        assert 400 <= answer.status_code < 500 or body.strip() == b"{}"
        case.validate_response(answer, checks=AS_DECLARED)


def test_what_is_stored_is_shown_as_declared(service: httpx.Client, document: Any) -> None:
    """Ranges of offsets and of items are lists of two numbers, which every version of OpenAPI can say."""
    for path, parameters in [
        ("/progress/{pipeline}/{topic_id}", {"pipeline": "flow", "topic_id": "T"}),
        ("/failures", {}),
        ("/jobs/{job_id}", {"job_id": "job"}),
    ]:
        case = document[path]["GET"].Case(path_parameters=parameters)
        answer = case.call_and_validate(headers=HEADERS, checks=AS_DECLARED)
        assert answer.status_code == 200
    assert service.get("/progress/flow/T").json() == {"partitions": {"0": [[0, 3], [7, 7]]}}
    assert service.get("/failures").json()["failures"][0]["resolved"] == [[0, 0]]


def test_every_schema_of_the_document_is_one_of_openapi_3_1(service: httpx.Client) -> None:
    schemas = service.get("/openapi.json").json()["components"]["schemas"]

    for schema in schemas.values():
        jsonschema_rs.Draft202012Validator(schema | {"components": {"schemas": schemas}})
        assert not list(_tuples(schema)), "tools take `prefixItems` for a list under `items`"


def _tuples(schema: Any) -> Iterator[Any]:
    if isinstance(schema, dict):
        if "prefixItems" in schema or isinstance(schema.get("items"), list):
            yield schema
        schema = list(schema.values())
    for each in schema if isinstance(schema, list) else []:
        yield from _tuples(each)
