"""`python -m lovelace_streams` is `lovelace`."""

from lovelace_streams.cli import main

main()
