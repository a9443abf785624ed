"""`python -m gnncompose.cli` is the command `gnncompose`."""

from gnncompose.cli import main

if __name__ == "__main__":
    main()
