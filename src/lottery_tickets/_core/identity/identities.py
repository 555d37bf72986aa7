"""What an identity is, as run folders record it, and when two are of the same thing."""

import hashlib
from typing import Literal, NotRequired, TypedDict

Verdict = Literal["same", "different", "unknown"]


class Identity(TypedDict):
    """What something is, as JSON.

    Attributes:
        kind: What was looked at: code, an architecture, samples, or the name that the caller gave; "unknown" when
            that was not possible.
        digest: SHA-256 in hexadecimal of all that was identified; None when nothing was.
        says: One sentence for people: what was looked at, or why it could not be identified, and what to do.
        complete: Whether `digest` is of everything that decides.
        bytecode: The compiler of the code that was looked at, if any; another compiles the same source to other code.
        num_samples: How many samples there are, where that is known.
        num_read: How many of them `digest` is of.
        digests: The digests of evenly spread samples, by their number, so that a slower machine that reads fewer can
            still be compared.
    """

    kind: Literal["code", "architecture", "samples", "given", "unknown"]
    digest: str | None
    says: str
    complete: bool
    bytecode: NotRequired[str]
    num_samples: NotRequired[int]
    num_read: NotRequired[int]
    digests: NotRequired[dict[str, str]]


def name_identity(given_id: str, what: str) -> Identity:
    """Returns the identity of what the caller has named.

    Args:
        given_id: The name; another name is another thing.
        what: What it is the name of.
    """
    digest = hashlib.sha256(given_id.encode()).hexdigest()
    return {"kind": "given", "digest": digest, "says": f"{what} is named {given_id!r} by the caller", "complete": True}


def compare_identities(earlier: Identity, later: Identity) -> Verdict:
    """Returns whether two identities are of the same thing: "same", "different", or "unknown" when nobody can tell.

    "same" is as far as both were looked at: `complete` of each says whether that was everything.

    Args:
        earlier: What a run folder has recorded.
        later: What was found now.

    Examples:
        >>> compare_identities(name_identity("v1", "trainer_fn"), name_identity("v2", "trainer_fn"))
        'different'
    """
    if earlier["kind"] != later["kind"] or earlier.get("bytecode") != later.get("bytecode"):
        return "unknown"
    if earlier.get("num_samples") != later.get("num_samples"):
        return "different"
    digests = earlier["digest"], later["digest"]
    if earlier.get("num_read") != later.get("num_read"):
        parts = earlier.get("digests", {}), later.get("digests", {})
        most = max(parts[0].keys() & parts[1].keys(), key=int, default="")
        digests = parts[0].get(most), parts[1].get(most)
    if None in digests:
        return "unknown"
    if digests[0] != digests[1]:
        return "different"
    return "unknown" if earlier["kind"] == "unknown" else "same"
