"""The keeper of a slot: parent of its commands, one after another; outlives the agent.

A program of its own, started by exec with `python -I -S`, that loads the standard library and this folder
only, all of it at its start, so that an upgrade under it is harmless. It reads plans, runs them, moves their
output from pipes to segment files, ends what runs too long, and appends what happened to its journal *before*
it tells the agent (protocol.md, sections 7 to 9). Journal and socket speak the same JSON lines; `segment` and
`intent` stand in the journal only, `keeper` and `stuck` go to the agent only:

    agent -> keeper   hello{nonce}  template{id, plan}  run{ref, template?, plan}  stop{ref, grace?}
                      lease{until, grace}  shutdown{kill}
    keeper -> agent   keeper{pid, build, protocol, running, queued, grace}  start{ref, pid, ticks}
                      exit{ref, ..}  stuck{ref}

A node has one of these per slot for weeks, it starts thousands of commands per second, and its fault is the
fault of its command. That is why it has one thread and loads neither dataclasses nor subprocess nor asyncio.
It records facts (a wait status, an errno); what they mean is decided by `spool/keeper_records.py`. The other
end of its socket is `runner/keeper_client.py`.
"""
