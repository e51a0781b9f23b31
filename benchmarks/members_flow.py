"""`dataflows.discord` on a topic of the benchmark's own: `python -m bytewax.run benchmarks.members_flow`."""

import os

from dataflows import discord

discord.TOPIC = os.environ["BENCH_TOPIC"]
flow = discord.flow
