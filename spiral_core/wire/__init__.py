"""The protocol between engine, server and browser, without any I/O.

`parts` and `messages` say what is said, `codec` how it is packed, `session` when it may be said, `knobs` what may be
asked for, and `limits` how much and how long. Nothing here opens a socket, reads a clock or starts a thread.
"""
