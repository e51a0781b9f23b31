"""`dataflows.discord_messages` on a topic of the benchmark's own: `python -m bytewax.run benchmarks.messages_flow`."""

import os

from dataflows import discord_messages

discord_messages.TOPIC = os.environ["BENCH_TOPIC"]
flow = discord_messages.flow
