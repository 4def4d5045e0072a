"""Which rules and checks there are for a target, and which of them are asked for."""

from __future__ import annotations

from collections.abc import Iterable

from wsbridge.conformance.checks import all_checks
from wsbridge.conformance.contract import Check
from wsbridge.conformance.contract.catalogue import rules as catalogue_rules
from wsbridge.conformance.harness.known import KnownFailing, closest, matching
from wsbridge.conformance.harness.suite_result import RuleInfo

__all__ = [
    "MODEL_CHECK",
    "SEQUENCES",
    "applicable",
    "check_known",
    "current_rules",
    "current_titles",
    "select",
    "why_none",
]

MODEL_CHECK = "RECV-4/random-sequences"
"""The id of the random model's result."""

SEQUENCES = 100
"""How many random sequences the model plays where nobody says it."""

MODEL_TITLE = "Random sequences of what peers and an application do, at two channels at once, keep what is promised."


def applicable(*, is_url: bool) -> tuple[Check, ...]:
    """Return the checks for a kind of target, in the order of the catalogue.

    Args:
        is_url: Whether it is a running server, which only those can be held to that need nothing but the reference
            application.
    """
    order = {rule.id: number for number, rule in enumerate(catalogue_rules())}
    checks = sorted(all_checks(), key=lambda check: order.get(check.rule, len(order)))
    return tuple(check for check in checks if check.black_box or not is_url)


def select(checks: Iterable[Check], rules: Iterable[str] | None) -> tuple[Check, ...]:
    """Return the checks that ``rules``, ids of checks, rules or groups of rules, take in; all for None.

    Raises:
        ValueError: An id takes in no check.
    """
    checks = tuple(checks)
    if rules is None:
        return checks
    wanted = [rules] if isinstance(rules, str) else list(rules)
    for id in wanted:
        if not any(matching(id, check.id) for check in checks):
            raise ValueError(why_none(id))
    return tuple(check for check in checks if any(matching(id, check.id) for id in wanted))


def why_none(id: str) -> str:
    """Return why ``id`` takes in no check that can be asked for, in one line."""
    ids = [check.id for check in all_checks()]
    if any(matching(id, other) for other in ids):
        return f"{id} cannot be checked from outside, by a URL"
    if id in (MODEL_CHECK, "MODEL"):
        return f"{id} is no check: the random model is played by --model, or by model=True"
    if (rule := next((rule for rule in catalogue_rules() if rule.id == id), None)) is not None:
        return f"{id} is a {rule.kind} rule: no check of the suite is about it"
    if id in {rule.group for rule in catalogue_rules()}:
        return f"{id} has rules of the library alone, which its own tests are about: no check of the suite is"
    return f"there is no rule, check or group of rules {id!r}{closest(id, ids)}"


def check_known(known: KnownFailing) -> None:
    """Make sure that each entry names a check or a rule that there is.

    Raises:
        ValueError: One does not.
    """
    ids = [check.id for check in all_checks()]
    for id in known:
        if id != MODEL_CHECK and not any(id in (check, check.partition("/")[0]) for check in ids):
            raise ValueError(f"the known-failing file lists {id}, which is no rule or check{closest(id, ids)}")


def current_rules(*, is_url: bool = False) -> tuple[RuleInfo, ...]:
    """Return what a report says of each rule of this version of the contract."""
    checked = {check.rule for check in applicable(is_url=is_url)}
    return tuple(
        RuleInfo(rule.id, rule.kind, rule.level, rule.section, rule.sentence, rule.id in checked, rule.stochastic)
        for rule in catalogue_rules()
    )


def current_titles() -> dict[str, str]:
    """Return what each check of this version promises, by its id."""
    return {check.id: check.title for check in all_checks()} | {MODEL_CHECK: MODEL_TITLE}
