"""Editing: whose attention maps a target prompt takes, where an edit may reach, and the methods."""
