"""Quality methods: a crop and a recognition model in, a score out.

- `registry`: the methods by name, with their options.
- `base`: the interface `QualityEstimator`.
- `faceqan`: FaceQAN, and its prediction by preset instant.
- `attack`: the attack as in the paper; `backends`: libraries that compute its steps.
- `serfiq`, `grafiqs`, `norm`: the other methods.
- `measures`: light, focus, pose and position of a face, and hints from them.
- `scale`: scores on a scale from 0 to 100.
"""
