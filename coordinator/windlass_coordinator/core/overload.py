"""How much is served at once: every queue has a bound with a name (promise P20)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class OverloadLimits:
    """The bounds of one coordinator; what is beyond them is refused at once, with the name of the bound."""

    store_queue: int = 8192
    """Calls that wait for the database; logs may use a quarter, lists a half, submits three quarters."""
    sessions: int = 256
    """OpenSession and Join that are served at once."""
    sessions_per_s: int = 500
    """The same as they come: 10,000 agents are back in 20 s, and users are served meanwhile."""
    polls: int = 50_000
    """Agents that wait for work."""
    agent_calls: int = 20_000
    """Heartbeats, reports and releases that are served at once."""
    changes: int = 4096
    """Submits and other changes by users that are served at once."""
    looks: int = 2048
    """Gets and lists that are served at once."""
    followers: int = 20_000
    """Streams of users that follow a job or a log."""
    followers_per_tenant: int = 10_000
    """The same of one tenant."""
    log_streams: int = 20_000
    """Streams of agents that bring logs."""
    connections: int = 16_000
    """To the gRPC port; also bounded by the open files that the system allows."""
    strangers: int = 1000
    """Connections over which nothing with a valid credential has come yet; the oldest of more are closed."""
    unread_calls: int = 16_000
    """That have arrived and that nobody has looked at yet: a fleet that comes back at once. Of more some are
    ended unread, without being told when to come again; of twice as many all."""
    calls_per_connection: int = 1000
    """Open at once over one connection; what is beyond waits at the sender."""
    offences_per_s: int = 50
    """Calls of one connection that carry no valid credential or are given up at once, in the long run; for a
    moment twenty times as many. Then the connection is closed."""
