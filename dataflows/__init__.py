"""The dataflows, one file each, with its `SOURCE`, its rows and its `flow`."""
