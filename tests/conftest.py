"""For all tests."""

import os

# Commands of tests write their marks beside the test and are looked at by it, as its own user. What isolated
# commands can and cannot do is tried in tests/integration/agent/test_isolation.py, in test_isolated_node.py
# and by faults G14 and G15.
os.environ.setdefault("WINDLASS_AGENT_WORK_ISOLATION", "dev")
