"""What each stage of the pipeline does, one module a stage, with one function `run`.

The scripts in `stages/`, the command `ocd run` and `ocd_core.OCD` call these functions. Each reads artifacts through a
`Lineage`, which refuses what is damaged or out of date, and writes one artifact, completely or not at all.
"""
