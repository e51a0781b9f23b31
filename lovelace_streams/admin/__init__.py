"""The work that a person does by hand to run the system: checks, new flows, submissions, rewinds, schemas."""
