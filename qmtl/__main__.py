"""`python -m qmtl` is `qmtl`."""

from __future__ import annotations

from qmtl.interfaces.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
