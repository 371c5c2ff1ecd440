"""LookBench: edits that paint a taught look, measured against the right answer.

``dataset`` has the pairs, ``folder`` writes and reads them as files, ``measures`` compares one
picture with its right answer, ``scores`` measures an editor's pictures and sums them up with
intervals. docs/lookbench.md tells how to score an editor.
"""
