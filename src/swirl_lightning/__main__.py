"""``python -m swirl_lightning`` is ``swirl``."""

from swirl_lightning.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
