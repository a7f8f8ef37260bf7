"""`python -m sprint_bridge` is the command `sprint-bridge`."""

from sprint_bridge.cli import main

raise SystemExit(main())
