"""What docs/library.md says of transformers' and TRL's trainers, where they are installed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shards_factory import Doc, write_build

from prep.shard.batches import PackedDataset

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # warnings of theirs are not ours

FIELDS = ("input_ids", "labels", "position_ids")


@pytest.fixture
def rows(tmp_path: Path) -> PackedDataset:
    row = [Doc([0, 5, 6, 7], [0, 0, 1, 1]), Doc([0, 8, 9], [0, 1, 1])]
    return PackedDataset(write_build(tmp_path / "s", {"train": [row] * 6, "val": [row]}, max_seq_len=8))


@pytest.fixture
def model() -> Any:
    """One that notes what it is given"""
    transformers = pytest.importorskip("transformers", reason="pip install transformers to train with it")
    pytest.importorskip("accelerate", reason="pip install accelerate: transformers' Trainer needs it")
    config = transformers.LlamaConfig(
        vocab_size=512, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1
    )
    model = transformers.LlamaForCausalLM(config)
    model.seen = []
    model.register_forward_pre_hook(lambda _, args, kwargs: model.seen.append(kwargs), with_kwargs=True)
    return model


def check(model: Any, rows: PackedDataset) -> None:
    """Each row as it was given reached the model, its positions included"""
    assert len(model.seen) == 2
    for batch in model.seen:
        for field in ("input_ids", "position_ids"):
            assert np.array_equal(batch[field][0].cpu().numpy(), rows[0][field]), field
        if "labels" in batch:
            assert np.array_equal(batch["labels"][0].cpu().numpy(), rows[0]["labels"])
    assert rows[0]["position_ids"].tolist()[:7] == [0, 1, 2, 3, 0, 1, 2]


def test_transformers_trainer_takes_the_rows_as_they_are(rows: PackedDataset, model: Any, tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        str(tmp_path / "out"), per_device_train_batch_size=1, max_steps=2, remove_unused_columns=False, report_to=[],
        save_strategy="no",
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=rows).train()
    check(model, rows)


def test_trl_takes_a_dataset_of_row_numbers_and_refuses_the_rows(
    rows: PackedDataset, model: Any, tmp_path: Path
) -> None:
    trl = pytest.importorskip("trl", reason="pip install 'trl==1.16.*' to train with it")
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast, default_data_collator

    from prep.tokenizer.huggingface import export_hf
    from prep.tokenizer.load import load_tokenizer

    (path,) = export_hf(load_tokenizer(), tmp_path)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token="<|assistant_end|>", pad_token="<|bos|>")
    data = Dataset.from_dict({"row": range(len(rows))}).with_transform(
        lambda batch: {field: [rows[row][field] for row in batch["row"]] for field in FIELDS}
    )
    arguments = trl.SFTConfig(
        str(tmp_path / "out"), per_device_train_batch_size=1, max_steps=2, report_to=[], bf16=False, packing=False,
        remove_unused_columns=False, save_strategy="no", dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    given = {"processing_class": tokenizer, "data_collator": default_data_collator}
    trl.SFTTrainer(model, arguments, train_dataset=data, **given).train()
    check(model, rows)
    with pytest.raises(TypeError, match="must be a `Dataset`"):
        trl.SFTTrainer(model, arguments, train_dataset=rows, **given)
