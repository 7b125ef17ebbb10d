"""What a render would do, need, take and cost, before it is started.

answer.py is the way in. planned.py counts what is to be rendered, history.py keeps what runs took, measured.py pools
it, estimate.py says how long it will be.
"""
