"""Reconstructions as jobs: a folder on disk, a worker process, a stream of events.  Importing this costs nothing."""
