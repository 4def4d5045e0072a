"""The harness can fail: it finds what is wrong with connectors that are broken on purpose."""

from __future__ import annotations

import pytest

from tests.conformance.refresh import BY_NAME
from tests.faults.harness import run
from tests.faults.plan import FAULTS
from wsbridge.conformance.run.bench import Target
from wsbridge.registry import load_connector

# what a broken connector leaves behind, on purpose or not, may come up in the test that follows
pytestmark = [
    pytest.mark.suite,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]

SEED = 7
QUICK = tuple(fault for fault in FAULTS if fault[0] in ("cut", "reset", "half-close"))

BROKEN = {
    "DropsWhatComesBeforeTheEnd": "messages had been read before the end",
    "DeliversOutOfOrder": "the messages were delivered as",
    "DeliversAfterALocalClose": "a message was delivered behind the local end",
    "DropsMessagesWhileOpening": "messages had been read before the end",
    "AlwaysSaysTrue": "returned True",
    "ClosesInFrontOfSends": "the close frame came without them",
    "ForgetsOnClose": "on_close ran 0 times",
    "ClosesTwice": "on_close ran 2 times",
    "ClosesWhileACallbackRuns": "on_close ran while",
    "ReportsALossAsAnEmptyClose": "the reason is (1005, '', 'network')",
    "ReportsEveryEndAsThePeers": "the reason is",
    "OpensInSpiteOfAnException": "on_close got the process object None",
    "IsKeptForEver": "which something keeps alive",
    "LeavesATask": "a task is left",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_connector_is_found(name: str) -> None:
    breakage = BY_NAME[name]
    target = Target(name, breakage.applied_to(load_connector(breakage.base)))
    found = run(target, SEED, channels=45, faults=QUICK, patience=3, tries=1).found
    assert [text for text in found if BROKEN[name] in text], found


def test_the_same_connector_is_found_whole() -> None:
    """What the others are found by is not of the harness's own making."""
    assert run(Target("websockets", load_connector("websockets")), SEED, channels=45, faults=QUICK).found == []
