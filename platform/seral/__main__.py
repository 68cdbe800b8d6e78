"""`python -m seral`: the command line without an installation."""

from seral.cli import main

if __name__ == "__main__":
    main()
