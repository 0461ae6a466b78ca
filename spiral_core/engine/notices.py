"""What a person should be told about a run, once when it begins and once when it is over."""

from __future__ import annotations

import math

from spiral_core.engine.step import UpdateReport

PATIENCE = 20
"""Updates in a row that a target must be out of reach, or within it again, to be spoken of: at the edge of its reach a
layer goes in and out with every batch."""

GUARD_STEPS = 100
"""Updates for which the last word of a guard is shown; it stays in the journal."""


class Notices:
    """Follows the reports of a run and says what has changed."""

    def __init__(self) -> None:
        self._diverged = ""
        self._strays: dict[str, int] = {}
        """For each layer: updates in a row that contradict what was last said about it."""
        self._unreached: dict[str, str] = {}
        self._target = math.nan
        self.unsaved = ""
        """Why the last checkpoint could not be taken."""
        self.unrecorded = ""
        """Which steps are not in the run log."""
        self._said = ""
        self._guarded = ""
        self._guarded_at = 0

    def after(self, report: UpdateReport, guarded: str = "") -> str | None:
        """Take in a report and what guards had to say of it.

        Returns
        -------
        str or None
            The sentences that now hold, empty when all is well again; None for no change.
        """
        if guarded:
            self._guarded, self._guarded_at = guarded, report.step
        elif report.step - self._guarded_at >= GUARD_STEPS:
            self._guarded = ""
        if report.divergence is None:
            self._diverged = ""
        elif not self._diverged:
            self._diverged = str(report.divergence)
        self._follow(report)
        before, self._said = self._said, self.words
        return self._said if self._said != before else None

    def _follow(self, report: UpdateReport) -> None:
        if not report.adaptations or report.auto_gain != self._target:
            self._target = report.auto_gain
            self._strays.clear()
            self._unreached.clear()
        for layer, done in report.adaptations.items():
            said = layer not in self._unreached
            self._strays[layer] = self._strays.get(layer, 0) + 1 if done.within_reach != said else 0
            if self._strays[layer] < PATIENCE:
                continue
            self._strays[layer] = 0
            if done.within_reach:
                del self._unreached[layer]
            else:
                low, high = done.reachable
                self._unreached[layer] = (
                    f"auto-gain cannot bring {layer} to radius {self._target:g}: gains from 1 to 0 give "
                    f"{low:.3g} to {high:.3g}"
                )

    @property
    def words(self) -> str:
        """The sentences that now hold."""
        said = (self._guarded, self._diverged, self.unrecorded, self.unsaved, *self._unreached.values())
        return "; ".join(sentence for sentence in said if sentence)
