"""Entry point of ``python -m icbs``, the console command."""

from icbs.cli import main

main()
