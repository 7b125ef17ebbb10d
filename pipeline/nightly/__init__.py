"""Renders what lies in an inbox, night after night, inside a window of hours.

loop.py is the way in: it looks at the inbox, asks agenda.py what may start now and hands it to a renderer until
limits.py says that the night is over. windows.py knows when nights are, journal.py what they used, notices.py and
outbox.py who is told of it. Clock, renderer and channels are Protocols: a week of nights is a test.
"""
