"""Data sets for evaluations.

- registry: the data sets by name, with documentation and options; `read_dataset`.
- base: what a reader returns (samples, pairs, templates, identities, issues), and its helpers.
- readers: LFW and XQLFW, CFP-FP, your own pairs, a folder for each person.
- insightface: InsightFace's `.bin` files; IJB-C 1:1.
- validation: checks of lists, pairs and photos before an evaluation.
"""
