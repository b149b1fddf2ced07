"""Results of a run folder: what `rank`, `filter` and `calibrate` read and write.

ranking: rows in order of quality, printed or exported.
groups: statistics by folder or by a CSV file's column; identities of photos.
comparison: two runs of the same photos.
calibration: files of quality thresholds and a 0..100 scale.
filtering: conditions on photos or faces (`Rules`), and the photos that meet them (`Selection`).
actions: decisions are listed, copied, moved, linked or undone, by a manifest.
copying: one file is copied, moved or linked; no other file is replaced.
training_set: kept photos are written as WebDataset or RecordIO.
crops: a row's crop and photo, and the run's recognition model.
"""
