"""Talking to a server that runs elsewhere: what the commands that steer and watch by hand are made of."""
