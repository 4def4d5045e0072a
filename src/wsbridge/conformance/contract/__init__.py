"""The numbered rules as data, and what a check is.

Checks import from here; the rules are joined in `wsbridge.conformance.contract.catalogue`.
"""

from wsbridge.conformance.contract.assertions import CheckFailed, Variants, equal, fail, true, variants
from wsbridge.conformance.contract.registration import Check, check

__all__ = ["Check", "CheckFailed", "Variants", "check", "equal", "fail", "true", "variants"]
