"""What replaces the keys of nanoGPT's train.py that have another name here, or none."""

from __future__ import annotations

ANSWERS = {
    "gradient_accumulation_steps": "It is train.data.grad_accum_steps; its default is 1, not 40.",
    "dataset": "Name the folder with train.bin and val.bin in prepare.dataset_dir.",
    "always_save_checkpoint": "Leave it out: checkpoints/last and checkpoints/best are both kept.",
    "eval_only": "Leave it out: the command `evaluate` measures a run.",
    "decay_lr": 'It is train.schedule.decay: "constant" for False.',
    "init_from": "It is train.model.init_from, a run to start from. Leave it out for new weights (scratch), and to go on "
    "with a run (resume), train it again.",
    "wandb_log": 'Set train.runtime.trackers = ["tensorboard", "wandb"].',
    "wandb_project": "Leave it out: the project is called after the experiment.",
    "wandb_run_name": "Leave it out: the run has a name of its own.",
    "backend": "Leave it out: a run is one process.",
    "meta_vocab_size": "Leave it out: the dataset has the number of its ids.",
    "vocab_size": "Leave it out: the dataset has the number of its ids. For bpe it is prepare.vocab_size.",
}
