"""What `transformers` wants to know about a tokenizer and a conversation: the files beside `tokenizer.json`.

The chat template renders what `plm_model.families.plm.conversation` encodes, but for the end of text after the last answer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plm_model.families.plm.tokenizer import Tokenizer

VIDEO, RESERVED = "<|video|>", "<|reserved_special_token_1|>"
BOS, EOT, END, IMAGE = "<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>", "<|image|>"

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- if messages[0]['role'] == 'system' -%}
    {%- set system = messages[0]['content'] if messages[0]['content'] is string else messages[0]['content'][0]['text'] -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set system = SYSTEM_PROMPT -%}
    {%- set turns = messages -%}
{%- endif -%}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + system | trim + '<|eot_id|>' -}}
{%- for turn in turns -%}
    {{- '<|start_header_id|>' + turn['role'] + '<|end_header_id|>\\n\\n' -}}
    {%- if turn['content'] is string -%}
        {{- turn['content'] | trim -}}
    {%- else -%}
        {%- for kind in ['image', 'video'] -%}
            {%- for part in turn['content'] | selectattr('type', 'equalto', kind) -%}
                {{- '<|' + kind + '|>' -}}
            {%- endfor -%}
        {%- endfor -%}
        {%- for part in turn['content'] | selectattr('type', 'equalto', 'text') -%}
            {{- part['text'] | trim -}}
        {%- endfor -%}
    {%- endif -%}
    {{- '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""


def hf_tokenizer_json(tokenizer: Tokenizer) -> tuple[bytes, list[str]]:
    """A tokenizer for `transformers`: the first reserved token becomes the video's, and a text gets BOS in front.

    One that has the video token already is kept byte for byte. Also returns a note when no token can stand for videos.
    """
    spec = json.loads(tokenizer.source)
    names = {token["content"] for token in spec["added_tokens"]}
    if VIDEO in names:
        return tokenizer.source, []
    if RESERVED not in names or tokenizer.inner.token_to_id(RESERVED) != tokenizer.image_id + 1:
        return tokenizer.source, [
            f"the tokenizer has no {RESERVED} after {IMAGE}, so transformers' processor cannot load it"
        ]
    for token in spec["added_tokens"]:
        token["content"] = VIDEO if token["content"] == RESERVED else token["content"]
    vocab = spec["model"]["vocab"]
    if RESERVED in vocab:
        vocab[VIDEO] = vocab.pop(RESERVED)
    spec["post_processor"] = spec.get("post_processor") or with_bos(tokenizer.bos_id)
    return json.dumps(spec, ensure_ascii=False).encode(), []


def with_bos(bos_id: int) -> dict[str, Any]:
    bos = {"SpecialToken": {"id": BOS, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {BOS: {"id": BOS, "ids": [bos_id], "tokens": [BOS]}},
    }


def tokenizer_config(tokenizer: Tokenizer, max_length: int) -> dict[str, Any]:
    """`tokenizer_config.json`: the special tokens by role, and which of them stand for media."""
    has_video = tokenizer.inner.token_to_id(VIDEO) is not None
    media = {"image_token": IMAGE, **({"video_token": VIDEO} if has_video else {})}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "PerceptionLMProcessor",
        "bos_token": BOS,
        "eos_token": EOT,
        "pad_token": END,
        **media,
        "extra_special_tokens": media,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",  # answers go on from the end of a row: padded there, the shorter of a batch is wrong
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
    }


def write_chat_template(directory: Path, system_prompt: str) -> None:
    """Write `chat_template.jinja` with this system prompt as the default."""
    quoted = json.dumps(system_prompt, ensure_ascii=False)
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE.replace("SYSTEM_PROMPT", quoted), encoding="utf-8")
