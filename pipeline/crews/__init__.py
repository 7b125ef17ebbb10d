"""What is asked of Ray's actors, and what their answers and ends mean. All of Ray but the actors and the connection.

ray_fleet.py drives them all; crew.py is what all crews have in common; solo.py has those of one actor, group.py the
render groups, whose ranks come together in ranks.py and are looked after in pulse.py. nodes.py and placements.py know
where they may be and are, guards.py keeps cards from them, losses.py knows what an error means, deadlines.py when
something is late.
"""
