"""What keeps commands away from their node and from each other, as far as the agent does it.

The rest is the keeper's, which starts them: `windlass_agent.keeper`, `sandbox.py` and `confine.py`.
"""
