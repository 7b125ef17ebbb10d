"""Whether an output is what it says: rows against records, records against files. Reads, changes nothing.

auditing    the whole of it, in an order in which a run at work cannot make a false finding
records     each record by itself, and every file that it names; all that `verify` does
media       a delivered file as a player sees it
claims      what `results.parquet` and `_SUCCESS.json` say is done
rows        the manifest's rows, each in one state
finding     one thing that is wrong
"""
