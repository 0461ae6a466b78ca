"""Tests that draw what they say at random: readers of bytes, the doors of the server, its HTTP interface."""
