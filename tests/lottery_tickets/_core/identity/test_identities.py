"""When two identities are of the same thing."""

import pytest

from lottery_tickets._core.identity.identities import Identity, Verdict, compare_identities, name_identity

CODE: Identity = {"kind": "code", "digest": "a", "says": "", "complete": True, "bytecode": "cpython-311"}
DATA: Identity = {
    "kind": "samples",
    "digest": "c",
    "says": "",
    "complete": True,
    "num_samples": 2000,
    "num_read": 2000,
    "digests": {"16": "a", "1024": "b", "2000": "c"},
}
PART: Identity = {**DATA, "digest": "b", "complete": False, "num_read": 1024, "digests": {"16": "a", "1024": "b"}}


@pytest.mark.parametrize(
    ("earlier", "later", "verdict"),
    [
        (CODE, CODE, "same"),
        (CODE, {**CODE, "says": "otherwise"}, "same"),
        (CODE, {**CODE, "digest": "b"}, "different"),
        (CODE, {**CODE, "bytecode": "cpython-312", "digest": "b"}, "unknown"),
        (CODE, {**CODE, "digest": None}, "unknown"),
        (CODE, name_identity("mine", "trainer_fn"), "unknown"),
        (DATA, DATA, "same"),
        (DATA, {**DATA, "digest": "d"}, "different"),
        (DATA, {**DATA, "num_samples": 2001}, "different"),
        (DATA, PART, "same"),
        (DATA, {**PART, "digests": {"16": "a", "1024": "d"}}, "different"),
        (DATA, {**PART, "num_read": 16, "digest": "a", "digests": {"16": "a"}}, "same"),
        (DATA, {**PART, "digests": {}}, "unknown"),
        ({**CODE, "kind": "unknown"}, {**CODE, "kind": "unknown"}, "unknown"),
        ({**CODE, "kind": "unknown"}, {**CODE, "kind": "unknown", "digest": "b"}, "different"),
    ],
)
def test_identities_are_compared_as_far_as_both_were_read(earlier: Identity, later: Identity, verdict: Verdict) -> None:
    assert compare_identities(earlier, later) == compare_identities(later, earlier) == verdict
