"""`python -m prep`, and what the `midprep` command starts: so little that a worker, which imports it too, starts at once."""

from prep.signals import leave_at_once


def main() -> None:
    leave_at_once()  # an exception out of a signal in the middle of an import comes out as anything

    from prep.cli.main import main

    main()


if __name__ == "__main__":
    main()
