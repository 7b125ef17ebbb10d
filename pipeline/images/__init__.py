"""First frames given by strangers: found, looked at and fetched, never decoded before the clip's turn.

reading.py is the way in. access.py says what may be reached, fetch.py reaches listed hosts; check.py holds the limits,
header.py what all kinds share, jpeg.py, png.py, webp.py and bmp.py one kind each.
"""
