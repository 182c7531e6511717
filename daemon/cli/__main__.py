"""``python -m daemon.cli`` is ``musecal``, for where the command itself is not on the PATH."""

from daemon.cli.application import main

if __name__ == "__main__":
    main()
