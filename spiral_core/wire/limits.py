"""Numbers of the protocol: its version, sizes, times and close codes.

Each number stands here once, with its reason or its precedent.
"""

from __future__ import annotations

PROTOCOL = 1
"""Version of the protocol; both sides must name the same one."""

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
"""Largest single message. A probe batch of 64 RGB images of 96 x 96 in float32 takes 7.1 MB."""

MAX_PACKET_BYTES = 16 * 1024 * 1024
"""Largest websocket message. Uvicorn's own default is the same 16 MiB."""

MOST_AXES = 8
"""Most axes of an array, which NumPy can give a shape to; a batch of films in color has five."""

MOST_NESTED = 32
"""Most maps and lists inside each other in the configuration of a run: who writes it out must not run out of stack."""

VIEWER_PACKET_BYTES = 16 * 1024
"""Largest packet of a viewer, which says who it is, what it wants to see, and commands."""

VIEWER_PACKETS_PER_SECOND = 50.0
"""Packets and commands of a viewer, over a while; a page that is resized asks for another width at each frame."""

COURIER_PACKET_BYTES = 256 * 1024
"""A courier closes a packet at this size, so that one packet never holds up the server's loop for long."""

HEARTBEAT_SECONDS = 20.0
"""Ping interval; proxies such as nginx close a websocket after 60 s of silence."""

SILENCE_SECONDS = 60.0
"""A peer that has sent nothing for this long is taken for lost: three heartbeats."""

VIEW_TICK_SECONDS = 1 / 30
"""Viewers get their deltas at this interval (20 to 30 Hz looks continuous and leaves the browser time to draw)."""

COMPARE_TICK_SECONDS = 0.25
"""Viewers get new points of compared runs at this interval; nobody steers by them."""

MOST_COMPARED = 2048
"""Curves, runs times series, in one comparison: more than a screen has rows of pixels."""

STALL_SECONDS = 30.0
"""A viewer that takes nothing for this long while something waits for it is closed; it may resume."""

RESUME_SECONDS = 120.0
"""How long the deltas of a run are kept after its last viewer has gone, for one that comes back."""

SNAPSHOT_POINTS = 2000
"""Most points of one series in a snapshot: about two for each pixel column of a full-width chart."""

# Close codes (RFC 6455 section 7.4; 4000 to 4999 are ours to define).
CLOSE_NORMAL = 1000
CLOSE_GOING_AWAY = 1001
CLOSE_BAD_DATA = 1007
CLOSE_TOO_BIG = 1009
CLOSE_TRY_AGAIN = 1013
"""The server's disk cannot be written, and what it has not confirmed is to be brought again; or it cannot be read."""
CLOSE_PROTOCOL = 4000
"""A message that is well formed but not allowed now, or another protocol version."""
CLOSE_UNAUTHORIZED = 4001
"""No token, or a wrong one; also one that has been revoked meanwhile."""
CLOSE_FORBIDDEN = 4003
"""A token whose role may not do this."""
CLOSE_TOO_SLOW = 4008
"""The viewer took nothing for `STALL_SECONDS`, or too little for messages that must not be dropped; it may resume."""
CLOSE_REPLACED = 4009
"""A newer connection of the same run's courier has taken over."""
CLOSE_TOO_OFTEN = 4029
"""The viewer said more than `VIEWER_PACKETS_PER_SECOND`; it may come back."""
CLOSE_SILENT = 4010
"""Nothing was heard for `SILENCE_SECONDS`."""
