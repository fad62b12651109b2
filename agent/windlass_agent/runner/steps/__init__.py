"""What an attempt goes through besides its command: one step per file.

A step returns None, or a `StepFailure` that says whose fault it is: what a job does wrong is no exception.
"""
