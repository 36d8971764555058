"""Copies of code: what jobs import, as it was when they were launched.

A launch asks `launch_code.LaunchCode`, which uses the other modules in this order:

selection = select_sources(["auto"], started_from, rules)          # where the code is
manifest = make_manifest(selection.sources, cache, rules)          # which files it has now, and their digest
snapshot = take_snapshot(selection, cache, rules, known=manifest)  # the copy: <cache>/code/<digest>
import_from_copy(snapshot)                                         # in a job: imports come from the copy
"""
