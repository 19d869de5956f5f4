"""What is asked of an intent before it may become an order, as an author reaches it; the rules are `qmtl.runtime.execution.gate`'s."""

from __future__ import annotations

from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.runtime.execution.gate import Admitted, Refused, Verdict, admit
from qmtl.runtime.execution.judging import Judged, judge, rejection

__all__ = ["Admitted", "Judged", "Refused", "RejectionReason", "Verdict", "admit", "judge", "rejection"]
