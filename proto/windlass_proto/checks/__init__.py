"""What can be wrong with a job: the same answer in the SDK and in the coordinator.

`check_job` finds every problem at once, each with its path. It sees the specification only: whether a cluster
or an object exists is for those who know.
"""

from windlass_proto.checks.job import check_job
from windlass_proto.checks.limits import DEFAULT_LIMITS, SpecLimits
from windlass_proto.checks.words import nearest

__all__ = ["DEFAULT_LIMITS", "SpecLimits", "check_job", "nearest"]
