"""``python -m counterpoint.cli``."""

from counterpoint.cli import main

if __name__ == "__main__":
    main()
