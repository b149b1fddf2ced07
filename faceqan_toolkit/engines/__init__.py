"""Engines run the pipeline over a run's photos; their records are equal.

choice: which engine a run gets, with how many workers on which devices.
base: what all engines share; the engine in the calling process.
processes: in worker processes of this machine.
ray: on the machines of a Ray cluster.
spool: the list of photos on its way to a Ray cluster.
"""
