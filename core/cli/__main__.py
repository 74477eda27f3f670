"""`python -m core.cli`."""

from core.cli.main import main

main()
