"""Which models are loaded, and as what."""

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from swirl_lightning.world_model.loading import kind_of, load_causal_lm


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("llama", AutoModelForCausalLM),
        ("gemma3", AutoModelForCausalLM),
        ("qwen2_5_vl", AutoModelForImageTextToText),
        ("qwen3_vl", AutoModelForImageTextToText),
        ("smolvlm", AutoModelForImageTextToText),
    ],
)
def test_a_vision_language_model_is_loaded_as_what_it_is(name, kind):
    assert kind_of(AutoConfig.for_model(name), name) is kind


@pytest.mark.parametrize("name", ["t5", "vit"])
def test_what_writes_no_text_from_left_to_right_is_refused_by_name(name, tmp_path):
    AutoConfig.for_model(name).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=rf"^world_model\.base: .* is a model of type '{name}', which does not write text"
    ) as error:
        load_causal_lm(str(tmp_path))
    assert len(str(error.value)) < 300
