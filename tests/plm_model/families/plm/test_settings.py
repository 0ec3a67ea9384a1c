"""A model's numbers are checked when they are written down, and survive a trip through JSON."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import pytest

import plm_model
from plm_model.families.plm.settings import PLMConfig, VisionConfig
from plm_model.nn.config import DecoderConfig, RopeScaling
from plm_model.parsing.dataclass import ConfigError


def test_tokens_per_tile_of_the_published_shape_is_256() -> None:
    assert PLMConfig().tokens_per_tile == 256
    assert PLMConfig(pooling_ratio=1).tokens_per_tile == 1024


def test_the_mlp_of_the_largest_tower_is_8960_wide() -> None:
    assert VisionConfig(width=1536, mlp_ratio=5.833333334).hidden_dim == 8960


def test_config_survives_json() -> None:
    config = PLMConfig(
        decoder=DecoderConfig(rope_scaling=RopeScaling(factor=8.0)), vision=VisionConfig(layer_scale_init=None)
    )
    assert PLMConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_missing_keys_keep_their_defaults() -> None:
    assert PLMConfig.from_dict({"vision": {"layers": 3}}) == PLMConfig(vision=VisionConfig(layers=3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vison": {}}, "vison: unknown key; did you mean vision"),
        ({"decoder": {"dims": 4}}, r"decoder\.dims: unknown key; did you mean decoder\.dim\?"),
        ({"decoder": {"dim": "64"}}, r"decoder\.dim is .64.; it must be a whole number"),
        ({"decoder": {"dim": True}}, r"decoder\.dim is True; it must be a whole number"),
        ({"decoder": 3}, "decoder must be a mapping"),
        ({"decoder": {"heads": 30, "kv_heads": 8}}, r"decoder\.dim is 2048; it must be a multiple of heads"),
        ({"decoder": {"kv_heads": 5}}, r"decoder\.heads is 32; it must be a multiple of kv_heads"),
        ({"decoder": {"layers": 0}}, r"decoder\.layers is 0; it must be positive"),
        ({"vision": {"image_size": 450}}, r"vision\.image_size is 450; it must be a multiple of patch_size"),
        ({"vision": {"drop_path": 1.0}}, r"vision\.drop_path is 1\.0"),
        ({"processor": {"vision_input_type": "tiles"}}, r"processor\.vision_input_type is 'tiles'"),
        ({"pooling_ratio": 3}, "pooling_ratio is 3"),
        ({"image_token_id": 128256}, "image_token_id is 128256"),
        ({"decoder": {"rope_scaling": {"factor": -1}}}, r"decoder\.rope_scaling\.factor is -1"),
    ],
)
def test_a_wrong_value_is_named(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PLMConfig.from_dict(values)


def test_pydantic_embeds_it_strictly() -> None:
    pydantic = pytest.importorskip("pydantic")
    adapter = pydantic.TypeAdapter(PLMConfig)
    assert adapter.validate_python({"vision": {"layers": 3}}).vision.layers == 3
    with pytest.raises(pydantic.ValidationError, match="lyers"):
        adapter.validate_python({"vision": {"lyers": 3}})


def test_importing_the_package_and_its_config_imports_no_torch() -> None:
    code = (
        "import sys, plm_model, plm_model.families.plm.settings; plm_model.PLMConfig; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_name_of_the_package_is_also_a_module() -> None:
    """Importing the module would put it in the place of the name."""
    modules = {module.name for module in pkgutil.iter_modules(plm_model.__path__)}
    assert not modules & set(plm_model.__all__)
