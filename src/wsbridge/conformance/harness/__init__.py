"""How checks are run: what they get to work with, their processes, what came of them, and reports of that.

`bench`, `server_process` and what they import is for checks; `selection`, and what imports it, knows the checks.
"""
