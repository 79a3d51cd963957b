"""`python -m bilens`."""

from bilens.cli.app import main

main()
