"""Tables as documents: their columns, their sides, and what is wrong with one, by place."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from preparing import Told, error_of, run, write

from core.data.dataset import Dataset

Terrarium = Callable[..., Any]
SUMS = [(f"{a}+{b}=", str(a + b)) for a in range(10) for b in range(10)]


def table(folder: Path, name: str, text: str, more: str = "") -> Path:
    """An experiment that reads a table of this name and text."""
    kind = name.rpartition(".")[2]
    write(folder, config=f'[prepare]\ninput = "{name}"\nformat = "{kind}"\n{more}')
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def everything(dataset: Dataset) -> set[tuple[str, str]]:
    sides = ("train", "val", *(("test",) if dataset.test else ()))
    return {example[:2] for side in sides for example in dataset.examples(side, 0)}  # type: ignore[arg-type]


def test_csv_and_tsv(tmp_path: Path) -> None:
    comma = "prompt,completion\n" + "".join(
        f'"{a} plus, or {b}","say ""{a + b}"""\n' for a in range(9) for b in range(9)
    )
    wanted = {(f"{a} plus, or {b}", f'say "{a + b}"\n') for a in range(9) for b in range(9)}
    assert everything(run(table(tmp_path / "comma", "data.csv", comma.replace("\n", "\r\n")))) == wanted
    tab = "prompt\tcompletion\n" + "".join(f"{prompt}\t{answer}\n" for prompt, answer in SUMS)
    assert everything(run(table(tmp_path / "tab", "data.tsv", tab))) == {
        (prompt, f"{answer}\n") for prompt, answer in SUMS
    }
    semicolon = tab.replace("\t", ";")
    assert everything(run(table(tmp_path / "semicolon", "data.csv", "\ufeff" + semicolon))) == everything(
        run(tmp_path / "tab")
    )


def test_columns_of_other_names_and_groups(tmp_path: Path) -> None:
    rows = [{"question": prompt, "answer": int(answer), "kind": "even" if int(answer) % 2 == 0 else None, "id": 7}
            for prompt, answer in SUMS]  # fmt: skip
    more = '[prepare.columns]\nprompt = "question"\ncompletion = "answer"\ngroup = "kind"\n'
    told = Told()
    dataset = run(table(tmp_path / "one", "data.jsonl", jsonl(rows), more), listener=told)
    assert everything(dataset) == {(prompt, f"{answer}\n") for prompt, answer in SUMS}
    assert dataset.groups == ["even"]
    assert any("columns that are not read: id" in line for line in told.said)
    assert not any("preparing" in line for line in run_again(tmp_path / "one"))


def run_again(folder: Path) -> list[str]:
    told = Told()
    run(folder, listener=told)
    return told.said


def test_the_sides_of_a_column(tmp_path: Path) -> None:
    sides = {"train": SUMS[:60], "validation": SUMS[60:80], "test": SUMS[80:]}
    rows = [
        {"prompt": prompt, "completion": answer, "split": side}
        for side, sums in sides.items()
        for prompt, answer in sums
    ]
    dataset = run(table(tmp_path / "one", "data.jsonl", jsonl(rows)))
    for side, sums in zip(("train", "val", "test"), sides.values(), strict=True):
        assert {example.prompt for example in dataset.examples(side, 0)} == {prompt for prompt, _ in sums}
    told = Told()
    some = [row for row in rows if row["split"] != "validation"]
    dataset = run(table(tmp_path / "two", "data.jsonl", jsonl(some)), listener=told)
    assert dataset.test is not None
    assert {example.prompt for example in dataset.examples("test", 0)} == {prompt for prompt, _ in SUMS[80:]}
    assert any("no row is of val, so" in line for line in told.said)


def test_texts_and_messages(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"line {number}"} for number in range(100)]
    rows[3] = {"text": ""}
    told = Told()
    dataset = run(table(tmp_path / "text", "data.jsonl", jsonl(rows)), listener=told)
    decoded = dataset.encoder.decode(dataset.train.ids.tolist())
    assert decoded.startswith("line 0\nline 1\nline 2\nline 4\n")
    assert any("1 rows without text are left out" in line for line in told.said)
    turns = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}]}
        for n in range(50)
    ]
    dataset = run(table(tmp_path / "chat", "data.jsonl", jsonl(turns)))
    assert dataset.info["kind"] == "conversations"
    assert "User: 3?\nAssistant: 3!\n" in dataset.encoder.decode(dataset.train.ids.tolist())


def test_conversations_with_a_group_are_graded(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}],
            "group": None if n % 2 else "even",
        }
        for n in range(60)
    ]
    more = 'special_tokens = "chat"\n'
    dataset = run(table(tmp_path / "chat", "data.jsonl", jsonl(rows), more))
    asked = [example for side in ("train", "val", "test") for example in dataset.examples(side, 0)]
    assert dataset.groups == ["even"] and len(asked) == 30
    assert all(int(example.completion.rstrip("!")) % 2 == 0 for example in asked)


def test_a_size_is_told(tmp_path: Path) -> None:
    told = Told()
    rows = jsonl([{"prompt": prompt, "completion": answer} for prompt, answer in SUMS])
    folder = table(tmp_path / "one", "data.jsonl", rows, "size = 200\n")
    run(folder, listener=told)
    [line] = [line for line in told.said if "cut at prepare.size = 200 characters: " in line]
    drawn = len(everything(run(folder)))
    assert line.endswith(f": {100 - drawn} rows are left out") and 25 < drawn < 50


def test_the_checksum_is_of_the_whole_file_whatever_the_size(tmp_path: Path) -> None:
    rows = "prompt,completion\n" + "".join(f"{n}+1=,{n + 1}\n" for n in range(60_000))  # several blocks
    folder = table(tmp_path / "one", "data.csv", rows, "size = 200\n")
    digest = hashlib.sha256(rows.encode()).hexdigest()
    assert run(folder, [f"prepare.sha256={digest}"]).info["raw"]["input"]["sha256"] == digest
    (folder / "data.csv").touch()
    assert not any("preparing" in line for line in run_again(folder))
    (folder / "data.csv").write_text(rows + "1+1=,2\n")
    assert any("(its input data.csv has changed)" in line for line in run_again(folder))


def test_a_column_that_the_first_row_does_not_have(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": prompt, "completion": answer} for prompt, answer in SUMS]
    rows[7]["note"] = "an aside"
    told = Told()
    run(table(tmp_path / "one", "data.jsonl", jsonl(rows)), listener=told)
    assert any("columns that are not read: note" in line for line in told.said)
    rows[9]["split"] = "test"
    error = error_of(table(tmp_path / "two", "data.jsonl", jsonl(rows)))
    assert error.message == "has 'split', which the first row does not have"
    assert error.place.endswith("data.jsonl:10") and error.remedy.startswith("Give it to every row")


def test_rows_that_stand_on_two_sides_are_told(lab: Path, terrarium: Terrarium) -> None:
    rows = [(prompt, answer, "train") for prompt, answer in SUMS[:80]]
    rows += [(prompt, answer, "val") for prompt, answer in SUMS[80:]]
    rows += [(prompt, answer, "test") for prompt, answer in SUMS[:10]]
    text = "prompt,completion,split\n" + "".join(f"{','.join(row)}\n" for row in rows)
    folder = table(lab / "sums", "data.csv", text)
    (folder / "config.toml").write_text(TINY)
    read = ("prepare.input=data.csv", "prepare.format=csv", "prepare.split=shuffle")
    done = terrarium("train", "sums", *read)
    assert "100% of the test side also occurs in training, so its loss rewards memorising" in done.output
    assert "Remove what is repeated from one of the sides." in done.output
    assert "a column names the sides, so prepare.split has no effect" in done.output


def test_a_table_without_a_test_side_says_so(tmp_path: Path) -> None:
    rows = "".join(f"{prompt},{answer},{'val' if n % 9 == 0 else 'train'}\n" for n, (prompt, answer) in enumerate(SUMS))
    told = Told()
    run(table(tmp_path / "one", "data.csv", f"prompt,completion,split\n{rows}"), listener=told)
    assert any("There is no test side (the data names none), so" in line for line in told.said)


def test_something_between_prompt_and_answer(tmp_path: Path) -> None:
    rows = "prompt,completion\n" + "".join(f"{prompt[:-1]},{answer}\n" for prompt, answer in SUMS)
    told = Told()
    run(table(tmp_path / "one", "data.csv", rows), listener=told)
    assert any(
        "the prompts end in different characters, so nothing shows where an answer begins" in s for s in told.said
    )
    dataset = run(tmp_path / "one", ["prepare.separator=="])
    assert everything(dataset) == {(prompt, f"{answer}\n") for prompt, answer in SUMS}


def test_missing_values_and_names_in_other_letters(tmp_path: Path) -> None:
    rows = "".join(
        f'{{"Prompt": "{prompt}", "Completion": {answer if n else "NaN"}}}\n' for n, (prompt, answer) in enumerate(SUMS)
    )
    told = Told()
    assert len(everything(run(table(tmp_path / "one", "data.jsonl", rows), listener=told))) == 99
    assert any("1 rows without Completion are left out" in line for line in told.said)


def test_tabs_in_a_csv_and_blank_lines_before_the_header(tmp_path: Path) -> None:
    rows = "\nprompt\tcompletion\n" + "".join(f"{prompt}\t{answer}\n" for prompt, answer in SUMS)
    assert len(everything(run(table(tmp_path / "one", "data.csv", rows[1:])))) == 100
    assert len(everything(run(table(tmp_path / "two", "data.tsv", rows)))) == 100


def test_columns_of_what_is_no_table(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", config='[prepare]\ninput = "data.txt"\n')
    (folder / "data.txt").write_text("1=2\n" * 100)
    error = error_of(folder, "prepare.columns.prompt=a")
    assert 'columns name those of a table, and format = "text" has none' in str(error)
    assert 'Set prepare.format, such as "csv"' in str(error)


@pytest.mark.parametrize(
    ("name", "text", "more", "place", "message", "remedy"),
    [
        ("data.csv", "a,b\n1,2\n", "", "config.toml:2", "no column is called prompt and completion, messages, or text: they are a, b", "`prepare.columns.prompt=NAME`"),
        ("data.csv", "prompt,completion\n1,2,3\n", "", "data.csv:2", "3 fields, but the header has 2", "double quotes"),
        ("data.csv", "text,text\n1,2\n", "", "data.csv:1", "two columns are called 'text'", "The first line names the columns."),
        ("data.csv", 'text\n"a"b\n', "", "data.csv:2", "not CSV: ", "Quotes inside"),
        ("data.csv", "text\n", "", "data.csv", "holds no rows", "two rows"),
        ("data.csv", 'text\nok\n"open\nab\ncd\n', "", "data.csv:3", "not CSV: ", "each one is closed"),
        ("data.csv", "text,split\na,test\nb,test\n", "", "data.csv", "no row is of train", "Write train into the column"),
        ("data.jsonl", '{"messages": "' + "[" * 100_000 + '"}\n', "", "data.jsonl:1", "no list of messages: RecursionError", '"role": "user"'),
        ("data.jsonl", '{"text": "a\\u0000b"}\n', "", "data.jsonl:1", "text has a NUL character", "Leave it out."),
        ("data.jsonl", '{"text": 1e400}\n', "", "data.jsonl:1", "text is float, not text: inf", "Write it as text."),
        ("data.jsonl", '{"text": 1\n', "", "data.jsonl:1", "not JSON: ", "one JSON object"),
        ("data.jsonl", "\n[1]\n", "", "data.jsonl:2", "list instead of an object", 'Each line is like {"text": "..."}.'),
        ("data.jsonl", '{"text": "a"}\n{"txt": "a"}\n', "", "data.jsonl:2", "there is no 'text'", "the same columns"),
        ("data.jsonl", '{"text": true}\n', "", "data.jsonl:1", "text is bool, not text: True", "Write it as text."),
        ("data.jsonl", '{"messages": [1]}\n', "", "data.jsonl:1", "no list of messages: TypeError", '"role": "user"'),
        ("data.jsonl", '{"text": "a", "split": "b"}\n', "", "data.jsonl:1", "split is 'b', which is no side", "Write train, val or test."),
        ("data.jsonl", '{"text": "a"}\n', 'columns = {text = "tex"}\n', "config.toml:4", "no column is called 'tex', which prepare.columns.text names", "Did you mean 'text'?"),
        ("data.jsonl", '{"text": "a"}\n', 'columns = {tekst = "text"}\n', "config.toml:4", "unknown key 'prepare.columns.tekst'", "Did you mean 'text'? The keys are prompt,"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, name: str, text: str, more: str, place: str, message: str, remedy: str) -> None:
    error = error_of(table(tmp_path / "one", name, text, more))
    assert error.message.startswith(message)
    assert error.place.endswith(place)
    assert remedy in error.remedy


@pytest.mark.parametrize("name", ["data.csv", "data.tsv", "data.jsonl", "data.parquet"])
@pytest.mark.parametrize("kind", ["text", "pairs"])
def test_a_table_is_not_read_as_text(tmp_path: Path, name: str, kind: str) -> None:
    error = error_of(table(tmp_path / "one", name, "a=b\n" * 9), f"prepare.format={kind}")
    assert error.message.startswith(f'input = "{name}" is a table, and format = "{kind}" would learn its header')
    assert f'Set prepare.format = "{name[5:]}"' in error.remedy


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = table(tmp_path / "one", "data.parquet", "not Parquet")
    assert error_of(folder).message.startswith("not Parquet: ")
    columns = {"prompt": [prompt for prompt, _ in SUMS], "completion": [answer for _, answer in SUMS]}
    parquet.write_table(arrow.table(columns), folder / "data.parquet")
    assert everything(run(folder)) == {(prompt, f"{answer}\n") for prompt, answer in SUMS}


def test_packages_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pyarrow", "datasets"):
        monkeypatch.setitem(sys.modules, package, None)
    error = error_of(table(tmp_path / "one", "data.parquet", ""))
    assert error.message == "reading Parquet needs pyarrow, which is not installed"
    assert error.remedy == "Install it: pip install -c constraints.txt -e '.[parquet]'"
    error = error_of(tmp_path / "one", "prepare.format=datasets")
    assert error.message == 'format = "datasets" needs the package datasets, which is not installed'
    assert error.remedy == "Install it: pip install -c constraints.txt -e '.[hf]'"


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_a_folder_of_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = write(tmp_path / "one", config='[prepare]\ninput = "saved"\nformat = "datasets"\n')
    assert error_of(folder).message == "cannot be loaded: there is no such folder"
    (folder / "saved").mkdir()
    for name, sums in (("train", SUMS[:80]), ("validation", SUMS[80:])):
        rows = jsonl([{"prompt": prompt, "completion": answer} for prompt, answer in sums])
        (folder / "saved" / f"{name}.jsonl").write_text(rows)
    dataset = run(folder)
    assert {example.prompt for example in dataset.examples("val", 0)} == {prompt for prompt, _ in SUMS[80:]}
    assert not any("preparing" in line for line in run_again(folder))


@pytest.mark.filterwarnings("ignore")
def test_datasets_that_were_saved_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = write(tmp_path / "one", config='[prepare]\ninput = "whole"\nformat = "datasets"\n')
    columns = {"prompt": [prompt for prompt, _ in SUMS], "completion": [answer for _, answer in SUMS]}
    whole = library.Dataset.from_dict(columns)
    whole.save_to_disk(str(folder / "whole"))
    parts = {"train": range(60), "validation": range(60, 80), "test": range(80, 100)}
    library.DatasetDict({name: whole.select(part) for name, part in parts.items()}).save_to_disk(str(folder / "parts"))
    assert everything(run(folder)) == {(prompt, f"{answer}\n") for prompt, answer in SUMS}
    told = Told()
    library.DatasetDict(train=whole.select(range(60)), other=whole.select(range(60, 80))).save_to_disk(
        str(folder / "others")
    )
    assert len(everything(run(folder, ["prepare.input=others"], listener=told))) == 60
    assert any("others: splits that are not read: other" in line for line in told.said)
    library.DatasetDict(one=whole, two=whole).save_to_disk(str(folder / "none"))
    error = error_of(folder, "prepare.input=none")
    assert error.message == "none of its splits is called train: they are one, two"
    assert error.remedy == "Name one of them: https://huggingface.co/datasets/OWNER/NAME/viewer/SUBSET/one."
    (folder / "code").mkdir()
    (folder / "code/code.py").write_text("raise SystemExit\n")
    assert error_of(folder, "prepare.input=code").message.startswith("cannot be loaded: ")
    (folder / "file.jsonl").write_text("")
    error = error_of(folder, "prepare.input=file.jsonl")
    assert error.message == 'input = "file.jsonl" is a file, and format = "datasets" reads folders and addresses'
    assert error.remedy == 'Set prepare.format = "jsonl".'
    dataset = run(folder, ["prepare.input=parts"])
    assert dataset.test and {example.prompt for example in dataset.examples("test", 0)} == {p for p, _ in SUMS[80:]}


def test_an_address_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is asked for what a browser's address names."""
    from core.data import hub

    asked: list[tuple[str, dict[str, str]]] = []

    class Library:
        class exceptions:  # noqa: N801
            DatasetsError = ValueError

        class utils:  # noqa: N801
            are_progress_bars_disabled = staticmethod(lambda: True)

        disable_progress_bars = staticmethod(lambda: None)

        @staticmethod
        def load_dataset(path: str, **choices: str) -> list[dict[str, str]]:
            asked.append((path, choices))
            return [{"prompt": prompt, "completion": answer} for prompt, answer in SUMS]

    monkeypatch.setattr(hub, "load_library", lambda: Library)
    folder = write(tmp_path / "one", config='[prepare]\ninput = "me/sums"\nformat = "datasets"\n')
    for address in ("me/sums", f"{hub.ADDRESS}me/sums/tree/v2", f"{hub.ADDRESS}me/sums/viewer/main/train"):
        assert everything(run(folder, [f"prepare.input={address}"])) == {(p, f"{c}\n") for p, c in SUMS}
    assert asked == [("me/sums", {}), ("me/sums", {"revision": "v2"}), ("me/sums", {"name": "main", "split": "train"})]


def test_csv_pairs_is_learnt_with_its_format(lab: Path, terrarium: Terrarium) -> None:
    rows = "".join(f'"Add {n}, then {n + 1}","{2 * n + 1}, exactly"\n' for n in range(60))
    table(lab / "sums", "data.csv", "question,answer\n" + rows)
    names = ("-s", "prepare.columns.prompt=question", "-s", "prepare.columns.completion=answer")
    assert terrarium("prepare", "sums").exit_code == 2
    done = terrarium("prepare", "sums", *names)
    assert done.exit_code == 0, done.output
