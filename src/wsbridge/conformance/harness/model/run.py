"""Plays the random model against a target, and tells of the shortest sequence that fails."""

from __future__ import annotations

import random
import time
import traceback
import warnings

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky, HypothesisWarning, Unsatisfiable
from hypothesis.stateful import run_state_machine_as_test

from wsbridge.conformance.harness.model.machine import Machine
from wsbridge.conformance.harness.model.story import SHRINKING, Stories
from wsbridge.conformance.harness.selection import MODEL_CHECK, SEQUENCES
from wsbridge.conformance.harness.target import SuiteTarget
from wsbridge.conformance.harness.verdicts import CheckResult, Verdict

__all__ = ["run_model"]


def run_model(
    target: SuiteTarget,
    *,
    scale: float = 1.0,
    sequences: int = SEQUENCES,
    steps: int = 20,
    seed: int | None = None,
    shrinking: float = SHRINKING,
) -> CheckResult:
    """Play random sequences against ``target``, and return the result.

    Args:
        target: What is checked.
        scale: Stretches every time.
        sequences: How many are played, if none fails.
        steps: How many steps a sequence has at most.
        seed: What a former run has told, to have the same sequences again; None: others.
        shrinking: Seconds in which a shorter sequence is looked for, when one has failed.
    """
    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    stories = Stories(seconds=shrinking)
    machine = type("Machine", (Machine,), {"target": target, "scale": scale, "stories": stories})
    started = time.perf_counter()
    details = ""
    try:
        with warnings.catch_warnings():
            # of Hypothesis itself, by its way of counting references, which Python 3.15 has changed
            warnings.filterwarnings("ignore", "It looks like `register_random`", HypothesisWarning)
            run_state_machine_as_test(
                hypothesis.seed(seed)(machine),
                settings=settings(
                    max_examples=sequences,
                    stateful_step_count=steps,
                    deadline=None,
                    database=None,
                    print_blob=False,
                    report_multiple_bugs=False,
                    phases=(Phase.generate, Phase.shrink),
                    suppress_health_check=tuple(HealthCheck),  # pyright: ignore[reportArgumentType]
                ),
            )
    except Exception as exc:
        details = _why(exc) if stories.goes_on() else ""  # after that nothing is played again
        if stories.shortest is None:
            raise
    seconds = round(time.perf_counter() - started, 3)
    rule = MODEL_CHECK.partition("/")[0]
    story = stories.shortest
    if story is None:
        return CheckResult(MODEL_CHECK, rule, Verdict.PASS, seconds)
    again = f"--model-seed {seed} --model-sequences {max(sequences, stories.count)}"
    message = f"{story.message} (after {len(story.steps)} steps, see the details; to play it again: {again})"
    return CheckResult(
        MODEL_CHECK,
        rule,
        Verdict.FAIL,
        seconds,
        message,
        f"The shortest sequence that failed:\n\n{story}\n\n{details}To play it again: {again}\n\n{story.traceback}",
        story.wire,
        story.callbacks,
        cause="promise",
    )


def _why(error: Exception) -> str:
    """Return what is to be said of how the run ended, if it is more than that a sequence failed."""
    if isinstance(error, Flaky):
        return "Played once more it did not fail, or failed in another way: it depends on chance.\n"
    if isinstance(error, Unsatisfiable):
        return "".join(traceback.format_exception(error))
    return ""
