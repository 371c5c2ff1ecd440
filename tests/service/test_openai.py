"""The stock ``openai`` client edits pictures at a real service with a real worker."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image

from customedit.client import CustomEdit

from .conftest import LOOK, SOURCE, Service

pytestmark = pytest.mark.timeout(600)  # the first test starts the service

PROMPT = SOURCE.target_prompt(LOOK)


@pytest.fixture
def stock(service: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key=service.key, max_retries=0)


def shown(data: str | None) -> Image.Image:
    assert data is not None
    return Image.open(io.BytesIO(base64.b64decode(data)))


def mask(size: tuple[int, int]) -> bytes:
    """Transparent in the left half: there the picture may change."""
    picture = Image.new("RGBA", size, (0, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, size[0] // 2, size[1]))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def test_a_concept_a_mask_and_two_pictures(
    stock: openai.OpenAI, client: CustomEdit, concept: str
) -> None:
    source = Image.open(SOURCE.image).convert("RGB")
    answer = stock.images.edit(
        image=SOURCE.image.open("rb"),
        mask=("mask.png", mask(source.size), "image/png"),
        prompt=PROMPT,
        model="custom-edit",
        n=2,
        size="auto",
        extra_body={"steps": 4},
    )
    assert answer.data is not None and len(answer.data) == 2 and answer.output_format == "png"
    first, second = (np.asarray(shown(d.b64_json), np.int16) for d in answer.data)
    before = np.asarray(source, np.int16)
    assert first.shape == before.shape and (first != second).any()
    right, left = slice(-before.shape[1] // 4, None), slice(0, before.shape[1] // 4)
    assert (first[:, right] == before[:, right]).all()
    assert (first[:, left] != before[:, left]).any()
    job = client.jobs(kind="edit", limit=1).items[0]
    assert job.request["concepts"][0]["id"] == concept
    assert job.request["seeds"] == [0, 1] and job.request["mask_marks"] == "transparent"


def test_formats_and_addresses(stock: openai.OpenAI, client: CustomEdit, concept: str) -> None:
    answer = stock.images.edit(
        image=[SOURCE.image.open("rb")],
        prompt=PROMPT,
        output_format="jpeg",
        output_compression=50,
        extra_body={"steps": 2, "source_prompt": SOURCE.prompt, "change": 0.5},
    )
    assert answer.data is not None
    assert shown(answer.data[0].b64_json).format == "JPEG"
    assert client.jobs(kind="edit", limit=1).items[0].request["method"] == "p2p"
    answer = stock.images.edit(
        image=SOURCE.image.open("rb"),
        prompt="a red cup",
        model="mini",
        response_format="url",
        extra_body={"steps": 2},
    )
    assert answer.data is not None and answer.data[0].url is not None
    assert client.download(answer.data[0].url).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changed", "param", "words"),
    [
        ({"model": "gpt-image-2"}, "model", "no model gpt-image-2"),
        ({"size": "1024x1024"}, "size", "an edit has its picture's"),
        ({"quality": "high"}, "quality", "auto"),
        ({"background": "transparent"}, "background", "opaque"),
        ({"input_fidelity": "high"}, "input_fidelity", "not a field"),
        ({"user": "someone"}, "user", "not a field"),
        ({"partial_images": 2}, "partial_images", "not a field"),
        ({"output_format": "gif"}, "output_format", "png"),
        ({"n": 30}, "n", "at most 9"),
        ({"n": 2, "extra_body": {"source_prompt": "a cup"}}, "n", "the same"),
        ({"output_compression": 50}, "output_compression", "no effect"),
        ({"prompt": "a <nobody> cup"}, "prompt", "<nobody>"),
        ({"image": ("a.png", b"no picture at all", "image/png")}, "image", "PNG"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_what_is_not_supported_is_refused_by_name(
    stock: openai.OpenAI, changed: dict[str, Any], param: str, words: str
) -> None:
    given: dict[str, Any] = {"image": SOURCE.image.read_bytes(), "prompt": "a red cup"}
    with pytest.raises(openai.BadRequestError) as refused:
        stock.images.edit(**given | changed)
    error = refused.value
    assert error.param == param and words in error.message, error.message
    assert error.type == "invalid_request_error"
    if param == "model":
        assert error.code == "model_not_found"


def test_a_mask_without_transparency_is_refused(stock: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no transparency") as refused:
        stock.images.edit(
            image=SOURCE.image.read_bytes(), mask=SOURCE.image.read_bytes(), prompt="a red cup"
        )
    assert refused.value.param == "mask"


def test_a_wrong_key_is_an_authentication_error(service: Service) -> None:
    stranger = openai.OpenAI(base_url=f"{service.url}/v1", api_key="sk-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as refused:
        stranger.images.edit(image=SOURCE.image.read_bytes(), prompt="a red cup")
    assert refused.value.type == "authentication_error"
