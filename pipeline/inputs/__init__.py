"""First frames and sounds given by strangers: found, looked at and fetched. Frames are not decoded before their turn.

files.py finds and reads what cells name, images.py and sounds.py say what it is. access.py says what may be reached,
fetch.py reaches listed hosts. Of images check.py holds the limits, header.py what all kinds share, jpeg.py, png.py,
webp.py and bmp.py one kind each.
"""
