"""``python -m icbs`` is the console command."""

from icbs.cli import main

main()
