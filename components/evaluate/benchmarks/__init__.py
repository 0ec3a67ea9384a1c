"""Benchmarks that lmms-eval lacks, one folder each: a task in YAML, and functions that read the data as they are published.

Nothing of lmms-eval is imported here. A benchmark's questions lie in the working directory, at the path that its data set has
where it is published (`owner/name/file`); its media lie below `$HF_HOME`, in the folder that its task names.
"""
