"""Indexes that change while they are served: durable writes, quick visibility, learning from what people choose.

============== ==========================================================================================
``journal``    the file ``index.db``: what changed since the segment was built, and what was learnt (SQLite)
``learning``   how selections become score, and how they fade
``layers``     the segment and the changes on top of it, searched as one
``holding``    what a process holds of an index: a segment, and the journal's rows on top of it
``state``      one open index: writes, notices the writes of others, compacts
============== ==========================================================================================

docs/live.md says what is promised; docs/format.md what is on the disk.
"""
