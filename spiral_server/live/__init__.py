"""The rules of the server: what a run looks like, what may be asked of it, who may ask, and what a viewer is sent.

Pure: no file, no socket, no task, no clock. Times come in as arguments.
"""
