"""What somebody who runs the system does by hand."""
