"""Environment variables that send lmms-eval's tasks, as of 0.7.3, to the gateway, so that no other judge is asked.

Not reached are tasks that ask without them: plm_videobench has the address and the key in its YAML files, captionqa sends no
key, phyx asks DeepSeek at a fixed address where its `quick_extract` is off.
"""

from __future__ import annotations

from collections.abc import Mapping

from components.evaluate.judge.gateway import Gateway
from components.evaluate.judge.settings import ROUTE

# Most tasks post to OPENAI_API_URL as it is; llm_judge adds the route to it once more, which the gateway takes.
WITH_ROUTE = ("OPENAI_API_URL", "LLM_JUDGE_URL", "MEGABENCH_OPEN_API_URL")
BASE = (
    "OPENAI_BASE_URL",
    "OPENAI_API_BASE",
    "JUDGE_BASE_URL",
    "BABYVISION_BASE_URL",
    "IMGEDIT_BASE_URL",
    "KRIS_BENCH_BASE_URL",
    "STRUCTEDITBENCH_BASE_URL",
    "VIESCORE_API_BASE",
    "WISE_BASE_URL",
)
AZURE = ("AZURE_ENDPOINT", "AZURE_OPENAI_ENDPOINT", "ENDPOINT_URL")  # without /v1
KEYS = (
    "OPENAI_API_KEY",
    "JUDGE_API_KEY",
    "AZURE_API_KEY",
    "AZURE_OPENAI_API_KEY",
    "BABYVISION_API_KEY",
    "IMGEDIT_API_KEY",
    "KRIS_BENCH_API_KEY",
    "MEGABENCH_OPEN_API_KEY",
    "STRUCTEDITBENCH_API_KEY",
    "VIESCORE_API_KEY",
    "WISE_API_KEY",
)
MODELS = (
    "MODEL_VERSION",
    "OPENAI_API_MODEL",
    "OPENAI_JUDGE_MODEL",
    "GPT_EVAL_MODEL_NAME",
    "DEPLOYMENT_NAME",
    "JUDGE_MODEL_NAME",
    "JUDGE_MODEL_VERSION",
    "BABYVISION_MODEL_NAME",
    "IMGEDIT_MODEL_NAME",
    "KRIS_BENCH_EVAL_MODEL_NAME",
    "KRIS_BENCH_JUDGE_MODEL_NAME",
    "MEGABENCH_OPEN_API_MODEL",
    "MULTI_CRIT_VERIFIER_MODEL",
    "STRUCTEDITBENCH_EVAL_MODEL_NAME",
    "STRUCTEDITBENCH_JUDGE_MODEL_NAME",
    "VIESCORE_MODEL_NAME",
    "WISE_MODEL_NAME",
)
HERE = "127.0.0.1"


def environment(gateway: Gateway, inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """What the evaluation's process needs to ask the gateway; goes over what it inherits, so that no real key is left there.

    `inherited` is the environment that it goes over: the hosts that its proxies leave out are kept.
    """
    before = inherited or {}
    without_proxy = {
        name: ",".join(filter(None, [before.get("NO_PROXY") or before.get("no_proxy"), HERE]))
        for name in ("NO_PROXY", "no_proxy")
    }
    return {
        "API_TYPE": "openai",
        **dict.fromkeys(WITH_ROUTE, gateway.base_url + ROUTE),
        **dict.fromkeys(BASE, gateway.base_url),
        **dict.fromkeys(AZURE, gateway.base_url.removesuffix("/v1")),
        **dict.fromkeys(KEYS, gateway.token),
        **dict.fromkeys(MODELS, gateway.model),
        **without_proxy,
    }
