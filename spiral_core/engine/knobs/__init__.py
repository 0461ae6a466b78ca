"""The knobs: what a person may steer, stated once.

Sliders, bounds at the server's door, refusals, documentation and tests all come from this table. A knob reads and
writes the run's state, and nothing else holds what it holds.
"""

from __future__ import annotations

from spiral_core.engine.knobs.row import Knob as Knob
from spiral_core.engine.knobs.table import Specs as Specs
from spiral_core.engine.knobs.table import contradiction as contradiction
from spiral_core.engine.knobs.table import declare as declare
from spiral_core.engine.knobs.table import in_force as in_force
from spiral_core.engine.knobs.table import table as table
