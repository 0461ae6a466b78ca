"""Making the kernels of a run ready: those of an update before the first one, all others between the next ones.

On a machine that has compiled nothing yet, half of the wait would be for kernels that the first picture on the page
does not need: evaluation and probes run layer by layer, and steering may choose another optimizer mode or precision.
"""

from __future__ import annotations

from collections.abc import Callable

from spiral_core import kernels
from spiral_core.engine.state import RunState
from spiral_core.link.recorder import Recorder


class Compiling:
    """The kernels that a run has still to make ready.

    Parameters
    ----------
    state : RunState
    recorder : Recorder
        Told of what takes long.
    """

    def __init__(self, state: RunState, recorder: Recorder) -> None:
        self._dtype = state.model.dtype
        self._recorder = recorder
        self._first = list(dict.fromkeys(state.first_kernels))
        self._others = [name for name in dict.fromkeys(state.kernels) if name not in self._first]

    def first(self, between: Callable[[], None]) -> None:
        """Make ready what an update runs, and do ``between`` before each kernel."""
        cold = kernels.cold_count(self._first, self._dtype) > 0

        def progress(done: int, total: int, name: str) -> None:
            if cold:
                self._recorder.status("compiling", name, done=done, total=total)
            between()

        kernels.warm(self._first, self._dtype, progress)

    def waiting(self) -> str:
        """Say what will make the first steps slower; empty where it is next to nothing."""
        cold = kernels.cold_count(self._others, self._dtype)
        return f"{cold} kernels for evaluation, probes and steers compile between the first steps" if cold else ""

    def another(self) -> bool:
        """Make one more kernel ready; tell whether that was the last."""
        if not self._others:
            return False
        kernels.warm([self._others.pop(0)], self._dtype)
        return not self._others
