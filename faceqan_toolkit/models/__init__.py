"""Face recognition networks: found by name or file, verified, and run on aligned crops.

- `load`: `load_model` and `find_model`, by name, weights file or factory.
- `registry`: descriptions of known models, and the models that users add.
- `weights`: weights files on disk, shipped ones and users'.
- `checkpoints`: from a file's content to a checked model.
- `architectures`: networks recognised by the names and shapes of their tensors.
- `networks`: SFace, IResNet, IR and FaceNet.
- `base`: the interface `Embedder`, its preprocessing, and blocks of crops.
- `freeze`: copies of networks that are faster to attack.
- `onnx_file`, `onnx_rewrites`, `onnx_network`: ONNX graphs as differentiable torch modules.
"""
