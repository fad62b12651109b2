"""A past attempt, built up again in a local folder and run there.

`past` finds out what the attempt was; `plan` says what its command is to find; `folder` and `inputs` bring
it; `run_here` runs it, also in a bundle on a machine that has nothing of Windlass (`bundle`).
"""
