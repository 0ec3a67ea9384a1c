"""What `transformers` writes we read, what we write `transformers` reads, and what does not fit is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from plm_model.answers.options import GenerationOptions
from plm_model.families.plm.answer import image_prompt, prompt, text_prompt
from plm_model.families.plm.codec import Codec
from plm_model.families.plm.collator import collate
from plm_model.families.plm.generation import generate
from plm_model.families.plm.layouts.detect import open_model, read_directory, write_directory
from plm_model.families.plm.layouts.hf_config import read_config
from plm_model.families.plm.model import PLM
from plm_model.families.plm.settings import PLMConfig, ProcessorConfig
from plm_model.families.plm.tiles import tile_image
from plm_model.families.plm.weights import save_model
from plm_model.model_directory.safetensors_writer import WeightsError
from plm_model.nn.config import RopeScaling
from plm_model.packs.example import Example
from plm_model.records.record import Record, parse_record
from tests.plm_model.model_directories import (
    IDS,
    SCALED,
    UNTIED,
    VARIANTS,
    own_directory,
    reference_directory,
    tokenizer,
)

pytest.importorskip("timm")
from transformers import AutoProcessor, PerceptionLMForConditionalGeneration


def photo(size: tuple[int, int], seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def record(question: str) -> Record:
    turn = {"from": "human", "value": question}
    return parse_record({"id": "1", "image": "x.png", "conversations": [turn]})


def normalised(tiles: np.ndarray) -> torch.Tensor:
    return ((torch.from_numpy(tiles).float() / 255 - 0.5) / 0.5)[None]


def their_logits(model: torch.nn.Module, tokens: torch.Tensor, tiles: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=tokens[None], pixel_values=normalised(tiles)).logits[0]


def our_logits(model: PLM, codec: Codec, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Our scores at every position of a prompt, its tokens and its tiles."""
    tiles = tile_image(photo(size), codec.config.processor, codec.config.vision.image_size)
    prompt = codec.prompt(record("Which digit?"), [len(tiles)])
    asked = replace(prompt, targets=np.zeros_like(prompt.tokens))
    batch = collate([asked], [tiles], codec.config)
    with torch.no_grad():
        return model.logits(batch), batch.tokens, tiles


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_what_transformers_saved_gives_its_logits(config: PLMConfig, tmp_path: Path) -> None:
    reference = reference_directory(tmp_path, config, shard="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    model, own_tokenizer = open_model(tmp_path)
    assert replace(model.config, vision=replace(model.config.vision, drop_path=0.1)) == config
    logits, tokens, tiles = our_logits(model, Codec(own_tokenizer, model.config), (150, 60))
    torch.testing.assert_close(logits, their_logits(reference, tokens, tiles), atol=1e-4, rtol=0)
    assert logits.std() > 0.1 and len(tiles) > 2


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_transformers_loads_what_we_write(config: PLMConfig, tmp_path: Path) -> None:
    model = own_directory(tmp_path / "own", config)
    notes = write_directory(read_directory(tmp_path / "own"), tmp_path / "hf", "hf")
    reference, report = PerceptionLMForConditionalGeneration.from_pretrained(
        tmp_path / "hf", output_loading_info=True, dtype=torch.float32
    )
    assert notes == [] and not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    logits, tokens, tiles = our_logits(model.eval(), Codec(tokenizer(), config), (150, 60))
    torch.testing.assert_close(logits, their_logits(reference.eval(), tokens, tiles), atol=1e-4, rtol=0)


def test_reading_back_gives_the_same_model(tmp_path: Path) -> None:
    processor = ProcessorConfig(
        vision_input_type="tile", max_num_tiles=1, jpeg_dct_scaling=True, system_prompt='Say "yes".'
    )
    config = replace(SCALED, processor=processor)
    model = own_directory(tmp_path / "own", config, torch.bfloat16)
    write_directory(read_directory(tmp_path / "own"), tmp_path / "hf", "hf")
    back = read_directory(tmp_path / "hf")
    assert back.config == config and back.layout == "hf" and back.notes == ()
    assert back.dtype == torch.bfloat16
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in back.stream())


def test_the_processor_loads_and_gives_our_prompt_and_pixels(tmp_path: Path) -> None:
    config = replace(SCALED, processor=ProcessorConfig(max_num_tiles=4))
    own_directory(tmp_path / "own", config)
    write_directory(read_directory(tmp_path / "own"), tmp_path / "hf", "hf")
    processor = AutoProcessor.from_pretrained(tmp_path / "hf")
    image = photo((100, 60))
    content = [{"type": "image"}, {"type": "text", "text": "Which digit?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    theirs = processor(images=[image], text=text, add_special_tokens=False, return_tensors="pt")
    tiles = tile_image(image, config.processor, 56)
    prompt = Codec(tokenizer(), config).prompt(record("Which digit?"), [len(tiles)])
    assert theirs["input_ids"][0].tolist() == prompt.tokens.tolist()
    assert (theirs["pixel_values"][0] - normalised(tiles)[0]).abs().max() < 3 / 255


def test_a_directory_without_processor_files_takes_the_towers_defaults_and_says_so(tmp_path: Path) -> None:
    reference_directory(tmp_path)
    opened = read_directory(tmp_path)
    assert opened.config.processor == ProcessorConfig()
    assert "no processor files: assuming the tower's tiles of 56x56" in opened.notes[0]
    with pytest.warns(UserWarning, match="no processor files"):
        open_model(tmp_path)


def test_what_transformers_leaves_out_of_a_config_is_its_default(tmp_path: Path) -> None:
    reference_directory(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    # As version 4 wrote it: scaling apart from theta, nothing that equals a default.
    rope = values["text_config"].pop("rope_parameters")
    values["text_config"] |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    for key in ("head_dim", "hidden_act", "attention_bias", "mlp_bias"):
        values["text_config"].pop(key, None)
    values.pop("tie_word_embeddings")
    path.write_text(json.dumps(values))
    before = replace(SCALED, vision=replace(SCALED.vision, drop_path=0.1))
    assert read_directory(tmp_path).config == before


def rewrite(directory: Path, change: dict[str, torch.Tensor | None]) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(file) | change
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file)


QUERIES = "model.language_model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({QUERIES: None}, f"tensor {QUERIES} is missing"),
        ({"model.extra": torch.zeros(2)}, "tensor model.extra is not part of the model"),
        ({QUERIES: torch.zeros(3, 64)}, rf"tensor {QUERIES} has shape \(3, 64\), the model's is \(64, 64\)"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    change: dict[str, torch.Tensor | None], message: str, tmp_path: Path
) -> None:
    reference_directory(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(WeightsError, match=message):
        read_directory(tmp_path)


def test_what_older_versions_stored_too_is_passed_over(tmp_path: Path) -> None:
    embedding = reference_directory(tmp_path).get_input_embeddings().weight.data
    key = "model.language_model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(tmp_path, {key: torch.zeros(8), "lm_head.weight": embedding.clone()})
    assert read_directory(tmp_path).config.decoder.tied


@pytest.mark.case("E3")
def test_an_output_that_is_not_the_embedding_is_kept_though_the_config_says_tied(tmp_path: Path) -> None:
    embedding = reference_directory(tmp_path).get_input_embeddings().weight.data
    head = embedding.clone()
    head[-1, -1] += 1
    rewrite(tmp_path, {"lm_head.weight": head})
    opened = read_directory(tmp_path)
    assert not opened.config.decoder.tied
    assert torch.equal(dict(opened.stream())["output.weight"], head)
    assert any("lm_head.weight is not the embedding" in note for note in opened.notes)
    write_directory(opened, tmp_path / "again", "hf")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["tie_word_embeddings"] is False
    assert torch.equal(load_file(tmp_path / "again" / "model.safetensors")["lm_head.weight"], head)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        (None, {"model_type": "llava"}, "model_type is 'llava'"),
        ("text_config", {"attention_bias": True}, "text_config.attention_bias is True"),
        ("vision_config", {"architecture": "resnet50"}, "architecture is 'resnet50'"),
        ("text_config", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type is 'yarn'"),
    ],
)
def test_another_architecture_is_refused(section: str | None, change: dict, message: str, tmp_path: Path) -> None:
    reference_directory(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    (values[section] if section else values).update(change)
    path.write_text(json.dumps(values))
    with pytest.raises(WeightsError, match=message):
        read_directory(tmp_path)


def test_the_tokenizer_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    model = own_directory(tmp_path / "own", UNTIED)
    other = replace(UNTIED, image_token_id=5)
    save_model(model, other, tokenizer(), tmp_path / "other")
    with pytest.raises(WeightsError, match=r"<\|image\|> is 1002; the model has 1,010 and 5"):
        read_directory(tmp_path / "other")


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_greedy_answers_are_those_of_transformers_alone_and_in_a_batch_of_four(
    config: PLMConfig, tmp_path: Path
) -> None:
    reference = reference_directory(tmp_path, config)
    model, own_tokenizer = open_model(tmp_path)
    processor = ProcessorConfig(max_num_tiles=4)
    codec = Codec(own_tokenizer, replace(model.config, processor=processor))
    frames = np.random.default_rng(0).integers(0, 256, (8, 3, 56, 56), dtype=np.uint8)
    prompts = [
        image_prompt(codec, "Which digit is in the image?", [photo((100, 60))]),
        image_prompt(codec, "Describe the picture, and say how many people are in it.", [photo((30, 200), 1)]),
        text_prompt(codec, "What is two and two?"),
        prompt(codec, "What happens in the video?", [frames]),
    ]
    kinds = ("pixel_values", "pixel_values", "", "pixel_values_videos")
    expected = [their_answer(reference, *one, kind) for one, kind in zip(prompts, kinds, strict=True)]
    options = GenerationOptions(max_new_tokens=12)
    together = generate(model, own_tokenizer, prompts, options)
    assert [answer.token_ids for answer in together] == expected
    alone = [generate(model, own_tokenizer, [prompt], options)[0] for prompt in prompts]
    assert [answer.token_ids for answer in alone] == expected
    assert len({tuple(tokens) for tokens in expected}) > 1


def their_answer(
    reference: PerceptionLMForConditionalGeneration, example: Example, tiles: np.ndarray, kind: str
) -> list[int]:
    """Their greedy answer; frames have a token of their own there."""
    ids = torch.from_numpy(example.tokens).long()[None]
    if kind == "pixel_values_videos":
        ids = torch.where(ids == SCALED.image_token_id, IDS["video"], ids)
    stops = [1001, 1009]
    whole = reference.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        **({kind: normalised(tiles)} if kind else {}),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=stops,
        pad_token_id=stops[0],
    )[0, example.length :].tolist()
    return [token for token in whole if token not in stops]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of ours in this layout, as a person who has `transformers` alone gets it."""
    folder = tmp_path_factory.mktemp("exported")
    reference_directory(folder / "theirs")
    write_directory(read_directory(folder / "theirs"), folder / "hf", "hf")
    return folder / "hf"


def chat(question: str, kind: str = "") -> list[dict[str, object]]:
    media = [{"type": kind}] if kind else []
    return [{"role": "user", "content": [*media, {"type": "text", "text": question}]}]


@pytest.mark.case("E13")
def test_a_batch_of_two_chats_of_an_export_gives_our_answers_in_transformers(exported: Path) -> None:
    questions = ["What is two and two?", "Describe the weather of the last week, day by day, and what comes next."]
    processor = AutoProcessor.from_pretrained(exported)
    inputs = processor.apply_chat_template(
        [chat(question) for question in questions],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        padding=True,
        return_tensors="pt",
    )
    theirs = PerceptionLMForConditionalGeneration.from_pretrained(exported, dtype=torch.float32)
    whole = theirs.generate(**inputs, max_new_tokens=12)[:, inputs["input_ids"].shape[1] :].tolist()
    model, own_tokenizer = open_model(exported)
    prompts = [text_prompt(Codec(own_tokenizer, model.config), question) for question in questions]
    ours = generate(model, own_tokenizer, prompts, GenerationOptions(max_new_tokens=12))
    stops = {IDS["end_of_text"], IDS["eot"]}
    assert [[token for token in row if token not in stops] for row in whole] == [answer.token_ids for answer in ours]
    assert inputs["attention_mask"].sum(1).tolist() == [example.length for example, _ in prompts]
    assert len({tuple(answer.token_ids) for answer in ours}) == 2


@pytest.mark.case("E13")
def test_a_long_video_has_as_many_frames_in_transformers_as_in_ours(exported: Path) -> None:
    video = np.random.default_rng(0).integers(0, 256, (150, 56, 56, 3), dtype=np.uint8)
    processor = AutoProcessor.from_pretrained(exported)
    text = processor.apply_chat_template(chat("What happens?", "video"), add_generation_prompt=True)
    inputs = processor(videos=[video], text=text, add_special_tokens=False, return_tensors="pt")
    shown = [number * 150 // 32 for number in range(32)]
    frames = np.ascontiguousarray(video[shown].transpose(0, 3, 1, 2))
    torch.testing.assert_close(inputs["pixel_values_videos"], normalised(frames), atol=1e-6, rtol=0)
    model, own_tokenizer = open_model(exported)
    one = prompt(Codec(own_tokenizer, model.config), "What happens?", [frames])
    ids = torch.where(inputs["input_ids"] == IDS["video"], SCALED.image_token_id, inputs["input_ids"])
    assert ids[0].tolist() == one[0].tokens.tolist()
    theirs = PerceptionLMForConditionalGeneration.from_pretrained(exported, dtype=torch.float32)
    ours = generate(model, own_tokenizer, [one], GenerationOptions(max_new_tokens=12))[0]
    answer = theirs.generate(**inputs, max_new_tokens=12)[0, one[0].length :].tolist()
    assert [token for token in answer if token not in (IDS["end_of_text"], IDS["eot"])] == ours.token_ids


PUBLISHED = {
    "model_type": "perception_lm",
    "image_token_id": 128002,
    "projector_pooling_ratio": 2,
    "vision_use_cls_token": True,
    "text_config": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        | {"original_max_position_embeddings": 8192},
        "max_position_embeddings": 11520,
        "tie_word_embeddings": True,
    },
    "vision_config": {
        "model_type": "timm_wrapper",
        "architecture": "vit_pe_core_large_patch14_336",
        "global_pool": "map",
        "model_args": {"embed_dim": 1024, "depth": 23, "img_size": [448, 448], "global_pool": "", "init_values": 0.1}
        | {"use_post_transformer_norm": False, "ref_feat_shape": [32, 32]},
    },
}


def test_the_published_configs_are_understood() -> None:
    small, notes = read_config(PUBLISHED, {"tile_size": 448, "max_num_tiles": 36}, has_head=False)
    scaling = RopeScaling()
    plain = PLMConfig()
    vision, decoder = replace(plain.vision, drop_path=0.0), replace(plain.decoder, rope_scaling=scaling)
    assert small == replace(plain, vision=vision, decoder=decoder) and notes == []
    tower = {"architecture": "vit_pe_core_gigantic_patch14_448"}
    tower["model_args"] = PUBLISHED["vision_config"]["model_args"] | {"embed_dim": 1536, "depth": 47}
    text = {"vocab_size": 128256, "intermediate_size": 14336, "num_key_value_heads": 8, "rope_theta": 500000.0}
    values = PUBLISHED | {"vision_config": tower, "text_config": text, "vision_use_cls_token": False}
    large, notes = read_config(values, None, has_head=True)
    assert (large.vision.hidden_dim, large.vision.heads, large.vision.layers) == (8960, 16, 47)
    assert (large.decoder.dim, large.decoder.layers, large.decoder.tied) == (4096, 32, False)
    assert large.decoder.rope_scaling is None and "448x448" in notes[0]
