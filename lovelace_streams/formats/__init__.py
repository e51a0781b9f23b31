"""Bytes → items: a module for each format, and the parts that all formats share.

decoder   the protocols of a decoder, and `Ports`: the three lists that it fills
limits    checks of a message before it is decoded: UTF-8, depth of nesting
items     what a decoder does with the items that it found, or with a message that holds none
events    `Events` and `Items`: which events of a topic hold which items
json      `JsonDecoder`
avro      `AvroDecoder`, a package
"""
