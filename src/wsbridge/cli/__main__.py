"""``python -m wsbridge.cli``."""

from wsbridge.cli import main

if __name__ == "__main__":
    main()
