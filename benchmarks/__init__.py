"""What is measured, beside what could be reached: one JSON object a measurement, the last one a summary."""
