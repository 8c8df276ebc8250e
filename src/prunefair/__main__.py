"""`python -m prunefair` is the command `prunefair`."""

from prunefair.cli import main

if __name__ == "__main__":
    main()
