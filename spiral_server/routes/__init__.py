"""The doors of the server: parse, ask, serialise. The rules stand in `spiral_server.live`."""
