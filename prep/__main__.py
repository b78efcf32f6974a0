"""`python -m prep`, and what the `midprep` command starts: so little that a worker, which imports it too, starts at once."""


def main() -> None:
    from prep.cli.main import main

    main()


if __name__ == "__main__":
    main()
