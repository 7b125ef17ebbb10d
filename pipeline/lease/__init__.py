"""Who may write below an output: one run at a time, and none for long after it died.

acquiring.py waits for the right and takes it, holding.py keeps it and says when it is gone; claims.py is how it lies in
storage, holder.py who has it and whether that process lives. Correctness never needs a lease to be given back.
"""
