"""A table of prompts, from its files to checked clips.

reading.py is the way in and out. sources.py finds the files, tables.py streams their rows, where.py and selection.py
choose among them; unpacking.py and parquet_footer.py bound what a file may unpack to. checking.py takes rows through
cells.py (types), rows.py (values) and ids.py (names); hashing.py tells what is done already. findings.py keeps what is
wrong, index.py what is kept of each row, said.py what a record says of it.
"""
