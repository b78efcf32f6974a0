"""report: the numbers are those of the build, the page needs nothing, and data on it runs nothing."""

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from prep.build.job import build, make_job
from prep.build.options import BuildOptions
from prep.cli.main import app
from prep.inspect.show import show_conversation
from prep.mixture.mixture import parse_mixture
from prep.report import numbers
from prep.report.charts import percent
from prep.report.page import CSS, make_page, open_report
from prep.shard import Split, batches, open_shards
from prep.shard.steps import plan_steps
from prep.text import visible
from prep.tokenizer.load import load_tokenizer

EVIL = "<script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">\x1b[31m\u202e"
LINES = [{"messages": [{"role": "user", "content": EVIL}, {"role": "assistant", "content": f"no: {EVIL}"}]}] * 40
MIXTURE = {
    "seed": 42,
    "train": [
        {"task": "chat", "name": "mine<script>document.title='hacked'</script>", "path": "mine.jsonl"},
        {"task": "simple_spelling", "size": 900},
        {"task": "arithmetic", "size": 300},
    ],
    "val": [{"task": "spelling_bee", "size": 20}],
}


def make_build(folder: Path, packing: str) -> Path:
    lines = [json.dumps(line) for line in LINES] + ['{"messages": "' + EVIL[:60].replace('"', "'")]
    (folder / "mine.jsonl").write_text("\n".join(lines) + "\n")
    options = BuildOptions(
        max_seq_len=256, packing=packing, cache_dir=folder / "cache", workers=1, quiet=True, max_rejected=1.0
    )
    build(make_job(parse_mixture(MIXTURE, "test", folder, "tiny"), load_tokenizer(), options), folder / packing)
    return folder / packing


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_build(tmp_path_factory.mktemp("report"), "bfd")


@pytest.fixture(scope="session")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_build(tmp_path_factory.mktemp("wrapped"), "wrapped")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    records: list[dict[str, Any]] = [
        {"step": i, "num_steps": 90, "loss": 5 - i / 20, "lrm": 1.0, "dt": 0.5, "tokens_per_second": 2000.0, "mfu": 0.0,
         "loss_by_source": {"<b>arithmetic": 5 - i / 20}} for i in range(80)
    ]  # fmt: skip
    records[0] |= {"val_bpb_before": 2.5, "val_bpb_by_source_before": {"spelling_bee": 2.5}}
    records[79] |= {"val_bpb": 1.25, "val_bpb_by_source": {"spelling_bee": 1.25}}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture(scope="session")
def page(root: Path, run: Path) -> Path:
    output = root.parent / "report.html"
    command = ["report", str(root), "-o", str(output), "--run", str(run)]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    return output


def test_a_run_on_another_build_is_refused(root: Path, wrapped: Path, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    meta = {"midprep": {"identity": {"shards": open_shards(wrapped).manifest["fingerprint"]}}}
    (tmp_path / "meta_000080.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="is a run on another build"):
        make_page(open_report(root, "train"), [tmp_path])
    assert make_page(open_report(wrapped, "train"), [tmp_path])


def train_of(root: Path) -> Split:
    return open_shards(root).split("train")


# ---- numbers ----


@pytest.mark.parametrize("packing", ["root", "wrapped"])
def test_one_pass_over_the_documents_counts_what_is_there(
    packing: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = train_of(request.getfixturevalue(packing))
    steps = plan_steps(split, "mid", 256 * 4, 1.0, 42)
    whole = numbers.scan_docs(split, steps)
    monkeypatch.setattr(batches, "CHUNK_DOCS", 97)
    for scan in (whole, numbers.scan_docs(split, steps)):
        for k in range(3):
            assert scan.samples[k]
            assert {int(split.docs["source"][doc]) for doc in scan.samples[k]} == {k}
        for step in range(steps.num_steps):
            tokens = np.zeros(3)
            for row in steps.rows_of_step(step):
                for doc in range(*split.doc_range(int(row))) if row >= 0 else ():
                    tokens[split.docs["source"][doc]] += split.docs["length"][doc]
            assert scan.step_tokens[step].tolist() == tokens.tolist()


def test_the_mask_share_of_a_position_is_that_of_the_conversations(root: Path) -> None:
    split, tokenizer = train_of(root), load_tokenizer(root)
    found = numbers.mask_by_position(split)
    assert found.num_rows == split.num_rows
    trained, tokens = np.zeros(len(found.edges) - 1), np.zeros(len(found.edges) - 1)
    for doc in range(split.entry["docs"]):
        shown = show_conversation(split, tokenizer, doc)
        row = split.read_mask(np.array([shown["row"]]))[0, shown["position"] :][: shown["length"]]
        for position, mask in enumerate(row.tolist(), start=1):
            place = int(np.flatnonzero(found.edges <= position)[-1])
            trained[place], tokens[place] = trained[place] + mask, tokens[place] + 1
    assert found.tokens.sum(axis=0).tolist() == tokens.tolist()
    assert found.trained.sum(axis=0).tolist() == trained.tolist()


def test_conversations_that_cross_rows_count_from_their_beginning(wrapped: Path) -> None:
    found = numbers.mask_by_position(train_of(wrapped))
    assert found.tokens[:, 0].sum() == found.num_documents
    assert found.trained[:, 0].sum() == 0


def test_rows_are_counted_by_their_padding(root: Path) -> None:
    split = train_of(root)
    found = numbers.padding_by_row(split)
    assert sum(number for _, number in found) == split.num_rows
    assert dict(found)["none"] == int((split.rows["num_tokens"] == 257).sum())


def test_small_shares_are_not_rounded_to_nothing() -> None:
    shares = (0.0, 0.0001, 0.5, 0.9999, 1.0)
    assert [percent(share) for share in shares] == ["0.0%", "< 0.1%", "50.0%", "100%", "100%"]


# ---- the page ----


def test_the_page_has_every_section_and_its_numbers(root: Path, page: Path) -> None:
    text, entry = " ".join(page.read_text().split()), train_of(root).entry
    for section in [
        "way",
        "shares",
        "lengths",
        "mask",
        "rows",
        "mixing",
        "samples",
        "rejected",
        "run",
        "launch",
        "built",
    ]:
        assert f'<section id="{section}"' in text
    for number in (entry["conversations"], entry["rows"], entry["min_rows"], entry["total_tokens"]):
        assert f"{number:,}" in text
    assert open_shards(root).manifest["fingerprint"] in text
    assert "The mean loss went from 4.7750 in the first steps to 1.2750 in the last" in text
    assert "80 of 90 steps" in text
    assert 'id="overlap"' not in text  # the manifest has none
    assert len(text) < 2_000_000


def test_duplicates_and_overlap_are_shown_when_the_manifest_has_them(root: Path) -> None:
    report = open_report(root, "train")
    report.shards.manifest["splits"]["train"]["overlap"] = {"val": {"exact": 1234, "of": ["<i>spelling"]}}
    text = make_page(report)
    assert 'id="overlap"' in text
    assert ">1,234</td>" in text
    assert "&lt;i&gt;spelling" in text


def test_sources_whose_shares_differ_by_more_than_three_times_are_named(root: Path) -> None:
    report = open_report(root, "train")
    assert report.uneven() == []
    assert "similar shares: no source differs by more than three times" in make_page(report)
    report.stats["sources"][0]["shares"]["trainable_tokens"] /= 10
    a, b, c = (percent(share) for share in report.shares[:, 0])
    name = "mine&lt;script&gt;document.title=&#39;hacked&#39;&lt;/script&gt;"
    sentence = f"{name} is {a} of the conversations, {b} of the tokens and {c} of the loss tokens."
    assert sentence in " ".join(make_page(report).split())


def test_text_of_the_data_is_shown_to_the_letter(root: Path) -> None:
    report = open_report(root, "train")
    turns = next(turns for k, _, turns in report.samples() if k == 0)
    assert [[piece.text for piece in turn] for turn in turns] == [
        ["bos", "user_start", EVIL, "user_end"], ["assistant_start", f"no: {EVIL}", "assistant_end"],
    ]  # fmt: skip
    shown = html.escape(visible(EVIL), quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    assert f"<i>user_start</i>{shown}<i>user_end</i></div>" in make_page(report)


def test_the_page_loads_nothing_and_holds_no_script(page: Path) -> None:
    text = page.read_text()
    assert "<script" not in text.lower()
    assert not re.findall(r'<(?:img|link|iframe|object|embed|form)(?! rel="icon" href="data:,")', text)
    assert not re.findall(r"(?:src|href|action)=[\"'](?!#|data:,)", text)
    assert "url(" not in text
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "&lt;script&gt;document.title=" in text


def contrast(one: str, two: str) -> float:
    """WCAG's contrast of two colours, #rgb or #rrggbb"""
    lights = []
    for text in (one.lstrip("#"), two.lstrip("#")):
        digits = text if len(text) == 6 else "".join(2 * digit for digit in text)
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        lights.append(0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_enough_contrast(scheme: int) -> None:
    block = re.findall(r":root \{(.*?)\}", CSS.read_text(), re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block))
    pairs = [("ink", "paper"), ("soft", "paper"), ("ink", "wash"), ("trained-ink", "trained"), ("accent", "paper")]
    pairs += [("on", f"c{i}") for i in range(10)] + [("special", "paper")]
    low = {pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2) for pair in pairs}
    assert {pair: number for pair, number in low.items() if number < 4.5} == {}
    assert min(contrast(colours[f"c{i}"], colours["paper"]) for i in range(10)) > 3


# ---- in a browser ----


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_a_browser_shows_it_without_a_word_and_runs_nothing(page: Path, chromium: Any, width: int, scheme: str) -> None:
    view = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.on("request", lambda request: asked.append(request.url))
    view.goto(page.as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert view.title() == "tiny – midprep report"
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    assert view.locator("svg:not([role=img][aria-label])").count() == 0
    paper = view.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(19, 20, 23)" if scheme == "dark" else "rgb(253, 252, 250)")
    view.close()


CLIPPED = """() => [...document.querySelectorAll("body *")].filter(element => {
  const style = getComputedStyle(element), box = element.getBoundingClientRect();
  if (!box.width || style.opacity === "0" || element.closest("svg, .skip")) return false;
  const inner = way => ["hidden", "clip", "auto", "scroll"].includes(way);
  return (inner(style.overflowX) && element.clientWidth && element.scrollWidth > element.clientWidth)
    || (inner(style.overflowY) && element.clientHeight && element.scrollHeight > element.clientHeight + 1)
    || box.left < -0.5 || box.right > innerWidth + 0.5;
}).map(element => element.outerHTML.slice(0, 200))"""


def test_on_a_phone_nothing_is_clipped_or_scrolls_by_itself(page: Path, chromium: Any) -> None:
    view = chromium.new_page(viewport={"width": 360, "height": 800})
    view.goto(page.as_uri())
    view.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert view.evaluate(CLIPPED) == []
    unnamed = "[...document.querySelectorAll('td')].filter(cell => !cell.dataset.label).map(cell => cell.outerHTML)"
    assert view.evaluate(unnamed) == []
    view.close()


def test_the_filter_works_with_the_keyboard_alone(page: Path, chromium: Any) -> None:
    view = chromium.new_page()
    view.goto(page.as_uri())

    def shown() -> dict[str, int]:
        return {name: view.locator(f".talk.{name}:visible").count() for name in ("s0", "s1", "s2")}

    everything = shown()
    assert min(everything.values()) > 0
    while view.evaluate("document.activeElement.id") != "f-all":
        view.keyboard.press("Tab")
        assert view.evaluate("document.activeElement !== document.body")
    view.keyboard.press("ArrowRight")
    assert shown() == {"s0": everything["s0"], "s1": 0, "s2": 0}
    view.keyboard.press("ArrowRight")
    assert shown() == {"s0": 0, "s1": everything["s1"], "s2": 0}
    view.locator("label[for=f-all]").click()
    assert shown() == everything
    view.close()


def test_it_prints_without_what_only_a_screen_needs(page: Path, chromium: Any) -> None:
    view = chromium.new_page(color_scheme="dark")
    view.goto(page.as_uri())
    view.emulate_media(media="print")
    assert view.locator("nav:visible").count() == 0
    assert view.locator(".filter:visible").count() == 0
    assert view.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert view.pdf()[:4] == b"%PDF"
    view.close()


# ---- runs ----


def write_run(folder: Path, losses: list[float], batch: int, **identity: Any) -> Path:
    folder.mkdir(parents=True)
    records = [
        {"step": i, "num_steps": len(losses), "loss": loss, "lrm": 1.0, "dt": 0.5, "tokens_per_second": 2.0 * batch,
         "loss_by_source": {"a<b": loss}} for i, loss in enumerate(losses)
    ]  # fmt: skip
    records[-1] |= {"val_bpb": losses[-1] / 2, "val_bpb_by_source": {"val": losses[-1] / 2}}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "meta_000001.json").write_text(json.dumps({"midprep": {"identity": identity}}))
    return folder


def report_of(*words: object) -> str:
    output = next(Path(str(word)) for word in words if str(word).endswith(".html"))
    done = CliRunner().invoke(app, ["report", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.stdout
    return " ".join(output.read_text().split())


def test_runs_stand_side_by_side_without_a_build_and_means_are_compared(tmp_path: Path) -> None:
    noisy = [3.0] * 20 + [2.0] * 9 + [9.0]  # the last step is far from the ones before it
    few = write_run(tmp_path / "few", noisy, 1000, mode="mid", shards="f" * 64, depth=4, base=None)
    many = write_run(tmp_path / "many", [3.0] * 20 + [2.5] * 40, 2000, mode="mid", shards="e" * 64, depth=4)
    text = report_of(few, many, "-o", tmp_path / "runs.html")
    cells = re.findall(r"<tr><th scope=\"row\">([^<]*)</th>(.*?)</tr>", text)
    table = {name: re.findall(r"<td data-label=\"([^\"]*)\">([^<]*)</td>", row) for name, row in cells}
    assert table["Mean loss, last steps"] == [(str(few), "2.7000"), (str(many), "2.5000")]
    assert table["Tokens"] == [(str(few), "30,000"), (str(many), "120,000")]
    assert table["Build"] == [(str(few), "f" * 12), (str(many), "e" * 12)]
    assert table["a&lt;b"][:2] == [
        (f"Mean loss, last steps, {few}", "2.7000"), (f"Mean loss, last steps, {many}", "2.5000"),
    ]  # fmt: skip
    charts = re.findall(r"<h3>([^<]*)</h3>", text)
    assert charts[:3] == ["Loss", "Loss, by tokens", "Learning rate multiplier"]  # one evaluation each: no line
    loss = text.split("<h3>Loss</h3>")[1].split("</svg>")[0]
    assert [f"stroke:var(--c{k})" in loss for k in range(3)] == [True, True, False]
    assert "These runs differ in mode or build" in text
    for word in ("default-src 'none'", "<!doctype html>"):
        assert word in text


def test_right_answers_are_drawn_over_the_steps_at_which_a_run_was_asked(tmp_path: Path) -> None:
    run = write_run(tmp_path / "asked", [3.0] * 10, 1000, mode="mid")
    assert "Right answers" not in report_of(run, "-o", tmp_path / "not-asked.html")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    records[4]["chat_core"], records[9]["chat_core"] = 0.25, 0.75
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    text = report_of(run, "-o", tmp_path / "asked.html")
    assert "Right answers over chance, 0 for guessing, 1 for all right, from step 5 to 10: 0.25 to 0.75" in text


def test_runs_of_one_batch_size_are_drawn_by_steps_alone(root: Path, tmp_path: Path) -> None:
    shards = open_shards(root).manifest["fingerprint"]
    a, b = (write_run(tmp_path / name, [3.0, 2.0], 1000, mode="mid", shards=shards) for name in "ab")
    text = report_of(root, "--run", a, "--run", b, "-o", tmp_path / "page.html")
    assert "by tokens" not in text
    assert "differ in mode or build" not in text
    assert f"{a}</li>" in text
    assert "The runs side by side" in text


def test_a_report_of_one_run_needs_no_build(run: Path, tmp_path: Path) -> None:
    text = report_of(run, "-o", tmp_path / "run.html")
    assert "The mean loss went from 4.7750" in text
    assert "<script" not in text
    assert "&lt;b&gt;arithmetic" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["BUILD", "RUN"], "is a build: give it alone, and its runs with --run; or give runs only"),
        (["RUN", "RUN"], "is given twice: give each run once"),
        (["RUN", "GONE"], "no metrics.jsonl in"),
        (["RUN", "--split", "val"], "--split has no effect with runs instead of a build"),
        (["RUN", "--run", "RUN"], "--run has no effect with runs instead of a build"),
        (["GONE"], "is not a finished build|not found"),
    ],
)
def test_what_is_no_build_and_no_run_is_one_line(
    words: list[str], message: str, root: Path, run: Path, tmp_path: Path
) -> None:
    paths = {"BUILD": str(root), "RUN": str(run), "GONE": str(tmp_path / "gone")}
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        report_of(*(paths.get(word, word) for word in words), "-o", tmp_path / "page.html")
    assert "\n" not in str(error.value)
