"""MNLI in its three forms, sampled and cut; HANS in the place of its test split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from twinlens.attribution.errors import UserError
from twinlens.data.labels import Fold
from twinlens.data.mnli import LABELS, MnliDataModule

HANS_HEADER = ["gold_label", "s1_parse", "sentence1", "sentence2", "pairID", "heuristic", "subcase", "template"]
HANS = [
    ("entailment", "The artist and the judge slept .", "The judge slept .", "lexical_overlap", "le_conjunction"),
    ("non-entailment", "The judge saw the poet .", "The poet saw the judge .", "lexical_overlap", "ln_swap"),
    ("non-entailment", "The judge near the poet slept .", "The poet slept .", "subsequence", "sn_PP"),
]


def example(row: int, label: str | None = None) -> dict[str, str]:
    return {
        "gold_label": LABELS[row % 3] if label is None else label,
        "sentence1": f'He said "{row}" to her.',
        "sentence2": f"It was {row}.",
        "genre": "fiction",
    }


def write_tsv(file: Path, rows: list[dict[str, str]]) -> None:
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_hans(folder: Path) -> str:
    rows = [dict.fromkeys(HANS_HEADER, "x") for _ in HANS]
    for row, (gold, premise, hypothesis, heuristic, subcase) in zip(rows, HANS, strict=True):
        row.update(gold_label=gold, sentence1=premise, sentence2=hypothesis, heuristic=heuristic, subcase=subcase)
    write_tsv(folder / "heuristics_evaluation_set.txt", rows)
    return str(folder / "heuristics_evaluation_set.txt")


def write(folder: Path, n_train: int = 30, n_matched: int = 9) -> str:
    """Published TSV; two training rows and one matched row have no gold label."""
    train = [example(row, "-" if row in (4, 7) else None) for row in range(n_train)]
    write_tsv(folder / "train.tsv", train)
    write_tsv(folder / "dev_matched.tsv", [example(row, "-" if row == 2 else None) for row in range(n_matched)])
    write_tsv(folder / "dev_mismatched.tsv", [example(row) for row in range(3)])
    return str(folder)


def prepared(tokenizer: Any, path: str | None, **options: Any) -> MnliDataModule:
    options = {"train_size": 12, "validation_size": 6, **options}
    module = MnliDataModule(path=path, **options)
    module.prepare(tokenizer)
    return module


def sizes(module: MnliDataModule) -> dict[str, int]:
    return {split: len(rows) for split, rows in module.splits.items()}


def test_sample_prompt_and_rows_without_a_gold_label(tmp_path: Path, tokenizer: Any):
    module = prepared(tokenizer, write(tmp_path))
    assert (module.name, module.label_names, module.folds) == ("mnli", LABELS, {})
    assert module.pair_columns == ("premise", "hypothesis")
    assert sizes(module) == {"train": 12, "validation": 6, "test": 8}
    train, validation = (set(module.splits[split]["source_index"]) for split in ("train", "validation"))
    assert not train & validation
    assert not {4, 7} & (train | validation)
    assert module.splits["test"]["source_index"][:] == [0, 1, 3, 4, 5, 6, 7, 8]
    assert module.report["no_gold_label"] == {"count": 3, "indices": {"train": [4, 7], "test": [2]}}
    row = module.splits["test"][2]
    assert tokenizer.decode(row["input_ids"]) == (
        '<bos>Premise : He said "3" to her./ Hypothesis : It was 3./ Answer :'
    )
    assert row["label"] == 0


def test_the_premise_is_cut_and_the_hypothesis_never(tmp_path: Path, tokenizer: Any):
    module = prepared(tokenizer, write(tmp_path), max_length=30)
    texts = [tokenizer.decode(ids) for ids in module.splits["test"]["input_ids"]]
    assert module.report["cut_text"]["count"] == 26
    assert module.report["cut_prompt"]["count"] == 0
    for row, text in zip(module.splits["test"]["source_index"], texts, strict=True):
        assert text.endswith(f"/ Hypothesis : It was {row}./ Answer :")
    shown = prepared(tokenizer, str(tmp_path), template="{hypothesis}?", max_length=4)
    assert len(shown.splits["test"]["input_ids"][0]) == 4


def test_the_sample_follows_its_seed_alone(tmp_path: Path, tokenizer: Any):
    path = write(tmp_path)
    first = prepared(tokenizer, path)
    assert prepared(tokenizer, path, seed=3, split_seed=3).fingerprint("train") == first.fingerprint("train")
    assert prepared(tokenizer, path, sample_seed=1).fingerprint("train") != first.fingerprint("train")
    every = prepared(tokenizer, path, train_size=None)
    assert sizes(every) == {"train": 22, "validation": 6, "test": 8}
    assert every.splits["validation"]["source_index"][:] != []


def test_jsonl_and_the_hub_say_the_same(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch):
    tsv, jsonl, hub = (tmp_path / name for name in ("tsv", "jsonl", "hub"))
    for folder in (tsv, jsonl, hub):
        folder.mkdir()
    local = prepared(tokenizer, write(tsv))
    for stem, published in (("multinli_1.0_train", "train"), ("multinli_1.0_dev_matched", "dev_matched")):
        header, *lines = (tsv / f"{published}.tsv").read_text(encoding="utf-8").splitlines()
        rows = [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
        (jsonl / f"{stem}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        numbered = [
            {
                "premise": row["sentence1"],
                "hypothesis": row["sentence2"],
                "label": LABELS.index(row["gold_label"]) if row["gold_label"] != "-" else -1,
            }
            for row in rows
        ]
        name = {"train": "train", "dev_matched": "validation_matched"}[published]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(numbered), hub / f"{name}-00000-of-00001.parquet")
    asked = []

    def hf_hub_download(repository: str, name: str, repo_type: str) -> str:
        asked.append((repository, name, repo_type))
        return str(hub / Path(name).name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    for other in (prepared(tokenizer, str(jsonl)), prepared(tokenizer, str(hub)), prepared(tokenizer, None)):
        assert {s: other.fingerprint(s) for s in other.splits} == {s: local.fingerprint(s) for s in local.splits}
        assert other.report == local.report
    assert asked == [
        ("nyu-mll/multi_nli", "data/train-00000-of-00001.parquet", "dataset"),
        ("nyu-mll/multi_nli", "data/validation_matched-00000-of-00001.parquet", "dataset"),
    ]


def test_a_failed_download_says_what_to_do(tokenizer: Any, monkeypatch: pytest.MonkeyPatch):
    def fail(*args: Any, **kwargs: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(UserError, match=r"of MNLI could not be downloaded from nyu-mll/multi_nli .* data\.path=DIR"):
        prepared(tokenizer, None)


SPLIT = {"split_validation": True, "split_sizes": {"train": 3, "validation": 2, "test": None}}


def test_the_validation_set_alone_is_cut_and_says_so(tmp_path: Path, tokenizer: Any):
    path = write(tmp_path)
    (tmp_path / "train.tsv").unlink()
    module = prepared(tokenizer, path, **SPLIT)
    assert module.name == "mnli-split-validation"
    assert sizes(module) == {"train": 3, "validation": 2, "test": 3}
    rows = [row for split in module.splits.values() for row in split["source_index"]]
    assert sorted(rows) == [0, 1, 3, 4, 5, 6, 7, 8]
    assert module.report["no_gold_label"]["count"] == 1
    file = prepared(tokenizer, str(tmp_path / "dev_matched.tsv"), **SPLIT)
    assert file.fingerprint("train") == module.fingerprint("train")
    assert prepared(tokenizer, path, **SPLIT, split_seed=1).fingerprint("train") != module.fingerprint("train")
    fewer = {**SPLIT, "split_sizes": {"train": 3, "validation": 2, "test": 1}}
    assert sizes(prepared(tokenizer, path, **fewer)) == {"train": 3, "validation": 2, "test": 1}


@pytest.mark.parametrize(("split", "name"), [({}, "mnli/hans"), (SPLIT, "mnli-split-validation/hans")])
def test_hans_stands_in_for_the_test_split(tmp_path: Path, tokenizer: Any, split: dict[str, Any], name: str):
    path = write(tmp_path)
    plain = prepared(tokenizer, path, **split)
    module = prepared(tokenizer, path, test="hans", test_path=write_hans(tmp_path), **split)
    assert module.name == name
    for unchanged in ("train", "validation"):
        assert module.fingerprint(unchanged) == plain.fingerprint(unchanged)
        assert "heuristic" not in module.splits[unchanged].column_names
    assert module.folds == {"test": Fold(("entailment", "non-entailment"), (0, 1, 1))}
    test = module.splits["test"]
    assert test.column_names == [
        "index", "source_index", "premise", "hypothesis", "label", "heuristic", "subcase", "template", "input_ids",
    ]  # fmt: skip
    assert test["label"][:] == [0, 1]
    assert test["subcase"][:] == ["le_conjunction", "ln_swap"]
    assert test["source_index"][:] == [0, 1]
    assert test["premise"][1] == "The judge saw the poet ."
    every = prepared(tokenizer, path, test="hans", test_path=str(tmp_path), heuristic=None, **split)
    assert len(every.splits["test"]) == 3


def test_hans_needs_no_matched_file(tmp_path: Path, tokenizer: Any):
    path = write(tmp_path)
    (tmp_path / "dev_matched.tsv").unlink()
    module = prepared(tokenizer, path, test="hans", test_path=write_hans(tmp_path))
    assert sizes(module) == {"train": 12, "validation": 6, "test": 2}


def test_a_limit_bounds_what_is_read(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch):
    path, hans = write(tmp_path, n_matched=60), write_hans(tmp_path)
    whole, challenge = prepared(tokenizer, path), prepared(tokenizer, path, test="hans", test_path=hans)
    (tmp_path / "heuristics_evaluation_set.txt").open("a").write("no row of HANS\n" * 40)
    monkeypatch.setattr("twinlens.data.file_readers.MOST_ROWS", 35)
    with pytest.raises(UserError, match=r"dev_matched\.tsv has more than 35 rows"):
        prepared(tokenizer, path)
    limited = prepared(tokenizer, path, limit={"test": 3})
    assert limited.splits["test"]["source_index"][:] == whole.splits["test"]["source_index"][:3] == [0, 1, 3]
    assert "read the first 4 rows of dev_matched.tsv" in limited.notes.lines  # one has no gold label
    assert limited.fingerprint("train") == whole.fingerprint("train")
    first = prepared(tokenizer, path, test="hans", test_path=hans, limit={"test": 2})
    assert first.fingerprint("test") == challenge.fingerprint("test")


def test_the_class_order_of_a_checkpoint(tmp_path: Path, tokenizer: Any):
    path, hans = write(tmp_path), write_hans(tmp_path)
    own = ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]
    module = prepared(tokenizer, path, label_names=own, test="hans", test_path=hans)
    usual = prepared(tokenizer, path, label_names=["LABEL_0", "LABEL_1", "LABEL_2"])
    assert usual.label_names == LABELS
    assert module.label_names == own
    assert module.splits["train"]["label"][:] == [2 - label for label in usual.splits["train"]["label"]]
    assert module.folds["test"].of_class == (1, 1, 0)
    with pytest.raises(UserError, match=r"the labels are \[yes, no\], expected entailment, neutral, contradiction"):
        prepared(tokenizer, path, label_names=["yes", "no"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_size": 23}, r"ask for 6 \(validation\), 23 \(train\) rows, but .*train\.tsv has 28 labelled ones"),
        ({"train_size": None, "validation_size": 28}, "has 28 labelled ones, expected at least one for each split"),
        ({"validation_size": 0}, "expected at least one for each split"),
        ({**SPLIT, "split_sizes": {"train": 3, "validation": 6, "test": None}}, r"data\.split_sizes ask for .* has 8"),
        ({"split_sizes": {"train": 3, "validation": None, "test": 2}}, r"expected numbers of rows for train and"),
        ({"split_sizes": {"train": 3, "validation": 1}}, r"expected numbers of rows for train and validation"),
        ({"test": "hans"}, r"data\.test=hans and data\.test_path=null, expected both or neither"),
        ({"test_path": "x"}, r"data\.test=null and data\.test_path=x, expected both or neither"),
        ({"test": "hans", "test_path": "nowhere.txt"}, r"nowhere\.txt does not exist, .* check data\.test_path"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, tokenizer: Any, options: dict[str, Any], message: str):
    path = write(tmp_path)
    with pytest.raises(UserError, match=message):
        prepared(tokenizer, path, **options)


def test_files_that_do_not_fit(tmp_path: Path, tokenizer: Any):
    path = write(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(UserError, match=r"row 0 has the columns text, expected also premise or sentence1, hypothesis"):
        prepared(tokenizer, str(tmp_path / "other"))
    with pytest.raises(UserError, match=r"nowhere does not exist, expected the dataset's files: check data\.path"):
        prepared(tokenizer, str(tmp_path / "nowhere"))
    write_tsv(tmp_path / "dev_matched.tsv", [example(0), example(1, "maybe")])
    with pytest.raises(UserError, match=r"dev_matched\.tsv row 1 has the unknown label 'maybe'"):
        prepared(tokenizer, path)
    (tmp_path / "dev_matched.jsonl").write_text('{"premise": 3, "hypothesis": "h", "label": 1}\n')
    with pytest.raises(UserError, match=r"holds dev_matched\.jsonl, dev_matched\.tsv for one split, expected one file"):
        prepared(tokenizer, path)
    (tmp_path / "dev_matched.tsv").unlink()
    with pytest.raises(UserError, match=r"row 0 has no text for the premise, expected one in the column premise or"):
        prepared(tokenizer, path)
    (tmp_path / "dev_matched.jsonl").unlink()
    with pytest.raises(UserError, match=r"holds no matched validation file of MNLI, expected dev_matched\.tsv"):
        prepared(tokenizer, path)
    (tmp_path / "train.tsv").unlink()
    with pytest.raises(UserError, match=r"no train file of MNLI, .* or set data\.split_validation=true to cut"):
        prepared(tokenizer, path)


def test_hans_files_that_do_not_fit(tmp_path: Path, tokenizer: Any):
    path, hans = write(tmp_path), {"test": "hans"}
    with pytest.raises(UserError, match=r"holds no file of HANS, expected heuristics_evaluation_set\.txt"):
        prepared(tokenizer, path, **hans, test_path=path)
    file = write_hans(tmp_path)
    with pytest.raises(UserError, match="has no row with the heuristic constituent"):
        prepared(tokenizer, path, **hans, test_path=file, heuristic="constituent")
    with pytest.raises(UserError, match=r"train\.tsv row 0 has no text for heuristic, subcase, template"):
        prepared(tokenizer, path, **hans, test_path=str(tmp_path / "train.tsv"))
    Path(file).write_text(Path(file).read_text().replace("non-entailment", "neutral"))
    with pytest.raises(UserError, match="has the unknown label 'neutral', expected one of entailment, non-entailment"):
        prepared(tokenizer, path, **hans, test_path=file)


def test_the_real_validation_set_and_the_real_hans_rows(tokenizer: Any, shared_data: Path):
    module = MnliDataModule(
        path=str(shared_data / "mnli"),
        split_validation=True,
        limit={"train": 200, "validation": 50},
        test="hans",
        test_path=str(shared_data / "hans"),
    )
    sources = module.load_splits()
    assert {split: len(rows.labels) for split, rows in sources.items()} == {
        "train": 6000, "validation": 1000, "test": 70,
    }  # fmt: skip
    module.prepare(tokenizer)
    assert [module.splits["test"]["label"][:].count(label) for label in (0, 1)] == [20, 50]
    assert set(module.splits["test"]["heuristic"]) == {"lexical_overlap"}
    plain = MnliDataModule(path=str(shared_data / "mnli"), split_validation=True).load_splits()
    labels = [label for rows in plain.values() for label in rows.labels]
    assert [labels.count(label) for label in range(3)] == [3479, 3123, 3213]
    assert len(plain["test"].labels) == 2815
    with pytest.raises(UserError, match=r"data\.split_validation=true"):
        MnliDataModule(path=str(shared_data / "mnli")).load_splits()
