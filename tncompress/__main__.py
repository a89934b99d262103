"""`python -m tncompress`: the command line, see docs/command_line.md."""

from tncompress.cli import main

if __name__ == "__main__":
    main(prog_name="tncompress")
