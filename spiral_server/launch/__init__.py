"""Starts engine processes and ends them."""
