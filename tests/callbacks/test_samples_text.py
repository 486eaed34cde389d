"""Sample texts as TensorBoard renders them."""

from swirl_lightning.callbacks.rollout_sampler import as_markdown
from tensorboard.plugin_util import markdown_to_safe_html

GRID = "# # #\n# @ #\n# # #"


def record(sample, state=GRID, action="turn left"):
    member = {"sample": sample, "reward": -0.25, "advantage": 1.5, "finished": True}
    return {"state": state, "inferred_action": action, "next_state": state, "members": [member]}


def test_grids_keep_their_lines():
    html = markdown_to_safe_html(as_markdown(record(GRID)))
    assert html.count(f"<code>{GRID}\n</code>") == 3  # state, next state, sample
    assert "reward -0.250, advantage +1.50" in html
    assert "<code>turn left</code>" in html


def test_short_samples_are_a_table():
    html = markdown_to_safe_html(as_markdown(record("agent 1 2", state="agent 1 1")))
    assert "<table>" in html
    assert "<td>-0.250</td>" in html
    assert "<code>agent 1 2</code>" in html


def test_backticks_bars_and_empty_samples_survive():
    html = markdown_to_safe_html(as_markdown(record("a ``b`` | c")))
    assert "<code>a ``b`` | c</code>" in html
    assert "(empty)" in markdown_to_safe_html(as_markdown(record("")))
    fenced = markdown_to_safe_html(as_markdown(record("```\nx\n```")))
    assert "<code>```\nx\n```\n</code>" in fenced
