"""OpenVINO, through ONNX: a folder with `openvino_model.xml` and `openvino_model.bin`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tncompress.exporting import onnx_file
from tncompress.exporting.job import Job

NAME = "openvino_model"  # as other tools name it


def write(job: Job, place: Path) -> str:
    """Write the folder; with int8, what ONNX Runtime quantised."""
    import openvino

    file = place.with_name("through.onnx")
    opset = onnx_file.write(job, file)
    place.mkdir()
    openvino.save_model(openvino.Core().read_model(str(file)), place / f"{NAME}.xml", compress_to_fp16=False)
    file.unlink()
    return f"OpenVINO IR 11, by OpenVINO {openvino.__version__.partition('-')[0]} through {opset}"


def read(job: Job, place: Path) -> Callable[[Any], dict]:
    """What runs it, in float32."""
    import openvino

    # By itself it computes in bfloat16 on processors that have it.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(place / f"{NAME}.xml"), "CPU", settings)
    names = [output.any_name for output in compiled.outputs]

    def run(inputs: Any) -> dict:
        found = compiled(job.feed(inputs))
        return {name: found[name] for name in names}

    return run
