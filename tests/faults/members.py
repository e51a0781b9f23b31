"""`dataflows.discord` on a topic of the test's own: `python -m bytewax.run tests.faults.members`."""

import os

import msgspec

from dataflows import discord

discord.TOPIC = os.environ["TOPIC"]
flow = discord.flow
SOURCE = msgspec.structs.replace(discord.SOURCE, topic=discord.TOPIC)
