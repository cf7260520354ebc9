"""Requests made up from the API's own description: no answer is a server error or undescribed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from makers_serve import House, TestClient, house, medium

schemathesis = pytest.importorskip("schemathesis")
# That whatever fits the description is taken: most bytes are no medium, most ids no job.
TAKES_ALL = pytest.importorskip("schemathesis.specs.openapi.checks").positive_data_acceptance
OURS = {"Host": "127.0.0.1"}
# Each operation, and what must have been answered at least once: else nothing was tried.
OPERATIONS = {
    "GET /api/server": {200},
    "POST /api/jobs": {201, 429},
    "GET /api/jobs": {200, 422},
    "GET /api/jobs/{job_id}": {200, 404},
    "DELETE /api/jobs/{job_id}": {200, 404},
    "GET /api/jobs/{job_id}/report.json": {200, 404, 409},
    "GET /api/jobs/{job_id}/report.html": {200, 404, 409},
}


@pytest.fixture
def it(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path, max_bytes=5000, places=3) as it:
        yield it


@pytest.fixture
def operations(it: House) -> dict[str, Any]:
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", it.app, headers=OURS)
    found = [result.ok() for result in schema.get_all_operations()]
    return {operation.label: operation for operation in found}


def test_every_operation_is_tried(operations: dict[str, Any]) -> None:
    assert set(operations) == set(OPERATIONS)


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_is_answered_with_a_server_error(
    it: House, operations: dict[str, Any], label: str
) -> None:
    client = TestClient(it.app, base_url="http://localhost")
    # Something to be found: one job of each kind that lasts.
    jobs = [
        client.post("/api/jobs", content=medium(word)).json()["id"]
        for word in ("fake", "broken", "hang")
    ]
    for job in jobs[:2]:  # on a slow machine the requests are otherwise over before they are
        it.wait(job)
    statuses: set[int] = set()
    cases = operations[label].as_strategy()
    if operations[label].path_parameters or operations[label].query:  # something can be wrong
        wrong = schemathesis.GenerationMode.NEGATIVE
        cases |= operations[label].as_strategy(generation_mode=wrong)

    @settings(
        max_examples=20,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def try_it(case: Any) -> None:
        call(case)
        if "job_id" in (case.path_parameters or {}):
            for job in jobs:
                case.path_parameters["job_id"] = job
                call(case)

    def call(case: Any) -> None:
        answer = case.call_and_validate(headers=OURS, excluded_checks=[TAKES_ALL])
        statuses.add(answer.status_code)

    try_it()
    assert statuses >= OPERATIONS[label]
    assert max(statuses) < 500
