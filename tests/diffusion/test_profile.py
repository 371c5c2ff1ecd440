"""A base's particulars are data: the bundled base by path is the bundled base by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from customedit import mini
from customedit.concepts.settings import TrainingSettings
from customedit.diffusion.base import Base
from customedit.diffusion.profile import FILE, Profile, Sizes, by_architecture
from customedit.errors import InputError
from customedit.mini import profile as bundled
from customedit.mini import vocabulary

from . import folders

SD1 = {"cross_attention_dim": 768, "sample_size": 64, "block_out_channels": [320, 640, 1280, 1280]}
SD2 = {**SD1, "cross_attention_dim": 1024, "sample_size": 96}
VAE = {"block_out_channels": [128, 256, 512, 512]}


def test_the_bundled_base_by_path_behaves_as_by_name(base: Base, tmp_path: Path) -> None:
    other = Base.load(folders.copied(tmp_path))
    assert other.name == str(tmp_path) and base.name == "mini"
    assert other.profile == base.profile and other.guidance == base.guidance == 4.0
    assert (other.side, other.multiple) == (base.side, base.multiple) == (128, 16)
    for way in ("custom-diffusion", "textual-inversion", "dreambooth"):
        assert TrainingSettings.of(other, way=way) == TrainingSettings.of(base, way=way)
    assert other.clip == tmp_path / "clip" and base.clip == mini.path() / "clip"
    assert other.fingerprint == base.fingerprint


def test_training_defaults_are_those_of_the_profile(base: Base) -> None:
    ours = TrainingSettings.of(base)
    assert (ours.steps, ours.rate, ours.class_images, ours.class_steps) == (250, 2e-4, 24, 15)
    assert TrainingSettings.of(base, way="dreambooth").rate == 1e-4
    inversion = TrainingSettings.of(base, way="textual-inversion")
    assert (inversion.steps, inversion.rate, inversion.class_images) == (250, 5e-3, 0)
    assert TrainingSettings.of(base, steps=7, rate=None).steps == 7


def test_the_shipped_profile_is_made_of_the_small_world() -> None:
    """If the world changed: python -m customedit.mini.profile."""
    shipped = Profile.read(mini.path())
    assert shipped == bundled.build()
    assert shipped.vocabulary == vocabulary.as_dict() and len(shipped.captions) == 200


@pytest.mark.parametrize(
    ("unet", "name", "side"),
    [(SD1, "Stable Diffusion 1.x", 512), (SD2, "Stable Diffusion 2.x", 768)],
)
def test_without_a_file_the_architecture_decides(
    unet: dict[str, Any], name: str, side: int, tmp_path: Path
) -> None:
    for part, config in (("unet", unet), ("vae", VAE)):
        folders.replace(tmp_path / part / "config.json", json.dumps(config))
    found = Profile.read(tmp_path)
    assert found == by_architecture(unet)
    assert (found.architecture, found.guidance, found.clip) == (name, 7.5, "")
    assert found.training.of("custom-diffusion") == {}  # those of TrainingSettings
    assert found.training.of("dreambooth") == {"rate": 5e-6}
    assert found.training.of("textual-inversion") == {"rate": 5e-3, "class_images": 0}
    assert len(found.captions) == 200 and "a photo of an apple" in found.captions
    assert Sizes.read(tmp_path, found) == Sizes(side=side, multiple=64, factor=8)


def test_a_profile_of_few_settings_leaves_the_rest_at_its_default(tmp_path: Path) -> None:
    text = '{"guidance": 3, "side": 256, "training": {"custom-diffusion": {"steps": 9}}}'
    folders.replace(tmp_path / FILE, text)
    found = Profile.read(tmp_path)
    assert (found.guidance, found.class_guidance, found.side) == (3, 6.0, 256)
    assert found.training.of("custom-diffusion") == {"steps": 9}
    assert found.training.of("dreambooth") == {"rate": 5e-6}
    assert Sizes.of(SD1, VAE, profile=found).side == 256


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "the file: "),
        ("{", "the file: "),
        ('{"guidance": "warm"}', "guidance: "),
        ('{"guidance": 51}', "guidance: .*50"),
        ('{"guidance": NaN}', "guidance|the file"),
        ('{"sides": 64}', "sides: Extra inputs are not permitted"),
        ('{"class_caption": "a photo"}', "class_caption"),
        ('{"class_caption": "{noun.__class__}"}', "class_caption"),
        ('{"clip": "../elsewhere"}', "clip"),
        ('{"clip": ".."}', "clip"),
        ('{"captions": []}', "captions"),
        ('{"version": 2}', "version"),
        ('{"training": {"dreambooth": {"rate": 0}}}', "training.dreambooth.rate"),
    ],
)
def test_profiles_that_are_not_valid_are_refused_by_setting(
    text: str, says: str, tmp_path: Path
) -> None:
    folders.replace(tmp_path / FILE, text)
    with pytest.raises(InputError, match=rf"base: .*{FILE} is not a valid profile: (?:{says})"):
        Profile.read(tmp_path)


def test_sizes_that_nothing_says_are_asked_for() -> None:
    for unet in ({**SD1, "sample_size": None}, {**SD1, "sample_size": [64, 32]}, {}):
        with pytest.raises(InputError, match="which sizes it was made for"):
            Sizes.of(unet, VAE, profile=Profile())
    for profile in (Profile(side=500), Profile(side=32)):
        with pytest.raises(InputError, match=r"side of its pictures, .* not a multiple of 64"):
            Sizes.of(SD1, VAE, profile=profile)
    square = {**SD1, "sample_size": [64, 64]}
    assert Sizes.of(square, VAE, profile=Profile()).side == 512


def test_a_profile_is_read_without_torch() -> None:
    code = (
        "import sys; from customedit.diffusion.folder import locate; "
        "from customedit.diffusion.profile import Profile, Sizes; folder, _ = locate('mini'); "
        "p = Profile.read(folder); assert Sizes.read(folder, p).side == 128; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_words_are_listed_where_they_are_few() -> None:
    assert set(Profile.read(mini.path()).words) == vocabulary.words()
    assert Profile().words == ()
