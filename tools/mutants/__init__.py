"""Mutation testing of wsbridge's connectors and core by the conformance suite: ``python -m tools.mutants``.

A mutant is a copy of the source with one small fault in it, such as a ``<`` that has become ``<=`` or a call that is
gone. The suite runs on a connector that imports the copy; a check that fails has killed the mutant. A mutant that no
check kills shows a promise that the suite does not check, or code that no promise needs.

Why the mutants are made here, from `ast`:

- cosmic-ray 8.7 was tried. Its operators can be used as a library, on parso and attrs alone. Of the 405 mutants that
  they make of ``connectors/aiohttp.py``, 283 replace one comparison or binary operator by each of the others, most of
  those a ``|`` in an annotation, which never runs; and none drops a statement or a call, or changes what is returned,
  which is what connectors are made of.
- mutmut 3.8 makes all mutants of a file at once, behind a function that picks one at each call, and runs pytest in a
  fork. That adds frames to the paths that the suite times, and it cannot choose the checks of the suite by connector.

How it works:

- `tools.mutants.mutation` makes the mutants of a file.
- `tools.mutants.child` runs checks in a process of its own, which imports wsbridge from a copy of ``src``
  (`tools.mutants.workers`); the checkout is not touched. A process that hangs is ended: that is a kill.
- `tools.mutants.reach` has each check run once without a mutant and records which lines it runs. A mutant is shown to
  the checks that run its line.
- `tools.mutants.killing` shows mutants to checks until one fails.
- ``equivalent.toml`` lists mutants that change nothing that is promised, each with the reason
  (`tools.mutants.exceptions`).
- `tools.mutants.figures` counts, and writes ``docs/mutants.md``.
"""
