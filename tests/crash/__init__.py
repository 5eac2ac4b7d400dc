"""A sync that is killed with SIGKILL, stopped and woken again, and must still have every record once and in order.

``python -m tests.crash`` is the full run (``make crash``); ``tests/test_crash.py`` runs a small one.
"""
