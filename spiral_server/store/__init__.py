"""Keeps what engines said and what people asked, on disk, and reads it back.

`protocol` says what a store does; the rest of the package does it with SQLite. Knows no viewer and no event loop.
"""
