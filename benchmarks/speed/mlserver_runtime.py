"""The least that MLServer needs to serve one ONNX file; it runs in MLServer's own environment (`mlserver.py`)."""

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Onnx(MLModel):
    """One session, with the options of `gnncompose.execution.sessions.session_options`."""

    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.session = ort.InferenceSession(self.settings.parameters.uri, options, providers=["CPUExecutionProvider"])
        (self.source,), (self.target,) = self.session.get_inputs(), self.session.get_outputs()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0])
        (y,) = self.session.run([self.target.name], {self.source.name: x})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output(self.target.name, y)])
