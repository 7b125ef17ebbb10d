"""Manifests between Parquet and CSV, JSON Lines or JSON.

conversion.py is the way in. rows.py reads text files, requests.py knows the hosted API's, cells.py and kinds.py turn
values into types, table.py writes Parquet, text.py writes the others.
"""
