"""A tour of the Python API: run it as a script, or cell by cell in VS Code, PyCharm or Jupyter (jupytext).

python docs/how-to/tour.py
"""

# %% Open an experiment with other settings than its config.toml
import os

from core import compare_experiments, open_experiment, train_models

steps = int(os.environ.get("TOUR_STEPS", "200"))
exp = open_experiment("insert_spaces", {"train.schedule.max_iters": steps})

# %% Look at its data
data = exp.prepare()
print(f"{data.train.tokens:,} training tokens, {data.val.tokens:,} validation tokens")
for example in data.examples("val", 3):
    print(repr(example.prompt), "->", repr(example.completion))

# %% Train a run. In a notebook this cell shows one live display.
run = exp.train("tour", description="A tour of the Python API.")
print(run.summary["status"], "after", run.summary["steps"], "steps")

# %% Use the model
model = run.load()
print({name: value for name, value in model.evaluate().items() if "accuracy" in name})
print(model.complete(["cab: ", "bed: "], temperature=0))

# %% Does a wider model help? That needs several seeds.
settings = {"experiment": "insert_spaces", "train.schedule.max_iters": steps}
narrow = train_models({**settings, "run": "narrow", "train.model.n_embd": 32, "train.model.n_head": 2}, seeds=[0, 1, 2])
wide = train_models({**settings, "run": "wide", "train.model.n_embd": 64, "train.model.n_head": 2}, seeds=[0, 1, 2])
compared = compare_experiments(
    [[run.folder for run in narrow], [run.folder for run in wide]],
    output_path="comparison.png",
    experiment_names=["narrow", "wide"],
)
print("\n".join(compared.verdicts))
