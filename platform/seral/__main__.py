"""The command `seral`, and `python -m seral`: it can be stopped before the command line is loaded."""

from seral.process.ending import stoppable


def main() -> None:
    """Run the command line."""
    with stoppable():
        from seral.cli import main as run_commands

        run_commands()


if __name__ == "__main__":
    main()
