"""Containers of the node's engine, docker or podman: how they are made, watched, and proven gone.

`base` says what an engine is asked for, `docker` and `podman` how; `images` gets images, `run_file` says what
an attempt's container is like, `supervise` is the process that stands for it in its slot, `outcome` what
became of it; `node_containers` is all of them together, as the agent has them.
"""
