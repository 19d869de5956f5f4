"""The messages: one module per topic family, frozen slotted dataclasses in closed unions.

A field's type decides its Avro type: `str`, `int` (64-bit), `float`, `bool`, `bytes`, `Decimal` (normal-form text), an `Enum` with
text values, another message, `tuple[X, ...]`, `dict[str, int]`, and any of these with `| None`. New fields carry a default.
"""
