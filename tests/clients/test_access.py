"""Keys and limits, as the stock OpenAI client meets them."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from conftest import Server
from openai import AuthenticationError, OpenAI, RateLimitError

QUICK = {"num_inference_steps": 1}


def test_keys_and_rates(start_server: Callable[..., AbstractContextManager[Server]]) -> None:
    with start_server("--api-key", "alice:sk-a", "--rate-limit", "1") as server:
        client = OpenAI(base_url=f"{server.url}/v1", api_key="sk-a", max_retries=0)
        assert client.images.generate(prompt="red apple", extra_body=QUICK).data
        with pytest.raises(RateLimitError) as limited:
            client.images.generate(prompt="red apple", extra_body=QUICK)
        assert limited.value.code == "rate_limited"
        assert 1 <= int(limited.value.response.headers["retry-after"]) <= 60
        assert client.models.list().data
        with pytest.raises(AuthenticationError) as refused:
            client.with_options(api_key="sk-b").models.list()
        assert refused.value.code == "invalid_api_key"
