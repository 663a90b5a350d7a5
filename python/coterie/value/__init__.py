"""What each expert is good at, measured: tasks with exact answers, asked of every expert.

`coterie bench value` runs them; with --write the result becomes the table that dispatch reads.
"""
