"""What a server of one model costs at least: Starlette, uvicorn and one ONNX Runtime session, binary tensors only.

python benchmarks/speed/bare_server.py MODEL.onnx PORT
"""

import sys

import numpy as np
import onnxruntime as ort
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gnncompose.execution.sessions import session_options


def main() -> None:
    session = ort.InferenceSession(sys.argv[1], session_options(), providers=["CPUExecutionProvider"])
    (source,), (target,) = session.get_inputs(), session.get_outputs()

    async def infer(request: Request) -> Response:
        body, length = await request.body(), int(request.headers["inference-header-content-length"])
        (tensor,) = orjson.loads(body[:length])["inputs"]
        x = np.frombuffer(body, dtype=np.float32, offset=length).reshape(tensor["shape"])
        (y,) = session.run([target.name], {source.name: x})
        told = {"name": target.name, "datatype": "FP32", "shape": y.shape, "parameters": {"binary_data_size": y.nbytes}}
        header = orjson.dumps({"model_name": "bare", "model_version": "1", "outputs": [told]})
        headers = {"Inference-Header-Content-Length": str(len(header))}
        return Response(header + y.tobytes(), headers=headers, media_type="application/octet-stream")

    app = Starlette(routes=[Route("/v2/models/digits/infer", infer, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error", access_log=False)


if __name__ == "__main__":
    main()
