"""Steps of the launcher: commands to the site processes, the coordinator's process, references, report."""
