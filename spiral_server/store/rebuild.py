"""The view of a run from its history on disk: the same fold that the live run went through."""

from __future__ import annotations

from spiral_server.live.run_view import RunView
from spiral_server.store.protocol import History


def view_of(run: str, history: History) -> RunView:
    """Rebuild the view of a run that is not connected."""
    view = RunView(run, whole=not history.damage)
    for record in history.commands:
        view.ledger.add(record)
    view.kept(history.incarnation, history.seq)
    for message in history.messages:
        view.fold(message)
    if history.seq >= 0:
        view.resume_at(
            incarnation=history.incarnation, seq=history.seq, frame_step=history.frame_step, time=history.time
        )
    view.expire()
    return view
