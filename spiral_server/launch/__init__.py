"""Starts engine processes and ends them; finds the port and tells others where the server is."""
