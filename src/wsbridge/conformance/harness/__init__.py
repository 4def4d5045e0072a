"""How checks are run: bench, processes, verdicts, reports."""
