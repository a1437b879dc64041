"""Models as files: which there are, where they come from, and which one a name means.

Here, below the box and the job alike, because both resolve the same names and fetch the same files.
"""
