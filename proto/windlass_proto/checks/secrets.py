"""Checks of a secret on its way to the coordinator: the same in the SDK and there."""

from windlass_proto.checks.limits import SpecLimits
from windlass_proto.checks.words import Findings, check_name
from windlass_proto.model.secrets import SecretKind, read_login, read_storage

DOCUMENT_BYTES = 16 << 10
"""A profile or a login, the longest of which hold a key file."""


def check_secret(
    findings: Findings, name: str, kind: SecretKind, document: bytes, *, limits: SpecLimits
) -> None:
    """Nothing of the document is repeated but names of keys."""
    check_name(findings, "name", name, longest=limits.name_length)
    if len(document) > DOCUMENT_BYTES:
        findings.add("document", f"must be at most {DOCUMENT_BYTES} bytes long (is {len(document)})")
        return
    try:
        match kind:
            case SecretKind.STORAGE:
                read_storage(document)
            case SecretKind.LOGIN:
                read_login(document)
    except ValueError as problem:
        findings.add("document", str(problem))
