"""Damaged files of every kind that we read: each must be read, or refused in one line, in little time and memory."""
