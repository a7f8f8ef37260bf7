"""What a Sprint or RASR executable imports, to be driven by `sprint_bridge.backends.sprint`.

The names and arguments are Sprint's. Everything here runs in the interpreter that the executable embeds, with Python
3.8 and numpy 1.20 alone: nothing of seqtrain, and of sprint_bridge only `workers.frames` and `workers.loop`.
"""

from sprint_bridge.sprint_control.layer import SprintNnPythonLayer
from sprint_bridge.sprint_control.module import getSegmentList, init

__all__ = ["SprintNnPythonLayer", "getSegmentList", "init"]
