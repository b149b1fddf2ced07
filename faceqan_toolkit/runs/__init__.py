"""The run folder, from which runs are resumed.

folder: `run.json` (read, written, compared), the lock, the writer of a run.
ledger: the records in Parquet parts, and DuckDB connections to them.
todo: the photos that a run still has to process, and its shard.
merging: several runs of equal settings joined into a new one.
"""
