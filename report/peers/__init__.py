"""The same ten tasks by other libraries, each script alone in its process."""
