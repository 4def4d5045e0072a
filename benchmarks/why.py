"""Why a target is not reached, and what was tried: the sentences of the committed page."""

from benchmarks.plan import Finding

NOT_DECIDED = "The target lies inside the interval: more rounds on a quieter machine would tell."
NOISY = "The interval is wider than 10 %: the machine did something else meanwhile."
UNKNOWN = "No reason is known yet."

REASONS: dict[tuple[str, str], str] = {}
"""By the beginning of the workload's title and the subject, or what the subjects' names begin with."""


def reason(finding: Finding) -> str:
    """Return why a target is not reached."""
    for (workload, subject), sentence in REASONS.items():
        if finding.workload.startswith(workload) and finding.subject.startswith(subject):
            return sentence
    return NOISY if finding.noisy else NOT_DECIDED if finding.verdict == "not decided" else UNKNOWN
