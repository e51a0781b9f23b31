"""`dataflows.discord_messages` on a topic of the test's own: `python -m bytewax.run tests.faults.messages`."""

import os

from dataflows import discord_messages

discord_messages.TOPIC = os.environ["TOPIC"]
flow = discord_messages.flow
