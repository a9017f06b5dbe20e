"""LangChain's wrapper of OpenAI's images, which reads the URL of each picture and always names a size."""

import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from conftest import DEADLINE_SECONDS, Server
from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_image_wrapper(start_server: Callable[..., AbstractContextManager[Server]], tmp_path: Path) -> None:
    # It asks for 1024x1024 unless told otherwise, and sends no response_format.
    with start_server("--output-dir", str(tmp_path), "--bucket-policy", "nearest") as server:
        wrapper = DallEAPIWrapper(
            model="emoji-dit", api_key="unused", base_url=f"{server.url}/v1", n=2, quality="standard"
        )
        urls = wrapper.run("red apple").splitlines()
        assert len(urls) == 2
        for url in urls:
            assert url.startswith(f"{server.url}/v1/images/files/")
            with urllib.request.urlopen(url, timeout=DEADLINE_SECONDS) as picture:
                assert picture.read().startswith(PNG_SIGNATURE)
