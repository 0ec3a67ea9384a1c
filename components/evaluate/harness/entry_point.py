"""What lmms-eval loads through the entry point `lmms_eval.models`: our model's name and where its adapter lies."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest

MODEL_ID = "plm_pipeline"

manifest = ModelManifest(model_id=MODEL_ID, simple_class_path="components.evaluate.harness.adapter.FamilyAdapter")
