"""What a connector declares to do differently, as the random model comes upon it."""

from __future__ import annotations

from wsbridge.conformance.harness.target import SuiteTarget

__all__ = ["Declared"]


class Declared:
    """What a connector declares to do differently, as far as a sequence may come upon it.

    Attributes:
        ends_by_close: Whether the peer gets a close frame at every end that is not its own loss.
        sends_before_close: Whether the peer gets all for which a send returned True before the close frame.
        measures_late: Whether a message that is too large may be found to be when its turn to be delivered has come,
            and not by its head, so that what comes after it is handled until then.
    """

    def __init__(self, target: SuiteTarget) -> None:
        rules = {scenario.partition("/")[0] for scenario in target.deviations}
        self.ends_by_close = "CLOSE-5" not in rules
        self.sends_before_close = "SEND-6" not in rules
        self.measures_late = not target.has_wire or "LIM-1" in rules
