"""Face recognition networks from ONNX files, as differentiable torch modules.

Only the modules of this folder import onnx, onnx2torch and onnxruntime, the extra `onnx`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from faceqan_toolkit.errors import FaceQANError, MissingDependency, UnsupportedGraph
from faceqan_toolkit.threads import keep_onnxruntime_private

if TYPE_CHECKING:
    from faceqan_toolkit.models.onnx.network import OnnxModel
    from faceqan_toolkit.models.preprocessing import Preprocessing

__all__ = ["load_onnx"]


def load_onnx(content: bytes, preprocessing: Preprocessing | None = None) -> OnnxModel:
    """Return the network in an ONNX file's content, checked.

    The embeddings of two crops equal those of onnxruntime (within 1e-4 of their length), embeddings
    do not depend on the batch, and the gradient with respect to the crops agrees with a finite
    difference. Quantised weights are dequantised. Quantised activations keep their range but are
    not rounded, since rounding has no gradient.

    Args:
        content: a graph with its weights. Its input is a batch of S x S images, and one of its
            outputs is their embeddings.
        preprocessing: the graph's input. None means RGB pixels in 0..255 or 0..1 for a graph that
            scales them itself, and (pixel - 127.5) / 127.5 for any other.

    Raises:
        MissingDependency: the extra `onnx` is not installed.
        DamagedWeights: not an ONNX file, cut off, NaN or infinite weights, or embeddings that are
            not finite or the same for unlike crops.
        MissingWeights: the weights are in other files.
        WrongArchitecture: inputs or outputs are not those of a face recognition network, an
            embedding depends on the batch, or the preprocessing is for another size.
        UnsupportedGraph: it cannot be converted, or the conversion computes something else.
    """
    keep_onnxruntime_private()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import onnx  # noqa: F401
            import onnx2torch  # noqa: F401
            import onnxruntime
        except ImportError as error:
            raise MissingDependency(
                "an ONNX model needs an extra: pip install 'faceqan-toolkit[onnx]'"
            ) from error
        onnxruntime.disable_telemetry_events()
        from faceqan_toolkit.models.onnx.network import read_network
        from faceqan_toolkit.models.onnx.session import error_text

        try:
            return read_network(content, preprocessing)
        except FaceQANError:
            raise
        except Exception as error:  # any, from three libraries that read a stranger's file
            raise UnsupportedGraph(f"cannot be converted: {error_text(error)}") from error
