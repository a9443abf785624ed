"""JSON Schemas of the KServe resources that exports write, so that a misspelt field fails instead of being dropped.

Fields, types and what is required are those of the classes generated from KServe's OpenAPI in kserve 0.21.0 on PyPI
(kserve/models: v1beta1_inference_service.py, v1beta1_inference_service_spec.py, v1beta1_predictor_spec.py,
v1beta1_model_spec.py, v1beta1_model_format.py, v1alpha1_inference_graph.py, v1alpha1_inference_graph_spec.py,
v1alpha1_inference_router.py, v1alpha1_inference_step.py). Router types, dependencies and the pattern of quantities are
those of KServe's CustomResourceDefinition config/crd/full/serving.kserve.io_inferencegraphs.yaml, the pattern of names
is the webhook's that admits InferenceServices (IsvcNameFmt). Fields that no export writes may be missing here.
"""

from typing import Any

TEXT: dict[str, Any] = {"type": "string"}
INTEGER: dict[str, Any] = {"type": "integer"}
NAME: dict[str, Any] = {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
QUANTITY: dict[str, Any] = {
    "type": "string",
    "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",  # noqa: E501 - a pattern as it is published
}


def closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """An object with these properties and no others."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def texts() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": TEXT}


METADATA = closed({"name": NAME, "namespace": NAME, "annotations": texts(), "labels": texts()}, "name")
AMOUNTS = {"type": "object", "additionalProperties": QUANTITY}
RESOURCES = closed({"limits": AMOUNTS, "requests": AMOUNTS, "claims": {"type": "array"}})
MODEL = closed(
    {
        "args": {"type": "array", "items": TEXT},
        "command": {"type": "array", "items": TEXT},
        "env": {"type": "array"},
        "image": TEXT,
        "modelFormat": closed({"name": TEXT, "version": TEXT}, "name"),
        "protocolVersion": {"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]},
        "resources": RESOURCES,
        "runtime": TEXT,
        "runtimeVersion": TEXT,
        "storage": {"type": "object"},
        "storageUri": {"type": "string", "pattern": "^[a-z0-9]+://"},
    },
    "modelFormat",
)
PREDICTOR = closed(
    {
        "annotations": texts(),
        "labels": texts(),
        "maxReplicas": INTEGER,
        "minReplicas": INTEGER,
        "model": MODEL,
        "scaleTarget": INTEGER,
        "serviceAccountName": TEXT,
        "timeout": INTEGER,
    }
)
INFERENCE_SERVICE = closed(
    {
        "apiVersion": {"const": "serving.kserve.io/v1beta1"},
        "kind": {"const": "InferenceService"},
        "metadata": METADATA,
        "spec": closed(
            {"predictor": PREDICTOR, "transformer": {"type": "object"}, "explainer": {"type": "object"}}, "predictor"
        ),
    },
    "apiVersion",
    "kind",
    "metadata",
    "spec",
)

STEP = closed(
    {
        "condition": TEXT,
        "data": TEXT,
        "dependency": {"enum": ["Soft", "Hard"]},
        "mapPredictionsToInstances": {"type": "boolean"},
        "name": TEXT,
        "nodeName": TEXT,
        "serviceName": TEXT,
        "serviceUrl": TEXT,
        "weight": INTEGER,
    }
)
# Exactly one target: https://kserve.github.io/website/docs/model-serving/inferencegraph/overview
STEP["oneOf"] = [{"required": [target]} for target in ("serviceName", "serviceUrl", "nodeName")]
NODE = closed(
    {
        "routerType": {"enum": ["Sequence", "Splitter", "Ensemble", "Switch"]},
        "steps": {"type": "array", "items": STEP, "minItems": 1},
    },
    "routerType",
)
INFERENCE_GRAPH = closed(
    {
        "apiVersion": {"const": "serving.kserve.io/v1alpha1"},
        "kind": {"const": "InferenceGraph"},
        "metadata": METADATA,
        "spec": closed(
            {
                "maxReplicas": INTEGER,
                "minReplicas": INTEGER,
                "nodes": {"type": "object", "additionalProperties": NODE, "required": ["root"]},
                "resources": RESOURCES,
                "timeout": INTEGER,
            },
            "nodes",
        ),
    },
    "apiVersion",
    "kind",
    "metadata",
    "spec",
)
