"""Do quality scores predict recognition errors? Data sets, curves, tables and figures.

- evaluate: evaluation of a data set from start to end.
- statistics: evaluation of methods on comparisons; agreement of two tools' scores.
- curves: error-versus-discard curves, their bootstrap, and DET curves.
- verification: comparisons, similarity thresholds at a false match rate, accuracy over folds.
- calibrate: quality thresholds and a scale from a run over labelled people.
- options: options of an evaluation.
- result: methods and results.
- result_files: summary, tables and HTML page; reads them back.
- figures: figures for papers.
- datasets: data sets and their lists of pairs.
- run_faces: scores, simple measures and crops' files of a run's faces.
- score_files: scores of other tools.
- embeddings: embeddings of crops, computed here or read from files.
- path_matching: paths that different tools wrote for the same photos; errors that name a file.
- safe_pickle: pickles of plain values.
"""
