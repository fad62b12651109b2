"""What 300 runs must come through, and what no run can, each with its reason.

A pair that is missing is a gap in the simulation, not a fault of the product: find out what keeps it from
happening before taking it from here.
"""

_ATTEMPTS = """
- LEASED              LEASED PREPARING     LEASED RUNNING      LEASED FINALIZING   LEASED SUCCEEDED
LEASED FAILED         LEASED STOPPING      LEASED LOST         LEASED RELEASED     PREPARING RUNNING
PREPARING SUCCEEDED   PREPARING FAILED     PREPARING STOPPING  PREPARING LOST      RUNNING FINALIZING
RUNNING SUCCEEDED     RUNNING FAILED       RUNNING STOPPING    RUNNING LOST        FINALIZING SUCCEEDED
FINALIZING FAILED     FINALIZING STOPPING  FINALIZING LOST     STOPPING STOPPED    STOPPING LOST
STOPPING RELEASED
"""

_INSTANCES = """
- ACTIVE              ACTIVE SUCCEEDED     ACTIVE FAILED       ACTIVE RETRY_WAIT   ACTIVE READY
ACTIVE STOPPING       STOPPING STOPPED     RETRY_WAIT READY    RETRY_WAIT ACTIVE   RETRY_WAIT STOPPED
READY ACTIVE          READY STOPPED        FAILED ACTIVE       STOPPED ACTIVE      SUCCEEDED ACTIVE
"""

_TASKS = """
- WAITING             - READY              - RUNNING           WAITING READY       WAITING RUNNING
WAITING SKIPPED       WAITING STOPPED      READY RUNNING       READY STOPPED       RUNNING SUCCEEDED
RUNNING FAILED        RUNNING STOPPING     RUNNING STOPPED     STOPPING STOPPED    STOPPING FAILED
"""

_JOBS = """
- WAITING             - RUNNING            WAITING RUNNING     WAITING STOPPED     RUNNING SUCCEEDED
RUNNING FAILED        RUNNING STOPPING     STOPPING STOPPED    STOPPING FAILED     SUCCEEDED RUNNING
FAILED RUNNING        STOPPED RUNNING
"""

_NODES = """
- JOINING             JOINING READY        READY SILENT        SILENT READY        SILENT GONE
READY DRAINING        READY DRAINED        DRAINING DRAINED    DRAINED READY       READY GONE
"""

TRANSITIONS = {
    (kind, *words)
    for kind, table in (
        ("attempt", _ATTEMPTS),
        ("instance", _INSTANCES),
        ("task", _TASKS),
        ("job", _JOBS),
        ("node", _NODES),
    )
    for words in zip(table.split()[::2], table.split()[1::2], strict=True)
}
"""Kind of thing, state before, state after."""

REPORTS = {
    ("LEASED", "Preparing ACCEPTED"),
    ("LEASED", "Started ACCEPTED"),
    ("LEASED", "Exited ACCEPTED"),
    ("LEASED", "LostOnNode ACCEPTED"),
    ("PREPARING", "Preparing DUPLICATE"),
    ("PREPARING", "PrepareFailed ACCEPTED"),
    ("PREPARING", "Started ACCEPTED"),
    ("PREPARING", "Exited ACCEPTED"),
    ("PREPARING", "LostOnNode ACCEPTED"),
    ("RUNNING", "Started DUPLICATE"),
    ("RUNNING", "Exited ACCEPTED"),
    ("RUNNING", "LostOnNode ACCEPTED"),
    ("FINALIZING", "Exited DUPLICATE"),
    ("FINALIZING", "Finalized ACCEPTED"),
    ("FINALIZING", "FinalizeFailed ACCEPTED"),
    ("STOPPING", "Started DUPLICATE"),
    ("STOPPING", "StoppedEarly ACCEPTED"),
    ("STOPPING", "Exited ACCEPTED"),
    ("STOPPING", "Finalized ACCEPTED"),
    ("STOPPING", "FinalizeFailed ACCEPTED"),
    ("SUCCEEDED", "Exited DUPLICATE"),
    ("FAILED", "Exited DUPLICATE"),
    ("STOPPED", "Exited DUPLICATE"),
}
"""State of the attempt, event and verdict."""

INVENTORY = {
    ("LEASED", "not ended KEEP"),
    ("LEASED", "ended REPORT"),
    ("PREPARING", "not ended KEEP"),
    ("PREPARING", "ended REPORT"),
    ("RUNNING", "not ended KEEP"),
    ("RUNNING", "ended REPORT"),
    ("FINALIZING", "ended REPORT"),
    ("STOPPING", "not ended KEEP"),
    ("STOPPING", "ended REPORT"),
    ("SUCCEEDED", "ended FORGET"),
    ("SUCCEEDED", "ended REPORT"),
    ("FAILED", "ended FORGET"),
    ("FAILED", "ended REPORT"),
    ("LOST", "ended KILL"),
    ("LOST", "not ended KILL"),
    ("RELEASED", "ended KILL"),
    ("RELEASED", "not ended KILL"),
    ("unknown", "ended KILL"),
    ("unknown", "not ended KILL"),
}
"""State of the attempt, what the node has of it, verdict."""

NEVER = {
    "reports of a fenced attempt (SUPERSEDED)": "whoever is fenced has lost its session first; "
    "test_broken_systems lets old sessions report, and the fences hold",
    "reports of unknown attempts (UNKNOWN)": "agents tell only of what they were given; a transcript does it",
    "CONFLICT": "a keeper writes one exit record, and results are told from it",
    "Finalized or FinalizeFailed in LEASED, PREPARING, RUNNING": "a result is never dropped: Exited is first",
    "PrepareFailed after Started": "a command that has started was prepared",
    "POISON, QUARANTINED": "need several nodes with the same bad luck: specs of the engine try them",
    "several coordinators, terms (I22)": "roles need PostgreSQL; its conformance suite and faults try them",
}

_OUTPUTS = "outputs: scripted agents have no store; tests/faults/test_e_outputs.py crosses them"
FAILPOINTS_ELSEWHERE = {
    "agent.adopt.before": "before anything of an agent's life",
    "coord.backup.before_rename": "an operator's command",
    "coord.restore.before_rename": "an operator's command",
    "coord.migrate.after_step": "migrations run once per process of ours",
    "coord.retain.before_commit": "retention: jobs are not kept long enough here",
    "coord.retain.after_commit": "retention: jobs are not kept long enough here",
    "agent.outputs.after_clear": _OUTPUTS,
    "agent.outputs.after_commit": _OUTPUTS,
    "agent.outputs.after_compare": _OUTPUTS,
    "agent.outputs.after_copy": _OUTPUTS,
    "agent.outputs.after_log": _OUTPUTS,
    "agent.outputs.after_manifest": _OUTPUTS,
    "agent.outputs.after_part": _OUTPUTS,
    "agent.outputs.after_send": _OUTPUTS,
    "agent.outputs.before_commit": _OUTPUTS,
    "agent.outputs.before_compare": _OUTPUTS,
    "coord.outputs.after_commit": _OUTPUTS,
    "coord.outputs.before_commit": _OUTPUTS,
    "keeper.journal.before_rotate": "the real keeper's files",
    "keeper.journal.after_rotate": "the real keeper's files",
}
"""Names in the product that are crossed by tests with real processes only."""
