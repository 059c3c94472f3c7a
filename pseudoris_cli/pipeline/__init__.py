"""The chain of stages at work: a session, the versions it makes, its runs, and the export of what they made."""
