"""Tests of the page: its own checks, its generated files and its codec."""
