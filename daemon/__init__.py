"""Processes and faces: the watcher, the worker, the command line."""
