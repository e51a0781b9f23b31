"""The client's side of the progress service: what a worker reports, and what it is answered."""
